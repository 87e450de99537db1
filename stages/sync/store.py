"""What is known of the tenants' shops, in the database; and how far it has been pulled."""

from collections.abc import Sequence
from typing import Any

import msgspec
from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    ColumnElement,
    Index,
    String,
    Table,
    Text,
    bindparam,
    case,
    delete,
    false,
    func,
    or_,
    select,
    text,
    update,
)
from sqlalchemy.ext.asyncio import AsyncConnection

from pipeline import RiachoError
from pipeline.message import now_ms
from stages.notification.phone import also_written
from stages.store import Bulk, Database, Rows, metadata
from stages.sync.records import Item, Order, Product
from stages.words import words_of

products = Table(
    "products",
    metadata,
    Column("tenant", String, primary_key=True),
    Column("id", BigInteger, primary_key=True, autoincrement=False),
    Column("name", Text, nullable=False),
    Column("sku", String, nullable=False),
    Column("price", String),
    Column("regular_price", String),
    Column("currency", String, nullable=False),
    Column("stock", BigInteger),
    Column("available", Boolean, nullable=False),
    Column("published", Boolean, nullable=False),
    Column("varies", Boolean, nullable=False, server_default=false()),
    Column("url", Text, nullable=False),
    Column("about", Text, nullable=False),
    Column("words", Text, nullable=False),  # of its name, as `words_of` has them, a space around each
    Column("modified_ms", BigInteger, nullable=False),
    Column("seen_ms", BigInteger, nullable=False),
)
Index("products_by_seen", products.c.tenant, products.c.seen_ms)

# Which published products have a word in their names: a table of all names would be read for each question.
product_words = Table(
    "product_words",
    metadata,
    Column("tenant", String, primary_key=True),
    Column("word", String, primary_key=True),
    Column("id", BigInteger, primary_key=True, autoincrement=False),
    sqlite_with_rowid=False,
)
# Not by tenant first: SQLite would take it for questions, and read all of the tenant's.
Index("product_words_by_id", product_words.c.id, product_words.c.tenant, product_words.c.word)

orders = Table(
    "orders",
    metadata,
    Column("tenant", String, primary_key=True),
    Column("id", BigInteger, primary_key=True, autoincrement=False),
    Column("number", String, nullable=False),
    Column("status", String, nullable=False),
    Column("phone", String, nullable=False),  # as +5511987654321 where that could be made out
    Column("customer", Text, nullable=False),
    Column("email", String, nullable=False),
    Column("total", String, nullable=False),
    Column("currency", String, nullable=False),
    Column("items", Text, nullable=False),  # JSON
    Column("created_ms", BigInteger, nullable=False),
    Column("paid_ms", BigInteger),
    Column("told_ms", BigInteger),  # when the vendor's notification was added
    Column("proof_url", Text, nullable=False, server_default=text("''")),
    Column("modified_ms", BigInteger, nullable=False),
    Column("seen_ms", BigInteger, nullable=False),
)
Index("orders_by_phone", orders.c.tenant, orders.c.phone, orders.c.created_ms)
Index("orders_by_seen", orders.c.tenant, orders.c.seen_ms)
Index("orders_by_paid", orders.c.tenant, orders.c.paid_ms)

# How far a tenant's shop is pulled. `position_ms` is when the newest record was modified that all before are kept
# of, by the shop's clock; a full pull begins at 0 and is under way while it began after it ended. `holder` is the
# try of the job that pulls, until `held_until_ms` whatever becomes of it.
pulls = Table(
    "pulls",
    metadata,
    Column("tenant", String, primary_key=True),
    Column("kind", String, primary_key=True),
    Column("began_ms", BigInteger, nullable=False),
    Column("position_ms", BigInteger, nullable=False),
    Column("full_began_ms", BigInteger),
    Column("full_ended_ms", BigInteger),
    Column("ended_ms", BigInteger),
    Column("holder", String, nullable=False),
    Column("held_until_ms", BigInteger, nullable=False),
    Column("failures", BigInteger, nullable=False),
    Column("next_ms", BigInteger, nullable=False),
    Column("problem", Text, nullable=False),
)

HOLD = 120_000  # ms that a pull may be silent; a page takes a third of that at most
LONGEST_WORD = 64  # characters; nobody asks for a longer one
LIKELY = 200  # products with the most of the words asked for, of which the best are taken
TABLES = {"products": products, "orders": orders}
OURS = ("told_ms", "proof_url")  # what no shop says of an order


class HeldByAnother(RiachoError):
    """Somebody else pulls this from this shop."""


class Pull(msgspec.Struct, frozen=True, kw_only=True):
    """See `pulls`."""

    tenant: str
    kind: str
    began_ms: int
    position_ms: int
    full_began_ms: int | None
    full_ended_ms: int | None
    ended_ms: int | None
    holder: str
    held_until_ms: int
    failures: int
    next_ms: int
    problem: str

    @property
    def full(self) -> bool:
        """Whether a full pull is under way."""
        return self.full_began_ms is not None and self.full_began_ms > (self.full_ended_ms or 0)


class ShopStore:
    """Products, orders, and pulls. Raises StoreUnavailable where the database is away."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._keeping = {kind: _Keeping(database, table) for kind, table in TABLES.items()}
        self._naming = _Naming(database)

    async def begin(self, tenant: str, kind: str, holder: str) -> Pull:
        """Take hold of a pull. Raises HeldByAnother while another try has it."""
        now = now_ms()
        here = pulls.c.tenant == tenant, pulls.c.kind == kind
        first = {
            **dict.fromkeys(("position_ms", "held_until_ms", "failures", "next_ms"), 0),
            "tenant": tenant,
            "kind": kind,
            "began_ms": now,
            "holder": "",
            "problem": "",
        }
        job = holder.rpartition(" ")[0]  # an earlier try of the same job is over
        free = or_(pulls.c.held_until_ms < now, pulls.c.holder.startswith(f"{job} ", autoescape=True))
        taken = {"holder": holder, "held_until_ms": now + HOLD}
        async with self._database.transaction() as connection:
            await connection.execute(self._database.insert(pulls).values(first).on_conflict_do_nothing())
            if (await connection.execute(update(pulls).where(*here, free).values(taken))).rowcount != 1:
                raise HeldByAnother(f"the {kind} of {tenant or 'the only tenant'} are being pulled by another job")
            row = (await connection.execute(select(pulls).where(*here))).mappings().one()
        return Pull(**row)

    async def begin_full(self, pull: Pull, since_ms: int = 0) -> Pull:
        """Have it begin anew, from the oldest record that was modified since then."""
        return await self._put(pull, full_began_ms=now_ms(), position_ms=since_ms)

    async def keep(
        self, pull: Pull, found: Sequence[Product | Order], position_ms: int, gone: Sequence[int] = ()
    ) -> Pull:
        """Records of a page, that others of it are `gone`, and that all before `position_ms` are kept: all or
        nothing. Raises HeldByAnother where this try is not the one that pulls any more."""
        async with self._database.transaction() as connection:
            moved = await self._put_on(connection, pull, position_ms=position_ms)
            await self._keep(connection, pull.tenant, pull.kind, found)
            if gone:
                await self._forget(connection, pull.tenant, pull.kind, gone)
        return moved

    async def keep_one(self, tenant: str, kind: str, found: Product | Order) -> None:
        """A record by itself, whoever pulls; an older version than is kept changes nothing."""
        async with self._database.transaction() as connection:
            await self._keep(connection, tenant, kind, [found])

    async def forget_one(self, tenant: str, kind: str, id: int) -> bool:  # noqa: A002
        """It is no longer in the shop; whether it was known."""
        async with self._database.transaction() as connection:
            return await self._forget(connection, tenant, kind, [id]) > 0

    async def unseen(self, pull: Pull, limit: int) -> list[tuple[int, int]]:
        """What a full pull has not met, though it has met all there is: ids, and when each was modified."""
        table = TABLES[pull.kind]
        here = table.c.tenant == pull.tenant, table.c.seen_ms < pull.full_began_ms
        rows = await self._database.read(select(table.c.id, table.c.modified_ms).where(*here).limit(limit))
        return [(row["id"], row["modified_ms"]) for row in rows]

    async def sweep(self, pull: Pull, ids: Sequence[int]) -> int:
        """Delete those of these that are still unseen: a webhook may come meanwhile; how many."""
        unseen = TABLES[pull.kind].c.seen_ms < pull.full_began_ms
        async with self._database.transaction() as connection:
            await self._put_on(connection, pull)
            return await self._forget(connection, pull.tenant, pull.kind, ids, unseen)

    async def end(self, pull: Pull) -> None:
        """It has come to its end for this time."""
        now = now_ms()
        ended = {"full_ended_ms": now} if pull.full else {}
        await self._put(pull, ended_ms=now, failures=0, next_ms=0, problem="", held_until_ms=0, **ended)

    async def fail(self, pull: Pull, problem: str, next_ms: int) -> None:
        """It cannot go on before `next_ms`."""
        values = {"failures": pull.failures + 1, "next_ms": next_ms, "problem": problem, "held_until_ms": 0}
        await self._put(pull, **values)

    async def release(self, pull: Pull) -> None:
        """Let go of it."""
        await self._put(pull, held_until_ms=0)

    async def paid(self, tenant: str, since_ms: int, limit: int) -> list[Order]:
        """Orders paid since then that no vendor has been told of, oldest first."""
        wanted = orders.c.tenant == tenant, orders.c.paid_ms >= since_ms, orders.c.told_ms.is_(None)
        return await self._orders(
            select(orders).where(*wanted).order_by(orders.c.paid_ms, orders.c.id).limit(limit)
        )

    async def told(self, tenant: str, id: int) -> None:  # noqa: A002
        """The vendor's notification of this order has been added."""
        here = orders.c.tenant == tenant, orders.c.id == id
        await self._database.write(update(orders).where(*here).values(told_ms=now_ms()))

    async def proved(self, tenant: str, id: int, url: str) -> None:  # noqa: A002
        """The payment proof of this order is kept at this address."""
        here = orders.c.tenant == tenant, orders.c.id == id
        await self._database.write(update(orders).where(*here).values(proof_url=url))

    async def orders_of(self, tenant: str, phone: str, limit: int) -> list[Order]:
        """The latest orders of a customer, by their number as it is normalised; newest first."""
        here = orders.c.tenant == tenant, orders.c.phone.in_(also_written(phone))
        latest = orders.c.created_ms.desc(), orders.c.id.desc()
        return await self._orders(select(orders).where(*here).order_by(*latest).limit(limit))

    async def products_named(self, tenant: str, words: Sequence[str], limit: int) -> list[Product]:
        """Published products that have any of these words in their name, those with the most of them first."""
        if not words:
            return []
        here, score = product_words.c.tenant == tenant, func.count().label("score")
        ranked = select(product_words.c.id, score).where(here, product_words.c.word.in_(words))
        ranked = ranked.group_by(product_words.c.id).order_by(score.desc(), product_words.c.id).limit(LIKELY)
        scores = {row["id"]: row["score"] for row in await self._database.read(ranked)}
        known = select(products).where(products.c.tenant == tenant, products.c.id.in_(scores))
        found = [_product(row) for row in await self._database.read(known)]
        return sorted(found, key=lambda each: (-scores[each.id], len(each.name), each.id))[:limit]

    async def pull(self, tenant: str, kind: str) -> Pull | None:
        """How far it is, without taking hold of it."""
        found = await self._database.read(select(pulls).where(pulls.c.tenant == tenant, pulls.c.kind == kind))
        return Pull(**found[0]) if found else None

    async def _keep(
        self, connection: AsyncConnection, tenant: str, kind: str, found: Sequence[Product | Order]
    ) -> None:
        if not found:
            return
        await self._keeping[kind](connection, tenant, found)
        if kind == "products":
            await self._naming(connection, tenant, [record.id for record in found])

    async def _forget(
        self, connection: AsyncConnection, tenant: str, kind: str, ids: Sequence[int], *where: ColumnElement[bool]
    ) -> int:
        """Delete those of these; how many."""
        table = TABLES[kind]
        gone = delete(table).where(table.c.tenant == tenant, table.c.id.in_(ids), *where)
        count = (await connection.execute(gone)).rowcount
        if kind == "products":
            await self._naming(connection, tenant, ids)
        return count

    async def _orders(self, query: Any) -> list[Order]:
        return [_order(row) for row in await self._database.read(query)]

    async def _put(self, pull: Pull, **values: Any) -> Pull:
        async with self._database.transaction() as connection:
            return await self._put_on(connection, pull, **values)

    async def _put_on(self, connection: AsyncConnection, pull: Pull, **values: Any) -> Pull:
        values = {"held_until_ms": now_ms() + HOLD} | values
        here = pulls.c.tenant == pull.tenant, pulls.c.kind == pull.kind, pulls.c.holder == pull.holder
        if (await connection.execute(update(pulls).where(*here).values(values))).rowcount != 1:
            raise HeldByAnother(f"another job pulls the {pull.kind} of {pull.tenant or 'the only tenant'} now")
        return msgspec.structs.replace(pull, **values)


class _Keeping:
    """Writes records into a table: an older version than is there changes nothing but when it was seen."""

    def __init__(self, database: Database, table: Table) -> None:
        names = [column.name for column in table.columns if column.name not in OURS]
        self._names, self._bulk = names, Bulk(database, table, names)
        new, changed = (
            self._bulk.insert.excluded,
            [name for name in names if name not in ("tenant", "id", "seen_ms")],
        )
        newer = new.modified_ms >= table.c.modified_ms
        values = {name: case((newer, new[name]), else_=table.c[name]) for name in changed}
        self._insert = self._bulk.insert.on_conflict_do_update(
            index_elements=table.primary_key, set_=values | {"seen_ms": new.seen_ms}
        )

    async def __call__(self, connection: AsyncConnection, tenant: str, found: Sequence[Product | Order]) -> None:
        seen = now_ms()
        once = {record.id: record for record in sorted(found, key=lambda record: record.modified_ms)}
        rows = [_row(tenant, record, seen, self._names) for _, record in sorted(once.items())]
        await connection.execute(self._insert, self._bulk.parameters(rows))


class _Naming:
    """Has `product_words` say of some products what `products` does."""

    def __init__(self, database: Database) -> None:
        words = product_words.c
        tenant = bindparam("tenant", type_=String)
        self._ids, self._pairs = Rows(database, [products.c.id]), Rows(database, [words.id, words.word])
        mine = products.c.tenant == tenant, products.c.published, self._ids.has(products.c.id)
        self._names = select(products.c.id, products.c.words).where(*mine)
        self._known = select(words.id, words.word).where(words.tenant == tenant, self._ids.has(words.id))
        self._delete = delete(product_words).where(words.tenant == tenant, self._pairs.has(words.id, words.word))
        self._new = Bulk(database, product_words, ["tenant", "id", "word"])

    async def __call__(self, connection: AsyncConnection, tenant: str, ids: Sequence[int]) -> None:
        """In the transaction that wrote these, which nobody else can write meanwhile."""
        which = {"tenant": tenant} | self._ids.parameters([[number] for number in ids])
        names = await connection.execute(self._names, which)
        wanted = {(number, word) for number, name in names for word in name.split() if len(word) <= LONGEST_WORD}
        known = {(number, word) for number, word in await connection.execute(self._known, which)}
        if gone := known - wanted:
            await connection.execute(self._delete, {"tenant": tenant} | self._pairs.parameters([*gone]))
        if new := sorted(wanted - known):
            rows = self._new.parameters([(tenant, number, word) for number, word in new])
            await connection.execute(self._new.insert.on_conflict_do_nothing(), rows)


def _row(tenant: str, record: Product | Order, seen: int, names: Sequence[str]) -> list[Any]:
    values = msgspec.structs.asdict(record) | {"tenant": tenant, "seen_ms": seen}
    if isinstance(record, Product):
        values["words"] = f" {' '.join(words_of(record.name))} "
    else:
        values["items"] = msgspec.json.encode(record.items).decode()
    return [values[name] for name in names]


def _product(row: Any) -> Product:
    return Product(**{name: row[name] for name in Product.__struct_fields__})


def _order(row: Any) -> Order:
    values = {name: row[name] for name in Order.__struct_fields__}
    return Order(**values | {"items": msgspec.json.decode(values["items"], type=tuple[Item, ...])})
