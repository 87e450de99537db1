"""Messages and their conversations, recorded by many at once: nothing is lost, nothing is there twice."""

import asyncio
import random
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import msgspec
import pytest
from hypothesis import given, strategies
from sqlalchemy import select, text

from pipeline import Permanent
from pipeline.message import now_ms
from stages.conversation.store import ConversationStore, _merged, conversations, messages
from stages.ports import Message
from stages.store import Database, StoreUnavailable
from tests.support import eventually, reached

pytestmark = pytest.mark.integration

Row = tuple[Any, ...]


def said(id: str, received_ms: int = 1, **other: Any) -> Message:  # noqa: A002
    told = Message("shop", "chat", id, "in", f"text of {id}", 5, False, received_ms)
    return msgspec.structs.replace(told, **other)


@pytest.fixture
def store(database: Database) -> ConversationStore:
    return ConversationStore(database)


async def all_messages(database: Database) -> dict[tuple[str, str, str], Message]:
    found = [Message(**row) for row in await database.read(select(messages))]
    kept = {(message.tenant, message.chat, message.id): message for message in found}
    assert len(kept) == len(found)
    return kept


async def all_chats(database: Database) -> dict[tuple[str, str], tuple[int, int]]:
    rows = await database.read(select(conversations))
    return {(row["tenant"], row["chat"]): (row["started_ms"], row["last_ms"]) for row in rows}


async def test_a_conversation_lasts_from_its_first_message_to_its_last(
    store: ConversationStore, database: Database
) -> None:
    await store.record([said("1", 70), said("2", 50), said("1", 90, chat="other")])
    await store.record([said("3", 60), said("1", 20, tenant="else")])
    await store.record([said("reply:3", 0, direction="out", sent_ms=95)])
    chats = {("shop", "chat"): (50, 95), ("shop", "other"): (90, 90), ("else", "chat"): (20, 20)}
    assert await all_chats(database) == chats


async def test_a_message_of_which_nobody_knows_when_it_came_comes_now(
    store: ConversationStore, database: Database
) -> None:
    before = now_ms()
    await store.record([said("1", 0)])
    ((started, last),) = (await all_chats(database)).values()
    assert before <= started == last <= now_ms()


async def test_a_job_that_comes_again_changes_nothing(store: ConversationStore, database: Database) -> None:
    told = [said("1", 70), said("2", 50, text=""), said("reply:1", 0, direction="out")]
    await store.record(told)
    rows = await all_messages(database), await all_chats(database)
    await store.record(told)
    await store.record([msgspec.structs.replace(told[0], text="another")])
    assert (await all_messages(database), await all_chats(database)) == rows


TOLD = strategies.builds(
    Message,
    tenant=strategies.sampled_from(["a", "b"]),
    chat=strategies.sampled_from(["a", "b"]),
    id=strategies.sampled_from(["1", "2", "3"]),
    direction=strategies.sampled_from(["in", "out"]),
    text=strategies.sampled_from(["", "\0", "x", "y\0", "z"]),
    sent_ms=strategies.integers(0, 3),
)


@given(strategies.lists(TOLD))
def test_together_is_as_one_after_the_other(told: list[Message]) -> None:
    kept: dict[tuple[str, str, str], Message] = {}
    for message in told:
        key = message.tenant, message.chat, message.id
        first = kept.setdefault(key, message)
        words = (first.text or message.text).replace("\0", "") or message.text.replace("\0", "")
        kept[key] = msgspec.structs.replace(first, text=words)
    merged = _merged(told)
    assert {(each.tenant, each.chat, each.id): each for each in merged} == kept
    assert len(merged) == len(kept)


def some_of(everything: Sequence[Message], seed: int) -> list[list[Message]]:
    """Records of a few messages of several chats in any order; all of them are in some record."""
    luck = random.Random(seed)
    shuffled = luck.sample(everything, len(everything))
    return [shuffled[n : n + 7] for n in range(0, len(shuffled), 7)]


async def test_many_record_at_once_over_two_connections_of_one_database(url: str) -> None:
    everything = [said(f"{n}", n + 1, chat=f"chat {n % 9}", tenant=f"{n % 2}") for n in range(400)]
    async with Database(url) as one, Database(url) as two:
        stores = [ConversationStore(one), ConversationStore(two)]
        await asyncio.gather(
            *(stores[seed % 2].record(some) for seed in range(4) for some in some_of(everything, seed))
        )
        assert sorted((await all_messages(one)).values(), key=lambda each: int(each.id)) == everything
        spans: dict[tuple[str, str], list[int]] = defaultdict(list)
        for message in everything:
            spans[message.tenant, message.chat].append(message.received_ms)
        assert await all_chats(two) == {chat: (min(times), max(times)) for chat, times in spans.items()}


async def test_those_who_write_the_same_in_another_order_do_not_wait_for_each_other(url: str) -> None:
    told = [said(f"{n}", n + 1, chat=f"chat {n % 50}") for n in range(200)]
    async with Database(url) as one, Database(url) as two:
        stores = [ConversationStore(one), ConversationStore(two)]
        for _ in range(5):  # beside `record`, which would try again
            await asyncio.gather(stores[0]._write(told), stores[1]._write(told[::-1]))
            told = [msgspec.structs.replace(each, id=f"{each.id}'") for each in told]
            told = [msgspec.structs.replace(each, received_ms=each.received_ms + 300) for each in told]
        assert len(await all_messages(one)) == 1000


async def test_many_in_one_go_and_none_of_them_twice(store: ConversationStore, database: Database) -> None:
    await store.record([said(f"{n % 1200}", n + 1) for n in range(2400)])
    assert len(await all_messages(database)) == 1200
    assert await all_chats(database) == {("shop", "chat"): (1, 2400)}


@pytest.mark.parametrize("name", ["tenant", "chat", "id"])
async def test_a_name_that_no_database_takes_is_refused_for_good(store: ConversationStore, name: str) -> None:
    with pytest.raises(Permanent, match="NUL"):
        await store.record([said("1"), msgspec.structs.replace(said("2"), **{name: "a\0b"})])
    await store.record([said("3", text="a\0b")])
    assert [message.text for message in await store.history("shop", "chat", 9)] == ["ab"]


async def test_a_text_that_cannot_be_written_fails_for_who_brought_it(store: ConversationStore) -> None:
    half_a_character = said("2", text="\ud800")
    results = await asyncio.gather(
        *(store.record([message]) for message in (said("1"), half_a_character, said("3"))), return_exceptions=True
    )
    assert [result is None for result in results] == [True, False, True]
    assert len(await store.history("shop", "chat", 9)) == 2


async def test_a_message_that_comes_while_its_chat_is_deleted_is_kept_with_a_conversation(
    database: Database, url: str
) -> None:
    async with Database(url) as other:
        store = ConversationStore(other)
        await store.record([said("note", text=""), said("old")])
        async with database.transaction() as deleting:
            await deleting.execute(select(conversations).with_for_update())
            coming = asyncio.create_task(store.record([said("note", 6), said("new", 7)]))
            if database.dialect == "postgresql":
                waiting = text("SELECT 1 FROM pg_stat_activity WHERE wait_event_type = 'Lock'")
                await eventually(lambda: database.read(waiting), what="waiting for the lock")
            await deleting.execute(messages.delete())
            await deleting.execute(conversations.delete())
        await coming
    assert {message.id for message in (await all_messages(database)).values()} == {"note", "new"}
    assert await all_chats(database) == {("shop", "chat"): (6, 7)}


async def test_closing_waits_for_what_a_cancelled_job_was_writing(database: Database, url: str) -> None:
    async with Database(url) as closed:
        store = ConversationStore(closed)
        await store.record([said("1")])
        async with database.transaction() as holding:
            await holding.execute(select(conversations).with_for_update())
            job = asyncio.create_task(store.record([said("2")]))
            await reached(lambda: store._recording._under_way and store._recording._writing)
            job.cancel()
            await asyncio.wait({job})
            closing = asyncio.create_task(closed.aclose())
            await asyncio.wait({closing}, timeout=0.05)
            assert not closing.done()
        await closing
    assert len(await all_messages(database)) == 2


async def test_a_database_that_is_away_is_told_to_all(database: Database, store: ConversationStore) -> None:
    await database.write(text("DROP TABLE messages"))
    results = await asyncio.gather(*(store.record([said(f"{n}")]) for n in range(3)), return_exceptions=True)
    assert [type(result) for result in results] == [StoreUnavailable] * 3
    assert await all_chats(database) == {}
