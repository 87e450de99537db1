"""A stage that was full takes nothing in until it has come down to its low-water mark."""

import asyncio

import msgspec
import pytest
from redis.asyncio import Redis

from pipeline import Broker, Job, Pipeline, Stage
from pipeline.errors import StageFull
from pipeline.keys import Keys
from pipeline.outcome import Settled
from tests.support import Connector, Number, add_all, jobs, stage, unused

pytestmark = pytest.mark.integration

ONE = stage("one", unused, high_water=20, keep_results=0)
BEFORE = stage("before", unused)
PIPELINE = Pipeline([ONE, BEFORE])
JOB = Job(stage="one", payload=Number(1))
DONE = Settled(msgspec.Raw(b"\xc0"))


async def full(broker: Broker) -> None:
    await broker.ensure_groups()
    await add_all(broker, jobs("one", 20))


async def work_off(broker: Broker, count: int, *, of: Stage = ONE, partition: int = 0) -> None:
    found = await broker.fetch(of.name, partition, "a", count, 100)
    assert await broker.settle(of, partition, [(delivery, DONE) for delivery in found]) == count


async def hand_on(broker: Broker, count: int, *, delay_ms: int = 0) -> None:
    """Jobs that another stage hands on."""
    await add_all(broker, jobs("before", count))
    found = await broker.fetch("before", 0, "a", count, 100)
    done = [
        (delivery, msgspec.structs.replace(DONE, forwards=(("one", delivery.body, "", delay_ms),)))
        for delivery in found
    ]
    assert await broker.settle(BEFORE, 0, done) == count


async def takes(broker: Broker) -> bool:
    (answer,) = await broker.add([JOB])
    return answer.id is not None


async def pressure(broker: Broker) -> str:
    return (await broker.flow())["one", 0].pressure(ONE)


async def test_a_stage_that_was_full_opens_exactly_at_its_low_water_mark(connector: Connector) -> None:
    async with connector(PIPELINE)() as broker:
        assert (ONE.low_water, await pressure(broker)) == (18, "ok")
        await full(broker)
        assert await pressure(broker) == "shedding"
        await work_off(broker, 1)
        said = "holds 19 unfinished jobs, and after it was full takes new ones from 18 on; try again in"
        with pytest.raises(StageFull, match=said):
            await broker.enqueue(JOB)
        assert await pressure(broker) == "shedding"
        await work_off(broker, 1)
        assert await pressure(broker) == "ok"
        assert [await takes(broker) for _ in range(3)] == [True, True, False], "up to the high-water mark again"


async def test_below_the_mark_nothing_is_refused_before_the_stage_was_full(connector: Connector) -> None:
    async with connector(PIPELINE)() as broker:
        await add_all(broker, jobs("one", 19))
        assert await pressure(broker) == "throttling"
        assert await takes(broker)
        assert not await takes(broker)


async def test_what_other_stages_hand_on_is_taken_by_a_full_one(connector: Connector) -> None:
    async with connector(PIPELINE)() as broker:
        await full(broker)
        await hand_on(broker, 3)
        assert (await broker.flow())["one", 0].unfinished == 23
        assert not await takes(broker)


async def test_a_low_tide_that_no_producer_saw_counts(connector: Connector) -> None:
    async with connector(PIPELINE)() as broker:
        await full(broker)
        await work_off(broker, 2)
        await hand_on(broker, 1)
        assert await pressure(broker) == "throttling"
        assert await takes(broker)


async def test_nothing_is_left_of_it_once_a_worker_looks(
    connector: Connector, redis: Redis, namespace: str
) -> None:
    async with connector(PIPELINE)() as broker:
        await full(broker)
        control = Keys(namespace).place("one", 0).control
        assert await redis.hgetall(control) == {b"full": b"18"}
        await broker.reclaim("one", 0, "a", 60.0, 1)
        assert await redis.exists(control)
        await work_off(broker, 2)
        await broker.reclaim("one", 0, "a", 60.0, 1)
        assert not await redis.exists(control)


async def test_resuming_a_drained_stage_does_not_open_one_that_was_full(connector: Connector) -> None:
    async with connector(PIPELINE)() as broker:
        await full(broker)
        await work_off(broker, 1)
        await broker.drain([ONE])
        await broker.resume([ONE])
        assert not await takes(broker)


async def test_each_partition_is_full_by_itself(connector: Connector) -> None:
    async with connector(PIPELINE, partitions=2)() as broker:
        await broker.ensure_groups()
        here, there = keys_of_both_partitions(broker)
        await add_all(broker, [here] * 20)
        assert [bool(answer.id) for answer in await broker.add([here, there])] == [False, True]
        counts = await broker.flow()
        assert [counts["one", n].pressure(ONE) for n in (0, 1)] == ["shedding", "ok"]


def keys_of_both_partitions(broker: Broker) -> list[Job]:
    """A job for partition 0, and one for partition 1."""
    keyed = [msgspec.structs.replace(JOB, key=str(n)) for n in range(99)]
    return [next(job for job in keyed if broker._partition(job) == partition) for partition in (0, 1)]


async def test_jobs_set_aside_do_not_count_as_finished_in_the_wait_suggested(connector: Connector) -> None:
    async with connector(PIPELINE)() as broker:
        await full(broker)
        assert await wait(broker) == 1, "nothing is known of how fast it is"
        await asyncio.sleep(0.01)
        await hand_on(broker, 5, delay_ms=60_000)
        assert await wait(broker) == 1
        counted = (await broker.flow())["one", 0]
        assert (counted.added, counted.unfinished, counted.finished, counted.due) == (25, 25, 0, 0)


async def wait(broker: Broker) -> float:
    (answer,) = await broker.add([JOB])
    assert answer.refusal
    return answer.refusal.wait
