"""What tests of the cleanup stages share: a database with all tables, rows of a given age, jobs to run."""

from collections.abc import Iterable
from typing import Any

from sqlalchemy import func, insert, select

from pipeline import Context, Job
from pipeline.message import Delivery, now_ms, seal, unseal
from stages.audio.media import media
from stages.cleanup.retention import DAY, Retention
from stages.conversation.store import conversations, messages
from stages.jobs import Prune
from stages.store import Database

NOW = 1_800_000_000_000  # ms
MONTH = Retention(30)

Told = list[tuple[int, str]]


def context(payload: Any = None, told: Told | None = None, stage: str = "conversations") -> Context:
    """A job's, which notes the progress that is told."""
    body = seal(Job(stage=stage, payload=payload or Prune()))

    async def report(_: Delivery, percent: int, doing: str) -> bool:
        if told is not None:
            told.append((percent, doing))
        return True

    return Context(Delivery(stage, 0, b"1-0", body, 1), unseal(body), report)


def ago(days: float, now: int = NOW) -> int:
    """The time so many days before."""
    return now - int(days * DAY)


async def fill(database: Database, table: Any, rows: Iterable[dict[str, Any]]) -> None:
    """Add rows."""
    some = list(rows)
    if some:
        await database.write(insert(table), some)


def message(tenant: str, chat: str, id: str, sent_ms: int = 0, **other: Any) -> dict[str, Any]:  # noqa: A002
    """A row of messages."""
    row = {"tenant": tenant, "chat": chat, "id": id, "sent_ms": sent_ms, "received_ms": 0}
    return row | {"direction": "in", "text": "x", "voice": False} | other


async def chat(
    database: Database, name: str, last_ms: int, number: int = 3, *, tenant: str = "shop", held: bool = False
) -> None:
    """A chat with so many messages."""
    row = {"tenant": tenant, "chat": name, "started_ms": 0, "last_ms": last_ms, "held": held}
    await fill(database, conversations, [row])
    await fill(database, messages, [message(tenant, name, str(n), last_ms) for n in range(number)])


async def note(database: Database, job: str, at_ms: int, **other: Any) -> None:
    """A row of media."""
    row = {"job": job, "tenant": "shop", "chat": "", "message": "", "source": "", "language": "pt"}
    await fill(database, media, [row | {"seconds": 2.5, "heard": 1, "at_ms": at_ms} | other])


def sent(job: str, created_ms: int, **other: Any) -> dict[str, Any]:
    """A row of notifications."""
    row = {
        "job": job,
        "tenant": "shop",
        "kind": "send-client",
        "recipient": "+5511987654321",
        "channel": "whatsapp",
    }
    row |= {"payload": "", "state": "accepted", "message_id": "", "status": "", "error": ""}
    numbers = {"created_ms": created_ms, "called_ms": created_ms, "calls": 1, "status_rank": 0, "status_ms": 0}
    return row | numbers | {"template": False} | other


async def says(database: Database, tenant: str, name: str, id: str, at_ms: int | None = None) -> None:  # noqa: A002
    """Record a message as the chat does: its conversation first, in the same transaction."""
    at_ms = now_ms() if at_ms is None else at_ms
    first = database.insert(conversations).values(tenant=tenant, chat=name, started_ms=at_ms, last_ms=at_ms)
    later = {"last_ms": first.excluded.last_ms}
    async with database.transaction() as connection:
        await connection.execute(first.on_conflict_do_update(index_elements=conversations.primary_key, set_=later))
        await connection.execute(insert(messages), [message(tenant, name, id, at_ms)])


async def keys(database: Database, table: Any, *columns: str) -> set[Any]:
    """What a table has in some columns."""
    rows = await database.read(select(*(table.c[name] for name in columns)))
    return {row[columns[0]] if len(columns) == 1 else tuple(row[name] for name in columns) for row in rows}


async def size(database: Database, table: Any) -> int:
    """How many rows a table has."""
    (row,) = await database.read(select(func.count().label("rows")).select_from(table))
    return int(row["rows"])
