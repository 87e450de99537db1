"""The conversation store: the same answers on SQLite and, where it is installed, on PostgreSQL."""

import asyncio
import sys
import threading
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from sqlalchemy import select, text
from sqlalchemy.ext.asyncio import create_async_engine

from stages.conversation.store import ConversationStore, messages
from stages.ports import Message
from stages.store import Database, StoreUnavailable
from tests.integration.conftest import empty_database
from tests.support import conversations

pytestmark = pytest.mark.integration

ROOT = Path(__file__).parents[2]

# Writes 50 messages of its own and 50 that every writer writes.
WRITER = """
import asyncio, sys
from stages.ports import Message
from tests.integration.conftest import empty_database
from tests.support import conversations

async def write(url, writer):
    async with conversations(url) as store:
        for n in range(50):
            await store.record([Message("shop", "chat", f"{id}-{n}", "in", "x", n) for id in (writer, "shared")])

asyncio.run(write(*sys.argv[1:]))
"""


def said(id: str, sent_ms: int = 0, **other: Any) -> Message:  # noqa: A002
    return msgspec.structs.replace(Message("shop", "chat", id, "in", f"text of {id}", sent_ms), **other)


@pytest.fixture
async def store(url: str) -> AsyncIterator[ConversationStore]:
    async with conversations(url) as made:
        yield made


async def test_what_is_recorded_is_found_whole(store: ConversationStore) -> None:
    message = said("1", 2**53, text="olá 👋\n'; --", voice=True, direction="out")
    await store.record([message])
    assert await store.find("shop", "chat", "1") == message
    assert await store.find("shop", "chat", "2") is None


async def test_recording_again_changes_nothing(store: ConversationStore) -> None:
    await store.record([said("1", text="first")])
    await store.record([said("1", text="second"), said("2"), said("2", text="twice in one go")])
    assert [message.text for message in await store.history("shop", "chat", 9)] == ["first", "text of 2"]


async def test_recording_nothing_is_no_error(store: ConversationStore) -> None:
    await store.record([])
    assert await store.history("shop", "chat", 9) == []


async def test_history_is_the_latest_messages_oldest_first(store: ConversationStore) -> None:
    await store.record([said(str(n), n) for n in (5, 1, 4, 2, 3)])
    assert [message.id for message in await store.history("shop", "chat", 3)] == ["3", "4", "5"]
    assert [message.id for message in await store.history("shop", "chat", 9)] == ["1", "2", "3", "4", "5"]


async def test_messages_of_the_same_moment_keep_one_order(store: ConversationStore) -> None:
    """WhatsApp's times are whole seconds, so a quick writer's messages share them."""
    await store.record([said(name, 7) for name in "cadb"])
    await store.record([said("early", 7, received_ms=1), said("y", 7, received_ms=3), said("z", 7, received_ms=2)])
    latest = await store.history("shop", "chat", 6)
    assert [message.id for message in latest] == ["b", "c", "d", "early", "z", "y"]
    assert [message.order for message in latest] == sorted(message.order for message in latest)


async def test_a_text_is_filled_in_once_and_there_is_none_in_the_history_before(store: ConversationStore) -> None:
    note = said("note", text="", voice=True, received_ms=5)
    await store.record([note])
    assert await store.history("shop", "chat", 9) == []
    assert await store.find("shop", "chat", "note") == note
    heard = msgspec.structs.replace(note, text="what was heard")
    for again in (heard, note, said("note", text="something else")):
        await store.record([again])
        assert await store.history("shop", "chat", 9) == [heard]


async def test_dismissing_forgets_a_note_without_a_text_and_nothing_else(store: ConversationStore) -> None:
    others = [said("note", text="", chat="other"), said("note", text="", tenant="other"), said("2", text="")]
    await store.record([said("note", text=""), said("1"), *others])
    for gone in (said("note", text=""), said("1", text=""), said("unknown", text="")):
        await store.dismiss(gone)
    assert await store.find("shop", "chat", "note") is None
    for kept in (said("1"), *others):
        assert await store.find(kept.tenant, kept.chat, kept.id) == kept


async def test_unanswered_is_what_was_asked_since_and_has_no_reply(store: ConversationStore) -> None:
    asked = [said(str(n), n, text="" if n == 3 else "x") for n in range(5)]
    replies = [said("reply:2", 9, direction="out"), said("reply:4", 9, direction="out", chat="other")]
    await store.record([*asked, *replies, said("5", 5, chat="other"), said("6", 6, tenant="other")])
    assert {message.id for message in await store.unanswered("shop", "chat", 1)} == {"1", "3", "4"}


async def test_history_is_without_what_is_to_be_left_out_and_still_as_long(store: ConversationStore) -> None:
    await store.record([said(str(n), n) for n in range(6)])
    told = await store.history("shop", "chat", 3, without=["5", "3", "unknown"])
    assert [message.id for message in told] == ["1", "2", "4"]


async def test_tenants_and_chats_are_apart(store: ConversationStore) -> None:
    others = [said("1", tenant="other"), said("1", chat="other")]
    await store.record([said("1"), *others])
    assert await store.history("shop", "chat", 9) == [said("1")]
    assert await store.history("other", "chat", 9) == [others[0]]
    assert await store.find("shop", "other", "1") == others[1]
    assert await store.find("other", "other", "1") is None


async def test_a_store_opened_again_has_what_was_recorded(url: str) -> None:
    async with conversations(url) as store:
        await store.record([said("1")])
    async with conversations(url) as store:
        assert await store.history("shop", "chat", 9) == [said("1")]


async def test_a_database_of_the_first_version_goes_on(url: str) -> None:
    columns = "tenant VARCHAR, chat VARCHAR, id VARCHAR, direction VARCHAR(3) NOT NULL, text TEXT NOT NULL"
    rest = "sent_ms BIGINT NOT NULL, voice BOOLEAN NOT NULL, PRIMARY KEY (tenant, chat, id)"
    engine = create_async_engine(url)
    async with engine.begin() as connection:
        await connection.execute(text(f"CREATE TABLE messages ({columns}, {rest})"))
        await connection.execute(
            text("INSERT INTO messages VALUES ('shop', 'chat', '1', 'in', 'text of 1', 7, false)")
        )
    await open_together(url)
    async with conversations(url) as store:
        await store.record([said("2", 7, received_ms=3)])
        assert await store.history("shop", "chat", 9) == [said("1", 7), said("2", 7, received_ms=3)]
    async with engine.begin() as connection:  # a worker of that version that still runs
        insert = "INSERT INTO messages (tenant, chat, id, direction, text, sent_ms, voice)"
        await connection.execute(text(f"{insert} VALUES ('shop', 'chat', '3', 'in', 'text of 3', 8, false)"))
    await engine.dispose()
    async with conversations(url) as store:
        assert await store.find("shop", "chat", "3") == said("3", 8)


async def test_two_stores_write_at_the_same_time(url: str) -> None:
    async with conversations(url) as one, conversations(url) as two:
        await asyncio.gather(
            *(
                store.record([said(f"{name}-{n}"), said(f"shared-{n}")])
                for n in range(50)
                for name, store in (("one", one), ("two", two))
            )
        )
        assert len(await one.history("shop", "chat", 999)) == 150


async def test_two_processes_open_and_write_at_the_same_time(url: str) -> None:
    writers = [
        await asyncio.create_subprocess_exec(sys.executable, "-c", WRITER, url, name, cwd=ROOT)
        for name in ("one", "two")
    ]
    assert [await writer.wait() for writer in writers] == [0, 0]
    async with conversations(url) as store:
        assert len(await store.history("shop", "chat", 999)) == 150


async def open_together(url: str) -> None:
    databases = [Database(url) for _ in range(8)]
    results = await asyncio.gather(*(database.__aenter__() for database in databases), return_exceptions=True)
    await asyncio.gather(*(database.__aexit__(None, None, None) for database in databases))
    assert [result for result in results if isinstance(result, BaseException)] == []


async def test_several_open_a_fresh_file_at_the_same_moment(tmp_path: Path) -> None:
    for n in range(8):  # one in a few goes wrong where nobody waits for the switch to WAL
        await open_together(f"sqlite+aiosqlite:///{tmp_path}/{n}.db")


async def test_several_open_a_fresh_database_at_the_same_moment(postgres: str) -> None:
    await open_together(await empty_database(postgres, "opened_together"))


async def test_a_reader_does_not_wait_for_a_writer(tmp_path: Path) -> None:
    url = f"sqlite+aiosqlite:///{tmp_path}/riacho.db"
    writer = create_async_engine(url)
    async with conversations(url) as store, writer.connect() as connection:
        await store.record([said("1")])
        await connection.execute(text("BEGIN EXCLUSIVE"))
        assert await asyncio.wait_for(store.history("shop", "chat", 9), 5) == [said("1")]
        await connection.rollback()
    await writer.dispose()


async def test_a_file_that_cannot_be_made_is_an_error_at_once(tmp_path: Path) -> None:
    database = Database(f"sqlite+aiosqlite:///{tmp_path}/missing/riacho.db")
    with pytest.raises(StoreUnavailable, match=r"cannot use the database .*missing/riacho.db \(unable to open"):
        await database.__aenter__()
    for thread in threading.enumerate():  # aiosqlite does not wait for the thread of what it could not open
        if "_connection_worker_thread" in thread.name:
            await asyncio.to_thread(thread.join, 5)


async def test_an_error_about_a_value_does_not_show_it(url: str) -> None:
    async with Database(url) as database:
        row = {"tenant": "shop", "chat": "c", "id": "i", "direction": "in", "voice": False}
        late: dict[str, Any] = row | {"text": ["the customer's words"], "sent_ms": 1, "received_ms": 1}
        with pytest.raises(StoreUnavailable) as raised:
            await database.write(database.insert(messages), late)
    assert "the customer's words" not in str(raised.value)


async def test_a_database_that_lets_nobody_in_is_away_and_says_why(postgres: str) -> None:
    url = await empty_database(postgres, "full")
    async with Database(url) as database:
        await database.write(text("CREATE ROLE crowd LOGIN CONNECTION LIMIT 0"))
    crowded = Database(url.replace("riacho@", "crowd@"))
    with pytest.raises(StoreUnavailable, match=r"^the database: too many connections for role") as raised:
        await crowded.write(messages.delete())
    assert type(raised.value) is StoreUnavailable
    await crowded.aclose()


async def count_up(database: Database) -> None:
    async with database.transaction() as connection:
        found = await connection.execute(select(messages.c.sent_ms).with_for_update())
        await connection.execute(messages.update().values(sent_ms=found.scalar_one() + 1))


async def test_transactions_that_read_before_they_write_take_turns(url: str) -> None:
    async with conversations(url) as store, Database(url) as one, Database(url) as two:
        await store.record([said("1", 0)])
        await asyncio.gather(*(count_up(database) for database in (one, two) * 20))
        assert await store.find("shop", "chat", "1") == said("1", 40)


async def clear_and_fail(database: Database, error: BaseException | None = None) -> None:
    async with database.transaction() as connection:
        await connection.execute(messages.delete())
        if error:
            raise error
        await connection.execute(text("DELETE FROM missing"))


async def test_a_transaction_that_fails_changes_nothing_and_says_what_a_write_says(url: str) -> None:
    async with conversations(url) as store, Database(url) as database:
        await store.record([said("1")])
        with pytest.raises(StoreUnavailable, match=r"^the database: .*missing"):
            await clear_and_fail(database)
        with pytest.raises(ZeroDivisionError):
            await clear_and_fail(database, ZeroDivisionError())
        assert await store.find("shop", "chat", "1") == said("1")
