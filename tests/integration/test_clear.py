"""Clearing a stage: everything unfinished goes, except what is with a worker and what comes meanwhile."""

import asyncio
from typing import Any

import msgspec
import pytest
from redis.asyncio import Redis

from pipeline import Broker, Job, JobId, Pipeline, Retry, Stage, scripts
from pipeline.errors import JobUnknown
from pipeline.keys import Keys
from pipeline.outcome import Settled
from tests.support import (
    Connector,
    Noted,
    Number,
    add_all,
    add_one,
    jobs,
    reached,
    stage,
    state,
    status,
    until,
    unused,
    working,
)

pytestmark = pytest.mark.integration

DONE = Settled(msgspec.Raw(b"\xc0"))


def of_tenant(numbers: range, tenant: str = "shop", delay: float = 0.0) -> list[Job]:
    return [Job(stage="one", payload=Number(n), tenant=tenant, delay=delay) for n in numbers]


async def left(broker: Broker) -> tuple[int, int, int, int]:
    """(waiting, delayed, active, retrying)"""
    found = await status(broker, "one")
    return found.waiting, found.delayed, found.active, found.retrying


async def test_clearing_takes_what_waits_is_delayed_held_back_or_backing_off(connector: Connector) -> None:
    one = stage("one", unused, tenant_limit=400)
    async with connector(Pipeline([one]))() as broker:
        await broker.ensure_groups()
        await add_all(broker, of_tenant(range(700)))
        await add_all(broker, of_tenant(range(300), delay=60))
        await add_all(broker, of_tenant(range(200), tenant="other"))
        found = await broker.fetch("one", 0, "a", 150, 10)
        await broker.retry(one, 0, "a", [(delivery, Retry(60)) for delivery in found[:100]])
        await broker.release("one", 0, "a", found[100:120])
        assert await left(broker) == (900 - 130, 300, 30, 100)
        assert await broker.clear([one]) == 1200 - 30
        assert await left(broker) == (0, 0, 30, 0)
        assert await broker.clear([one]) == 0
        assert await broker.clear([one], active=True) == 30
        assert await left(broker) == (0, 0, 0, 0)


async def test_no_single_call_clears_more_than_the_server_can_do_in_passing(
    connector: Connector, redis: "Redis"
) -> None:
    one = stage("one", unused)
    async with connector(Pipeline([one]))() as broker:
        await add_all(broker, jobs("one", 1200))
        await broker.clear([stage("two", unused)])  # the server knows the script from here on
        before = await evalsha_calls(redis)
        assert await broker.clear([one]) == 1200
        assert await evalsha_calls(redis) - before >= 3


@pytest.mark.parametrize("delay", [0, 60])
async def test_long_jobs_are_cleared_a_few_at_a_time(connector: Connector, redis: "Redis", delay: float) -> None:
    one = Stage(queue="test", name="one", payload=bytes, handler=unused)
    async with connector(Pipeline([one]))() as broker:
        await add_all(broker, [Job(stage="one", payload=bytes(2**19), delay=delay) for _ in range(40)])
        await broker.clear([stage("two", unused)])
        before = await evalsha_calls(redis)
        assert await broker.clear([one]) == 40
        assert await evalsha_calls(redis) - before > 2, "one through what was set aside and one through the stream"


async def test_a_job_that_runs_goes_on_unless_it_is_cleared_too(connector: Connector) -> None:
    noted = Noted(finish=False)
    one = stage("one", noted, concurrency=2)
    pipeline = Pipeline([one])
    connect = connector(pipeline)
    async with connect() as broker, working(connect, pipeline) as worker:
        stays = await add_one(broker, jobs("one", 1)[0])
        await reached(lambda: len(noted.started) == 1)
        assert await broker.clear([one]) == 0
        noted.finish.set()
        await until(broker, stays, "completed")
        noted.finish.clear()
        goes = await add_one(broker, jobs("one", 1)[0])
        await reached(lambda: len(noted.started) == 2)
        assert await broker.clear([one], active=True) == 1
        noted.finish.set()
        await reached(lambda: worker.settler.counts["settled elsewhere"] == 1)
        assert await state(broker, goes) == "unknown"


async def test_what_is_added_after_clearing_began_stays(
    connector: Connector, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between any two calls of a clearing jobs are added, and ones that end have others move up."""
    one = stage("one", unused, tenant_limit=50)
    async with connector(Pipeline([one]))() as broker, connector(Pipeline([one]))() as producer:
        await broker.ensure_groups()
        await add_all(broker, of_tenant(range(700)))
        await add_all(broker, of_tenant(range(600), delay=60))
        running = await broker.fetch("one", 0, "a", 5, 10)
        clear = scripts.clear
        added: list[JobId] = []

        async def clear_and_add(*args: Any) -> Any:
            answer = await clear(*args)
            if len(added) < 12:
                await producer.settle(one, 0, [(delivery, DONE) for delivery in running])
                added.extend(await add_all(producer, of_tenant(range(2), delay=60)))
                added.extend(await add_all(producer, of_tenant(range(2), tenant="late")))
                added.extend(await add_all(producer, of_tenant(range(2))))
            return answer

        monkeypatch.setattr(scripts, "clear", clear_and_add)
        assert await broker.clear([one]) == 1300 - len(running)
        states = [await state(broker, job) for job in added]
        assert states == ["delayed", "delayed", "waiting", "waiting", "waiting", "waiting"] * 2
        assert await left(broker) == (8, 4, 0, 0)


async def test_after_clearing_a_tenants_account_is_right(connector: Connector) -> None:
    noted = Noted(finish=False)
    one = stage("one", noted, tenant_limit=3, concurrency=10)
    pipeline = Pipeline([one])
    connect = connector(pipeline)
    async with connect() as broker, working(connect, pipeline):
        await add_all(broker, of_tenant(range(10)))
        await reached(lambda: len(noted.started) == 3)
        assert await broker.clear([one]) == 7
        ids = await add_all(broker, of_tenant(range(100, 110)))
        await until(broker, await add_one(broker, of_tenant(range(200, 201), "other")[0]), "active")
        assert sorted(noted.started) == [0, 1, 2, 200], "the three that run are still on the account"
        noted.finish.set()
        for job in ids:
            await until(broker, job, "completed")


async def test_after_clearing_running_jobs_too_a_tenant_may_have_as_many_as_ever(
    connector: Connector, redis: "Redis", namespace: str
) -> None:
    one = stage("one", unused, tenant_limit=3)
    async with connector(Pipeline([one]))() as broker:
        await broker.ensure_groups()
        await add_all(broker, of_tenant(range(10)))
        await broker.fetch("one", 0, "a", 2, 10)
        assert await broker.clear([one], active=True) == 10
        assert await redis.exists(Keys(namespace).place("one", 0).tenants) == 0
        await add_all(broker, of_tenant(range(10)))
        assert await redis.xlen(Keys(namespace).stream("one", 0)) == 3


async def test_who_waits_for_a_cleared_job_is_told_that_it_is_gone(connector: Connector) -> None:
    one = stage("one", unused)
    async with connector(Pipeline([one]), partitions=2)() as broker:
        job = await add_one(broker, jobs("one", 1)[0])
        asking = asyncio.create_task(broker.result(job, timeout=20))
        await asyncio.sleep(0)
        assert await broker.clear([one]) == 1
        with pytest.raises(JobUnknown):
            await asking


async def evalsha_calls(redis: "Redis") -> int:
    calls: int = (await redis.info("commandstats"))["cmdstat_evalsha"]["calls"]
    return calls
