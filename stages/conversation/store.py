"""Conversations in a database."""

from collections.abc import Collection, Sequence
from typing import Any

import msgspec
from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Index,
    String,
    Table,
    Text,
    case,
    delete,
    exists,
    false,
    select,
    update,
)

from pipeline import Permanent
from pipeline.message import now_ms
from stages.ports import REPLY, Message
from stages.store import Bulk, Database, metadata, storable

MOST_AT_ONCE = 500  # messages in one transaction: a few milliseconds for whoever else writes

messages = Table(
    "messages",
    metadata,
    Column("tenant", String, primary_key=True),
    Column("chat", String, primary_key=True),
    Column("id", String, primary_key=True),
    Column("direction", String(3), nullable=False),
    Column("text", Text, nullable=False),
    Column("sent_ms", BigInteger, nullable=False),
    Column("voice", Boolean, nullable=False),
    Column("received_ms", BigInteger, nullable=False, server_default="0"),
)
Index("messages_by_time", messages.c.tenant, messages.c.chat, messages.c.sent_ms)
Index("messages_by_day", messages.c.sent_ms)

# Chats, for whoever looks for those that nothing was said in for long. `started_ms` and `last_ms` are when their
# first and last messages came, by our own clock; nothing is deleted while one is `held` for legal reasons.
conversations = Table(
    "conversations",
    metadata,
    Column("tenant", String, primary_key=True),
    Column("chat", String, primary_key=True),
    Column("started_ms", BigInteger, nullable=False),
    Column("last_ms", BigInteger, nullable=False),
    Column("held", Boolean, nullable=False, server_default=false()),
)
Index("conversations_by_time", conversations.c.last_ms)


class HeldConversation(msgspec.Struct, frozen=True):
    """A chat that nothing is deleted of, and when its first and last messages came, in ms."""

    tenant: str
    chat: str
    started_ms: int
    last_ms: int


class ConversationStore:
    """The Conversations port, on a database; and holds, for legal reasons, on what may be deleted."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._recording = database.grouped(self._write, MOST_AT_ONCE)
        self._messages = Bulk(database, messages, Message.__struct_fields__)
        self._conversations = Bulk(database, conversations, ("tenant", "chat", "started_ms", "last_ms"))
        self._fill_in = _filling_in(self._messages.insert)
        self._extend = _extending(self._conversations.insert)

    async def record(self, new: Sequence[Message]) -> None:
        """See the port. Those recorded at the same time share a transaction."""
        if not new:
            return
        for message in new:
            _check(message)
        await self._recording.write(new)

    async def _write(self, new: Sequence[Message]) -> None:
        """Conversations go first, and wait there for who deletes them: then neither has a message without its
        conversation. All writers lock their rows in the same order."""
        spans = [(*chat, *span) for chat, span in sorted(_spans(new).items())]
        rows = [msgspec.structs.astuple(message) for message in _merged(new)]
        async with self._database.transaction() as connection:
            await connection.execute(self._extend, self._conversations.parameters(spans))
            await connection.execute(self._fill_in, self._messages.parameters(rows))

    async def dismiss(self, message: Message) -> None:
        """See the port."""
        here = messages.c.tenant == message.tenant, messages.c.chat == message.chat, messages.c.id == message.id
        await self._database.write(delete(messages).where(*here, messages.c.text == ""))

    async def find(self, tenant: str, chat: str, id: str) -> Message | None:  # noqa: A002
        """See the port."""
        found = await self._read(_of(tenant, chat).where(messages.c.id == id))
        return found[0] if found else None

    async def unanswered(self, tenant: str, chat: str, since_ms: int) -> list[Message]:
        """See the port."""
        reply = messages.alias()
        replied = exists().where(
            reply.c.tenant == tenant, reply.c.chat == chat, reply.c.id == REPLY + messages.c.id
        )
        asked = _of(tenant, chat).where(messages.c.direction == "in", messages.c.sent_ms >= since_ms)
        return await self._read(asked.where(~replied))

    async def history(self, tenant: str, chat: str, limit: int, without: Collection[str] = ()) -> list[Message]:
        """See the port."""
        told = _of(tenant, chat).where(messages.c.text != "", messages.c.id.not_in(without))
        columns = messages.c.sent_ms, messages.c.received_ms, messages.c.id
        latest = await self._read(told.order_by(*(column.desc() for column in columns)).limit(limit))
        return latest[::-1]

    async def hold(self, tenant: str, chat: str, held: bool) -> bool:
        """Keep a conversation from being deleted, or no longer; whether there is such a conversation."""
        here = conversations.c.tenant == tenant, conversations.c.chat == chat
        return await self._database.write(update(conversations).where(*here).values(held=held)) > 0

    async def held(self) -> list[HeldConversation]:
        """The conversations that are held, by tenant and chat."""
        columns = [conversations.c[name] for name in HeldConversation.__struct_fields__]
        query = select(*columns).where(conversations.c.held).order_by(*columns[:2])
        return [HeldConversation(**row) for row in await self._database.read(query)]

    async def _read(self, query: Any) -> list[Message]:
        return [Message(**row) for row in await self._database.read(query)]


def _of(tenant: str, chat: str) -> Any:
    return select(messages).where(messages.c.tenant == tenant, messages.c.chat == chat)


def _check(message: Message) -> None:
    if any("\0" in name for name in (message.tenant, message.chat, message.id)):
        raise Permanent("a message's tenant, chat or id has a NUL in it, which no database takes")


def _filling_in(insert: Any) -> Any:
    return insert.on_conflict_do_update(
        index_elements=messages.primary_key, set_={"text": insert.excluded.text}, where=messages.c.text == ""
    )


def _extending(insert: Any) -> Any:
    """What is known of a chat grows; one that has nothing new is not written, as when a job comes again."""
    told, known = insert.excluded, conversations.c
    earlier, later = told.started_ms < known.started_ms, told.last_ms > known.last_ms
    return insert.on_conflict_do_update(
        index_elements=conversations.primary_key,
        set_={
            "started_ms": case((earlier, told.started_ms), else_=known.started_ms),
            "last_ms": case((later, told.last_ms), else_=known.last_ms),
        },
        where=earlier | later,
    )


def _merged(new: Sequence[Message]) -> list[Message]:
    """Each message once, for a statement that may touch a row only once, and in the order of their keys. As in the
    table the first counts, and only an empty text is filled in."""
    kept: dict[tuple[str, str, str], Message] = {}
    for message in new:
        key = message.tenant, message.chat, message.id
        text = storable(message.text)
        first = kept.get(key, message)
        if key not in kept or not first.text:
            kept[key] = msgspec.structs.replace(first, text=text)
    return [kept[key] for key in sorted(kept)]


def _spans(new: Sequence[Message]) -> dict[tuple[str, str], tuple[int, int]]:
    """When the first and the last of these messages came to each chat, in ms by our clock."""
    now = now_ms()
    spans: dict[tuple[str, str], tuple[int, int]] = {}
    for message in new:
        came = message.received_ms or (message.sent_ms if message.direction == "out" else now)
        came = min(came, now)  # one from the future would keep its chat until then
        first, last = spans.get((message.tenant, message.chat), (came, came))
        spans[message.tenant, message.chat] = min(first, came), max(last, came)
    return spans
