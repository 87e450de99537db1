"""An entry that was lost and came back to the same consumer is the newer delivery's alone."""

from collections.abc import AsyncIterator

import pytest

from pipeline import Broker, Bury, Job, Pipeline, Retry
from pipeline.message import Delivery
from pipeline.outcome import Throttled
from tests.support import Connector, Number, add_one, eventually, look, stage, unused

pytestmark = pytest.mark.integration

ONE = stage("one", unused)


@pytest.fixture
async def broker(connector: Connector) -> AsyncIterator[Broker]:
    async with connector(Pipeline([ONE]))() as broker:
        await broker.ensure_groups()
        await add_one(broker, Job(stage="one", payload=Number(1)))
        yield broker


async def taken_over(broker: Broker, consumer: str) -> Delivery:
    async def reclaimed() -> list[Delivery]:
        return (await broker.reclaim("one", 0, consumer, 0.001, 10)).deliveries

    (found,) = await eventually(reclaimed, what="an entry to reclaim")
    return found  # type: ignore[no-any-return]


async def there_and_back(broker: Broker) -> tuple[Delivery, Delivery]:
    """Two deliveries of one entry to consumer `a`; in between it was `b`'s."""
    (older,) = await broker.fetch("one", 0, "a", 1, 10)
    await taken_over(broker, "b")
    return older, await taken_over(broker, "a")


async def test_only_the_newer_delivery_is_renewed(broker: Broker) -> None:
    older, newer = await there_and_back(broker)
    assert (older.entry, older.attempt, newer.attempt) == (newer.entry, 1, 3)
    assert (await broker.renew("one", 0, "a", [older])).lost == [older.entry]
    assert (await broker.renew("one", 0, "a", [newer])).lost == []


async def test_only_the_newer_delivery_is_parked(broker: Broker) -> None:
    older, newer = await there_and_back(broker)
    assert await broker.retry(ONE, 0, "a", [(older, Retry(0, "old"))]) == [False]
    assert await broker.throttled(ONE, 0, "a", [(older, Throttled(1))]) == [False]
    assert await broker.release("one", 0, "a", [older]) == [False]
    view = await look(broker, newer.id)
    assert (view.state, view.attempt, view.error) == ("active", 3, "")
    assert await broker.retry(ONE, 0, "a", [(newer, Retry(60, "new"))]) == [True]
    view = await look(broker, newer.id)
    assert (view.state, view.attempt, view.error) == ("retrying", 3, "new")


async def test_only_the_newer_delivery_is_buried(broker: Broker) -> None:
    older, newer = await there_and_back(broker)
    assert await broker.bury(ONE, 0, "a", [(older, Bury("old"))]) == [False]
    assert (await look(broker, newer.id)).state == "active"
    assert await broker.bury(ONE, 0, "a", [(newer, Bury("new"))]) == [True]
    assert (await look(broker, newer.id)).reason == "new"


async def test_only_the_newer_deliverys_progress_is_noted(broker: Broker) -> None:
    older, newer = await there_and_back(broker)
    assert await broker.progress("a", newer, 20)
    assert not await broker.progress("a", older, 90)
    assert (await look(broker, newer.id)).progress == 20


async def test_a_zombies_progress_is_not_noted(broker: Broker) -> None:
    (zombie,) = await broker.fetch("one", 0, "a", 1, 10)
    successor = await taken_over(broker, "b")
    assert not await broker.progress("a", zombie, 90)
    assert await broker.progress("b", successor, 10)
    assert (await look(broker, zombie.id)).progress == 10
