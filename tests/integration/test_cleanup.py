"""What cleanup deletes, and what it leaves: the same on SQLite and PostgreSQL."""

import asyncio
import itertools
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from unittest.mock import AsyncMock

import pytest
from sqlalchemy import select

from api.adapters import Adapters
from config import Secret, load, replaced
from pipeline import Broker, Job, Pipeline, RetryLater
from pipeline.message import now_ms
from stages.audio.media import media
from stages.cleanup import aged, run
from stages.cleanup import conversations as cleanup_conversations
from stages.cleanup.conversations import ConversationsHandler
from stages.cleanup.logs import LogsHandler
from stages.cleanup.retention import DAY, Retention
from stages.cleanup.run import Pruned
from stages.cleanup.speech import OFF
from stages.cleanup.statistics import statistics
from stages.conversation.store import ConversationStore, conversations, messages
from stages.jobs import CollectStatistics, Prune
from stages.notification.alerts import alerts
from stages.notification.log import notifications
from stages.ports import Message
from stages.store import Database, StoreUnavailable
from tests.cleaning import (
    MONTH,
    NOW,
    Told,
    ago,
    chat,
    context,
    fill,
    keys,
    message,
    note,
    says,
    sent,
    size,
)
from tests.support import Connector, add_all, add_one, until, working

pytestmark = pytest.mark.integration

AfterTurns = Callable[[int, Callable[[], Awaitable[None]]], None]


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Transactions and pages of ten rows."""
    for module in (run, aged, cleanup_conversations):
        monkeypatch.setattr(module, "BATCH", 10)


@pytest.fixture
def after_turns(monkeypatch: pytest.MonkeyPatch) -> AfterTurns:
    """Has something happen in the pause after so many transactions."""

    def happens(turns: int, action: Callable[[], Awaitable[None]]) -> None:
        numbers = itertools.count(1)

        async def pause(seconds: float) -> None:
            if next(numbers) == turns:
                await action()

        monkeypatch.setattr(run, "pause", pause)

    return happens


def chats(database: Database, retention: Retention = MONTH, now: int = NOW) -> ConversationsHandler:
    return ConversationsHandler(database, retention, lambda: now)


def logs(database: Database) -> LogsHandler:
    return LogsHandler(database, Retention(7), lambda: NOW)


async def test_chats_go_whole_when_their_last_message_is_old(database: Database) -> None:
    await chat(database, "old", ago(30) - 1)
    await chat(database, "young", ago(30))
    await chat(database, "old", ago(40), tenant="other")
    for job, name in (("1", "old"), ("2", "young")):
        await note(database, job, ago(50), chat=name)
    result = await chats(database)(context(), Prune())
    assert result == Pruned(messages=6, conversations=2, media=1, batches=1)
    assert await keys(database, conversations, "tenant", "chat") == {("shop", "young")}
    assert await keys(database, messages, "tenant", "chat") == {("shop", "young")}
    assert await keys(database, media, "job") == {"2"}
    assert await chats(database)(context(), Prune()) == Pruned()


async def test_a_dry_run_counts_exactly_what_goes_and_deletes_nothing(database: Database, small: None) -> None:
    for n in range(25):
        await chat(database, f"old {n}", ago(31 + n % 3), n % 4, held=n % 10 == 0)
        await note(database, f"of {n}", ago(50), chat=f"old {n}")
        await note(database, f"loose {n}", ago(50))
    before = [await size(database, table) for table in (messages, conversations, media)]
    counted = await chats(database)(context(), Prune(dry_run=True))
    assert [await size(database, table) for table in (messages, conversations, media)] == before
    done = await chats(database)(context(), Prune())
    left = [await size(database, table) for table in (messages, conversations, media)]
    assert [done.messages, done.conversations, done.media] == [b - a for b, a in zip(before, left, strict=True)]
    assert counted == Pruned(messages=done.messages, conversations=22, media=47, held_back=3, dry_run=True)
    assert done.batches > 5
    assert await keys(database, conversations, "chat") == {"old 0", "old 10", "old 20"}


async def test_a_huge_chat_goes_in_as_small_transactions_as_many_small_ones(
    database: Database, small: None
) -> None:
    await chat(database, "huge", ago(31), 95)
    result = await chats(database)(context(), Prune())
    assert result == Pruned(messages=95, conversations=1, batches=10)


async def test_many_small_chats_share_a_transaction(database: Database) -> None:
    for n in range(60):
        await chat(database, str(n), ago(31), 1)
    assert (await chats(database)(context(), Prune())).batches == 3


async def test_a_message_that_comes_between_transactions_saves_its_chat(
    database: Database, small: None, after_turns: AfterTurns
) -> None:
    await chat(database, "huge", ago(31), 30)
    await chat(database, "other", ago(31), 3)

    async def wake() -> None:
        await says(database, "shop", "huge", "fresh", NOW)

    after_turns(1, wake)
    await chats(database)(context(), Prune())
    assert ("huge", "fresh") in await keys(database, messages, "chat", "id")
    assert await keys(database, conversations, "chat") == {"huge"}
    assert await size(database, messages) > 20


async def test_a_message_from_the_future_keeps_its_chat_no_longer_than_one_from_now(database: Database) -> None:
    ahead = Message("shop", "ahead", "1", "in", "x", now_ms(), received_ms=2**53 - 1)
    await ConversationStore(database).record([ahead])
    await chats(database, now=now_ms() + 31 * DAY)(context(), Prune())
    assert await keys(database, conversations, "chat") == set()


async def test_what_an_older_version_writes_without_the_chats_row_goes_and_stays_like_all_else(
    database: Database,
) -> None:
    await chat(database, "revived", ago(31))
    await fill(database, messages, [message("shop", "revived", "fresh", ago(1))])
    for name, days in (("orphan", 31), ("young orphan", 1), ("mixed", 31)):
        await fill(database, messages, [message("shop", name, str(n), ago(days)) for n in range(3)])
    await fill(database, messages, [message("shop", "mixed", "fresh", ago(1))])
    assert (await chats(database)(context(), Prune())).messages == 3
    assert await keys(database, messages, "chat") == {"revived", "young orphan", "mixed"}
    assert await keys(database, conversations, "chat") == {"revived", "mixed"}


async def test_notes_of_no_chat_go_by_their_own_age(database: Database) -> None:
    await chat(database, "alive", ago(1))
    for job, days, name in (("a", 31, ""), ("b", 29, ""), ("c", 31, "alive"), ("d", 31, "gone")):
        await note(database, job, ago(days), chat=name)
    assert (await chats(database)(context(), Prune())).media == 2
    assert await keys(database, media, "job") == {"b", "c"}


async def test_a_tenant_may_keep_things_longer_or_shorter(database: Database) -> None:
    retention = Retention(30, {"long": 90, "short": 1})
    for tenant in ("long", "short", "shop"):
        for days in (2, 31, 91):
            await chat(database, str(days), ago(days), tenant=tenant)
    assert (await chats(database, retention)(context(), Prune())).conversations == 6
    kept = {("long", "2"), ("long", "31"), ("shop", "2")}
    assert await keys(database, conversations, "tenant", "chat") == kept


async def test_days_go_over_the_settings_and_a_hold_over_both(database: Database) -> None:
    retention = Retention(30, {"long": 90}, frozenset({"sued"}))
    for tenant in ("long", "sued", "shop"):
        await chat(database, "chat", ago(2), tenant=tenant)
        await note(database, tenant, ago(2), tenant=tenant)
    await chat(database, "kept", ago(2), held=True)
    result = await chats(database, retention)(context(), Prune(days=1))
    assert result == Pruned(messages=6, conversations=2, media=2, held_back=3, batches=2)
    assert await keys(database, conversations, "tenant", "chat") == {("sued", "chat"), ("shop", "kept")}
    assert await keys(database, media, "job") == {"sued"}


async def test_one_tenant_is_pruned_alone(database: Database) -> None:
    for tenant in ("shop", "other"):
        await chat(database, "chat", ago(31), tenant=tenant)
        await fill(database, notifications, [sent(tenant, ago(31), tenant=tenant)])
    await chats(database)(context(), Prune(tenant="shop"))
    await logs(database)(context(), Prune(tenant="shop"))
    assert await keys(database, conversations, "tenant") == {"other"}
    assert await keys(database, notifications, "job") == {"other"}


async def test_the_log_goes_where_nothing_has_happened_for_long(database: Database, small: None) -> None:
    old, young = ago(8), ago(6)
    rows = [sent(f"old {n}", old, status_ms=old) for n in range(25)]
    rows += [sent("young", young), sent("called", old, called_ms=young), sent("read", old, status_ms=young)]
    await fill(database, notifications, rows)
    told: Told = []
    result = await logs(database)(context(told=told), Prune())
    assert result == Pruned(notifications=25, batches=3)
    assert await keys(database, notifications, "job") == {"young", "called", "read"}
    assert [percent for percent, _ in told] == sorted({percent for percent, _ in told})
    assert told[-1][0] == 100


@pytest.mark.parametrize("name", ["5511987654321", "551187654321", "+5511987654321"])
async def test_of_a_held_chat_no_notification_goes_however_its_number_is_written(
    database: Database, name: str
) -> None:
    await chat(database, name, ago(40), held=True)
    rows = [sent("held", ago(8)), sent("of another shop", ago(8), tenant="other")]
    await fill(database, notifications, [*rows, sent("to another", ago(8), recipient="+5511987650000")])
    result = await logs(database)(context(), Prune())
    assert (result.notifications, result.held_back) == (2, 1)
    assert await keys(database, notifications, "job") == {"held"}


async def test_alerts_go_when_they_were_told_long_ago(database: Database) -> None:
    common = {"tenant": "shop", "carrier": "", "since_ms": 0, "text": "", "job": ""}
    rows = [("told", 8, 8, 0), ("seen", 6, 8, 0), ("untold", 8, 8, 2), ("young", 6, 6, 0)]
    await fill(
        database,
        alerts,
        [
            common | {"cause": cause, "seen_ms": ago(seen), "told_ms": ago(told), "count": count}
            for cause, seen, told, count in rows
        ],
    )
    assert await logs(database)(context(), Prune()) == Pruned(alerts=1, batches=1)
    assert await keys(database, alerts, "cause") == {"seen", "untold", "young"}


async def test_a_job_that_was_cut_off_goes_on_where_it_was(
    database: Database, small: None, after_turns: AfterTurns
) -> None:
    for n in range(5):
        await chat(database, str(n), ago(31), 7)

    async def killed() -> None:
        raise asyncio.CancelledError

    after_turns(2, killed)
    with pytest.raises(asyncio.CancelledError):
        await chats(database)(context(), Prune())
    assert await size(database, messages) == 15
    after_turns(0, killed)
    assert await chats(database)(context(), Prune()) == Pruned(messages=15, conversations=5, batches=2)
    assert await size(database, messages) == await size(database, conversations) == 0


async def test_a_job_waits_for_a_database_that_is_away(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database, "read", AsyncMock(side_effect=StoreUnavailable("the database: away")))
    for handler in (ConversationsHandler(database, MONTH), LogsHandler(database, MONTH)):
        job = context()
        job._envelope = type(job._envelope)(1, Prune(), "", "", 2**50)
        with pytest.raises(RetryLater, match="away"):
            await handler(job, Prune())


@pytest.fixture
def adapters(server: str, namespace: str, tmp_path: Path) -> Adapters:
    redis = {"url": Secret(server), "namespace": namespace}
    return Adapters(replaced(load(environ={}), data={"folder": tmp_path}, redis=redis))


@pytest.fixture
async def broker(connector: Connector, adapters: Adapters) -> AsyncIterator[Broker]:
    """With a worker on the cleanup stages, as they are configured."""
    pipeline = Pipeline(adapters.pipeline().queue("cleanup"))
    connect = connector(pipeline)
    async with adapters.opened(), working(connect, pipeline), connect() as opened:
        yield opened


async def test_a_worker_runs_the_stages_and_keeps_what_they_did(adapters: Adapters, broker: Broker) -> None:
    wanted = [Job(stage=name, payload=Prune()) for name in ("tts-cache", "conversations", "logs")]
    wanted.append(Job(stage="stats", payload=CollectStatistics("2024-10-04")))
    await chat(adapters.database, "old", ago(31, now_ms()))
    speech, chat_job, log_job, stats = await add_all(broker, wanted)
    views = [await until(broker, job, "completed") for job in (speech, chat_job, log_job, stats)]
    results: list[Any] = [view.result for view in views]
    assert results[0]["skipped"] == OFF
    assert (results[1]["messages"], results[1]["heldBack"], results[1]["dryRun"]) == (3, 0, False)
    assert results[2]["notifications"] == 0
    assert results[3] == {"day": "2024-10-04", "tenants": 0}


async def test_the_statistics_count_what_was_buried(adapters: Adapters, broker: Broker) -> None:
    no_day = Job(stage="stats", payload=CollectStatistics("2024-02-31"), tenant="shop")
    await until(broker, await add_one(broker, no_day), "failed")
    today = datetime.now(UTC).date()
    wanted = [CollectStatistics(str(day)) for day in (today, today - timedelta(days=1))]  # it may be midnight
    for job in await add_all(broker, [Job(stage="stats", payload=payload) for payload in wanted]):
        await until(broker, job, "completed")
    rows = await adapters.database.read(select(statistics.c.tenant, statistics.c.failures))
    assert [dict(row) for row in rows] == [{"tenant": "shop", "failures": 1}]
