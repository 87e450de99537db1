"""Chats that are written to while they are being deleted, from other processes, too: no message is lost."""

import asyncio
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from sqlalchemy import select

from pipeline.message import now_ms
from stages.cleanup import aged, run
from stages.cleanup import conversations as cleanup_conversations
from stages.cleanup.conversations import ConversationsHandler
from stages.conversation.store import conversations, messages
from stages.jobs import Prune
from stages.store import Database
from tests.cleaning import MONTH, ago, chat, context, keys, says
from tests.integration.conftest import postgres, url
from tests.support import eventually

pytestmark = pytest.mark.faults

__all__ = ["postgres", "url"]

ROOT = Path(__file__).parents[2]
CHATS = 150

# Says something in every chat, in an order of its own.
WRITER = """
import asyncio, random, sys
from stages.store import Database
from tests.cleaning import says

async def write(url, writer, number):
    async with Database(url) as database:
        print("open", flush=True)
        sys.stdin.readline()
        chats = list(range(int(number)))
        random.Random(writer).shuffle(chats)
        for n in chats:
            await says(database, "shop", f"chat {n}", writer)

asyncio.run(write(*sys.argv[1:]))
"""


@pytest.fixture
async def database(url: str, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Database]:
    for module in (run, aged, cleanup_conversations):
        monkeypatch.setattr(module, "BATCH", 20)
    monkeypatch.setattr(cleanup_conversations, "CHATS", 5)
    async with Database(url) as made:
        yield made


async def opened_writer(url: str, name: str) -> Process:
    """A writer that waits for a line before it begins: whoever opens a database holds up who writes."""
    writer = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", WRITER, url, name, str(CHATS)), cwd=ROOT, stdin=PIPE, stdout=PIPE
    )
    assert writer.stdout
    assert await writer.stdout.readline() == b"open\n"
    return writer


async def old_chats(database: Database) -> None:
    for n in range(CHATS):
        await chat(database, f"chat {n}", ago(31, now_ms()), 7)


async def check_whole(database: Database, fresh: set[tuple[str, str]]) -> None:
    """All that was said is there, each message has its conversation, and that knows of it."""
    assert await keys(database, messages, "chat", "id") >= fresh
    assert await keys(database, messages, "chat") <= await keys(database, conversations, "chat")
    young = await database.read(select(conversations.c.last_ms))
    assert all(row["last_ms"] > ago(1, now_ms()) for row in young)


async def test_writers_in_other_processes_lose_nothing(database: Database, url: str) -> None:
    await old_chats(database)
    await chat(database, "nobody's", ago(31, now_ms()), 1)  # is there still, however fast they are
    names = ["one", "two"]
    writers = [await opened_writer(url, name) for name in names]
    writing = [asyncio.create_task(writer.communicate(b"write\n")) for writer in writers]

    async def begun() -> bool:
        return bool({"one", "two"} & await keys(database, messages, "id"))

    await eventually(begun, what="a writer writing")
    result = await ConversationsHandler(database, MONTH)(context(), Prune())
    await asyncio.gather(*writing)
    assert [writer.returncode for writer in writers] == [0, 0]
    assert result.conversations > 0
    await check_whole(database, {(f"chat {n}", name) for n in range(CHATS) for name in names})


async def test_whatever_moment_a_message_comes_at_it_stays(database: Database) -> None:
    await old_chats(database)
    pruning = asyncio.create_task(ConversationsHandler(database, MONTH)(context(), Prune()))
    fresh = set()
    for n in range(0, CHATS, 2):
        await says(database, "shop", f"chat {n}", "fresh")
        fresh.add((f"chat {n}", "fresh"))
    await pruning
    await check_whole(database, fresh)
    assert await keys(database, conversations, "chat") == {name for name, _ in fresh}


async def test_a_message_that_is_being_written_keeps_its_chat(postgres: str, url: str) -> None:
    """On PostgreSQL its writer has the conversation's row, so the chat is passed over, and nobody waits."""
    if url.startswith("sqlite"):
        pytest.skip("SQLite has one writer at a time")
    async with Database(url) as database:
        await chat(database, "quiet", ago(31, now_ms()))
        await chat(database, "woken", ago(31, now_ms()))
        async with database.transaction() as writing:
            mine = conversations.c.chat == "woken"
            await writing.execute(conversations.update().where(mine).values(last_ms=now_ms()))
            result = await ConversationsHandler(database, MONTH)(context(), Prune())
        assert result.conversations == 1
        assert await keys(database, messages, "chat") == {"woken"}


async def test_two_runs_at_once_delete_the_same_things_once(database: Database) -> None:
    await old_chats(database)
    handler = ConversationsHandler(database, MONTH)
    both = await asyncio.gather(*(handler(context(), Prune()) for _ in range(2)))
    assert sum(result.messages for result in both) == CHATS * 7
    assert await keys(database, messages, "id") == await keys(database, conversations, "chat") == set()
