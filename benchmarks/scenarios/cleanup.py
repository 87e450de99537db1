"""Old conversations deleted among as many fresh ones, while chat is recorded at a steady rate.

Open loop: messages come on a fixed schedule, and a latency is counted from when its message should have been
recorded, so that a stall counts for every message it held up.
"""

import asyncio
import contextlib
import itertools
import os
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer
from sqlalchemy import func, insert, select, text
from sqlalchemy.ext.asyncio import create_async_engine

from benchmarks.parts import postgres
from benchmarks.parts.openloop import Latencies
from benchmarks.parts.usage import MILLION, PeakMemory, memory_of
from benchmarks.peers.environments import Unavailable
from benchmarks.reports.report import Report
from pipeline import Context, Job
from pipeline.message import Delivery, now_ms, seal, unseal
from stages.cleanup.conversations import ConversationsHandler
from stages.cleanup.retention import DAY, Retention
from stages.cleanup.run import Pruned
from stages.conversation.store import ConversationStore, conversations, messages
from stages.jobs import Prune
from stages.ports import Message
from stages.store import Database, sqlite_file

QUICK = {"messages": 100_000}
PER_CHAT = 10  # messages
DAYS = 30.0
IDLE = 10.0  # seconds that chat is recorded without cleanup
CHATS_AT_ONCE = 2_000  # while filling
TEXT = "Olá! Queria saber se ainda dá tempo de pedir duas pizzas grandes para hoje à noite."
CAVEATS = [
    "Cleanup and chat run in one process, on one event loop; the database shares the machine's cores.",
    "PostgreSQL runs with fsync on, SQLite with WAL and synchronous=NORMAL as Riacho has it.",
]


async def measure(
    *,
    messages: Annotated[
        int, typer.Option(help="Old messages, and as many fresh ones; in chats of ten.", min=PER_CHAT)
    ] = 1_000_000,
    database: Annotated[str, typer.Option(help="sqlite, postgresql, or the address of an empty one.")] = "sqlite",
    rate: Annotated[float, typer.Option(help="Messages a second that the chat records meanwhile.", min=1)] = 100,
) -> Report:
    """Old chats deleted among as many fresh ones while chat goes on: how fast, and how long chat has to wait."""
    messages -= messages % PER_CHAT
    with tempfile.TemporaryDirectory() as folder, _address(database, Path(folder)) as url:
        started = now_ms()
        async with Database(url) as store:
            await _fill(url, "old", messages, started - int(2 * DAYS * DAY))
            await _fill(url, "fresh", messages, started - DAY)
            await _analysed(url)
            figures = await _cleaned(store, rate)
            figures |= await _left(store, messages)
    knobs: dict[str, float | str] = {"messages": messages, "database": database.partition(":")[0], "rate": rate}
    return Report.of("cleanup", knobs, {}, CAVEATS, figures)


async def _cleaned(database: Database, rate: float) -> dict[str, float]:
    chat = ConversationStore(database)
    idle = await _chat(chat, rate, "idle", asyncio.create_task(asyncio.sleep(IDLE)))
    held, started = memory_of(os.getpid()), time.monotonic()
    with PeakMemory(os.getpid()) as peak:
        pruning = asyncio.create_task(_pruned(database))
        busy = await _chat(chat, rate, "busy", pruning)
        result, seconds = await pruning, time.monotonic() - started
    return {
        "deleted": result.messages,
        "chats": result.conversations,
        "transactions": result.batches,
        "seconds": seconds,
        "deleted_per_second": result.messages / seconds,
        **{f"idle_{name}": value for name, value in idle.figures().items()},
        **{f"cleanup_{name}": value for name, value in busy.figures().items()},
        "memory_growth_mb": peak.mb - held / MILLION,
    }


async def _pruned(database: Database) -> Pruned:
    body = seal(Job(stage="conversations", payload=Prune()))

    async def report(*_: object) -> bool:
        return True

    ctx = Context(Delivery("conversations", 0, b"1-0", body, 1), unseal(body), report)
    return await ConversationsHandler(database, Retention(DAYS))(ctx, Prune())


async def _chat(store: ConversationStore, rate: float, phase: str, until: "asyncio.Task[Any]") -> Latencies:
    """Of messages recorded at `rate` until a task has ended."""
    loop = asyncio.get_running_loop()
    started, recording, latencies = loop.time(), [], Latencies()
    for n in itertools.count():
        due = started + n / rate
        await asyncio.sleep(due - loop.time())
        if until.done():
            break
        recording.append(asyncio.create_task(_record(store, f"{phase}-{n}", due, latencies)))
    await asyncio.gather(*recording)
    return latencies


async def _record(store: ConversationStore, name: str, due: float, latencies: Latencies) -> None:
    """In chats of their own, ten messages each."""
    chat = f"chat-{name[:-1]}"
    await store.record([Message("shop", chat, name, "in", TEXT, now_ms(), received_ms=now_ms())])
    latencies.record(asyncio.get_running_loop().time() - due)


async def _left(database: Database, number: int) -> dict[str, float]:
    left = {}
    for name in ("fresh", "old"):
        rows = select(func.count().label("rows")).where(messages.c.id.like(f"{name}-%"))
        left[name] = (await database.read(rows))[0]["rows"]
    return {"fresh_left": left["fresh"], "fresh_lost": number - left["fresh"], "old_left": left["old"]}


# ── the database ─────────────────────────────────────────────────────────────────────────────────


@contextlib.contextmanager
def _address(database: str, folder: Path) -> Iterator[str]:
    if database == "postgresql":
        with postgres.cluster(fsync=True) as cluster:
            yield postgres.address(cluster)
    elif database == "sqlite":
        yield sqlite_file(folder / "riacho.db").render_as_string()
    elif "://" in database:
        yield database
    else:
        raise Unavailable(
            f"--database {database!r} is to be sqlite, postgresql, or an address: postgresql+asyncpg://…"
        )


async def _fill(url: str, name: str, number: int, at_ms: int) -> None:
    """So many messages, in chats that were silent since about then; a part of them in each transaction."""
    engine = create_async_engine(url)
    for first in range(0, number // PER_CHAT, CHATS_AT_ONCE):
        chats = range(first, min(first + CHATS_AT_ONCE, number // PER_CHAT))
        async with engine.begin() as connection:
            await connection.execute(insert(conversations), [_conversation(name, n, at_ms) for n in chats])
            said = [_message(name, n, m, at_ms) for n in chats for m in range(PER_CHAT)]
            await connection.execute(insert(messages), said)
    await engine.dispose()


async def _analysed(url: str) -> None:
    """As a database that has lived for a while is."""
    engine = create_async_engine(url)
    async with engine.begin() as connection:
        await connection.execute(text("ANALYZE"))
    await engine.dispose()


def _conversation(name: str, n: int, at_ms: int) -> dict[str, Any]:
    return {"tenant": f"shop-{n % 20}", "chat": f"{name}-{n}", "started_ms": at_ms, "last_ms": at_ms + n}


def _message(name: str, n: int, m: int, at_ms: int) -> dict[str, Any]:
    row = {"tenant": f"shop-{n % 20}", "chat": f"{name}-{n}", "id": f"{name}-{n}-{m}", "text": TEXT}
    times = {"sent_ms": at_ms + n, "received_ms": at_ms + n}
    return row | times | {"direction": "out" if m % 2 else "in", "voice": False}
