"""Fairness: a tenant's flood is never in front of another's job. And a limit that workers share."""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from redis.asyncio import Redis

from pipeline import Broker, Bury, Context, Job, JobId, Permanent, Pipeline, Retry
from pipeline.executor import CANCELLED
from pipeline.keys import Keys
from pipeline.message import Delivery
from tests.support import (
    Connector,
    Noted,
    Number,
    add_all,
    add_one,
    eventually,
    stage,
    state,
    status,
    until,
    unused,
    working,
)

pytestmark = pytest.mark.integration

FLOOD = 100_000
LIMIT = 4


def of_tenant(tenant: str, *numbers: int, delay: float = 0.0) -> list[Job]:
    return [Job(stage="one", payload=Number(n), tenant=tenant, delay=delay) for n in numbers]


async def in_stream(redis: "Redis", namespace: str) -> int:
    length: int = await redis.xlen(Keys(namespace).stream("one", 0))
    return length


# ── what it is for ───────────────────────────────────────────────────────────────────────────────


async def test_a_flood_delays_another_tenants_job_by_no_more_than_its_few(
    connector: Connector, redis: "Redis", namespace: str
) -> None:
    started: list[str] = []

    async def tick(ctx: Context, payload: Number) -> None:
        started.append(ctx.tenant)
        await asyncio.sleep(0.002)

    one = stage("one", tick, concurrency=2, prefetch=2, tenant_limit=LIMIT, high_water=2 * FLOOD, keep_results=0)
    pipeline = Pipeline([one])
    connect = connector(pipeline)
    async with connect() as broker:
        for start in range(0, FLOOD, 10_000):
            await add_all(broker, of_tenant("flood", *range(start, start + 10_000)))
        assert (await status(broker, "one")).waiting == FLOOD
        assert await in_stream(redis, namespace) == LIMIT
        async with working(connect, pipeline):

            async def under_way() -> bool:
                return len(started) > 50

            await eventually(under_way)
            for _ in range(5):
                before = len(started)
                await add_one(broker, of_tenant("small", 0)[0])

                async def ran(before: int = before) -> bool:
                    return "small" in started[before:]

                await eventually(ran)
                assert started[before:].index("small") <= LIMIT + one.concurrency
                assert await in_stream(redis, namespace) <= LIMIT + 1


async def test_a_tenants_jobs_keep_their_order(connector: Connector) -> None:
    seen: dict[str, list[int]] = {"a": [], "b": [], "": []}

    async def note(ctx: Context, payload: Number) -> None:
        seen[ctx.tenant].append(payload.n)

    pipeline = Pipeline([stage("one", note, tenant_limit=3)])
    connect = connector(pipeline)
    async with connect() as broker, working(connect, pipeline):
        ids: list[JobId] = []
        for n in range(0, 60, 20):
            for tenant in seen:
                ids += await add_all(broker, of_tenant(tenant, *range(n, n + 20)))
        for job in ids:
            await until(broker, job, "completed")
    assert all(numbers == list(range(60)) for numbers in seen.values())


async def test_a_tenant_never_has_more_in_the_stream_than_its_limit(
    connector: Connector, redis: Any, namespace: str
) -> None:
    most: Counter[str] = Counter()

    async def look(ctx: Context, payload: Number) -> Retry | Bury | None:
        entries = await redis.xrange(Keys(namespace).stream("one", 0))
        for tenant, count in Counter(fields[b"t"].decode() for _, fields in entries).items():
            most[tenant] = max(most[tenant], count)
        outcomes: list[Retry | Bury | None] = [None, Retry(0.01), Bury("no")]
        return outcomes[payload.n % 3] if ctx.attempt == 1 else None

    pipeline = Pipeline([stage("one", look, concurrency=8, tenant_limit=LIMIT)])
    connect = connector(pipeline)
    async with connect() as broker, working(connect, pipeline):
        asked = [*of_tenant("a", *range(40)), *of_tenant("a", *range(20), delay=0.05), *of_tenant("b", *range(30))]
        ids = await add_all(broker, asked)
        await broker.cancel(ids[39])
        for job in ids:
            await ended(broker, job)
        assert await redis.exists(Keys(namespace).place("one", 0).tenants) == 0
    assert most == Counter({"a": LIMIT, "b": LIMIT})


async def ended(broker: Broker, job: JobId) -> None:
    async def finished() -> bool:
        return await state(broker, job) in ("completed", "failed", "cancelled")

    await eventually(finished, what=f"the end of {job}")


# ── who makes room ───────────────────────────────────────────────────────────────────────────────

ONE = stage("one", unused, tenant_limit=1)


async def settled(broker: Broker, delivery: Delivery) -> None:
    await broker.settle(ONE, 0, [(delivery, CANCELLED)])


async def buried(broker: Broker, delivery: Delivery) -> None:
    await broker.bury(ONE, 0, "a", [(delivery, Bury("no"))])


async def cancelled_while_parked(broker: Broker, delivery: Delivery) -> None:
    await broker.retry(ONE, 0, "a", [(delivery, Retry(60))])
    await broker.cancel(delivery.id)


async def cancelled_and_lost(broker: Broker, delivery: Delivery) -> None:
    await broker.cancel(delivery.id)
    assert (await broker.reclaim("one", 0, "b", 0, 10)).deliveries == []


@pytest.mark.parametrize("make_room", [settled, buried, cancelled_while_parked, cancelled_and_lost])
async def test_whatever_ends_a_job_has_the_tenants_next_one_move_up(
    connector: Connector,
    redis: "Redis",
    namespace: str,
    make_room: Callable[[Broker, Delivery], Awaitable[None]],
) -> None:
    async with connector(Pipeline([ONE]))() as broker:
        await broker.ensure_groups()
        _, second, third = await add_all(broker, of_tenant("shop", 1, 2, 3))
        (first,) = await broker.fetch("one", 0, "a", 10, 10)
        await make_room(broker, first)
        (following,) = await broker.fetch("one", 0, "a", 10, 10)
        assert (following.id, await in_stream(redis, namespace)) == (second, 1)
        assert await state(broker, third) == "waiting"


async def test_a_retrying_job_stays_on_its_tenants_account(connector: Connector) -> None:
    async with connector(Pipeline([ONE]))() as broker:
        await broker.ensure_groups()
        await add_all(broker, of_tenant("shop", 1, 2))
        (first,) = await broker.fetch("one", 0, "a", 10, 10)
        await broker.retry(ONE, 0, "a", [(first, Retry(60))])
        assert await broker.fetch("one", 0, "a", 10, 10) == []


async def test_one_held_back_that_was_cancelled_is_passed_over(connector: Connector) -> None:
    noted = Noted()
    pipeline = Pipeline([stage("one", noted, tenant_limit=1)])
    connect = connector(pipeline)
    async with connect() as broker:
        ids = await add_all(broker, of_tenant("shop", 0, 1, 2, 3))
        assert await broker.cancel(ids[1]) == "cancelled"
        assert await broker.cancel(ids[2]) == "cancelled"
        async with working(connect, pipeline):
            await until(broker, ids[3], "completed")
    assert noted.started == [0, 3]


async def test_jobs_with_and_without_delay_share_their_tenants_account(
    connector: Connector, redis: "Redis", namespace: str
) -> None:
    noted = Noted(finish=False)
    pipeline = Pipeline([stage("one", noted, tenant_limit=2, concurrency=5)])
    connect = connector(pipeline)
    async with connect() as broker, working(connect, pipeline):
        first, second = await add_all(broker, of_tenant("shop", 0, 1, delay=0.5))
        third, *_ = await add_all(broker, of_tenant("shop", 2, 3, 4))
        await until(broker, third, "active")

        async def not_delayed() -> bool:
            return (await status(broker, "one")).delayed == 0

        await eventually(not_delayed)
        assert await in_stream(redis, namespace) == 2
        assert [await state(broker, job) for job in (first, second)] == ["waiting", "waiting"]
        noted.finish.set()
        for job in (first, second):
            await until(broker, job, "completed")


async def test_a_replayed_job_waits_its_turn_too(connector: Connector) -> None:
    async def refuse(ctx: Context, payload: Number) -> None:
        if payload.n == 0:
            raise Permanent("not yet")
        await asyncio.Event().wait()

    pipeline = Pipeline([stage("one", refuse, tenant_limit=1)])
    connect = connector(pipeline)
    async with connect() as broker, working(connect, pipeline, grace=0.01):
        buried_one, running = await add_all(broker, of_tenant("shop", 0, 1))
        await until(broker, buried_one, "failed")
        await until(broker, running, "active")
        (letter,) = [letter async for letter in broker.dead_letters(pipeline)]
        again = await broker.replay(letter)
        assert again
        assert await state(broker, again) == "waiting"
        assert await broker.cancel(running) == "cancelling"
        await until(broker, again, "failed")


async def test_a_limit_that_a_new_version_no_longer_has_sets_free_what_it_held_back(
    connector: Connector, redis: "Redis", namespace: str
) -> None:
    async with connector(Pipeline([ONE]))() as broker:
        ids = await add_all(broker, of_tenant("shop", *range(20)))
        assert await in_stream(redis, namespace) == 1
    noted = Noted(finish=False)
    pipeline = Pipeline([stage("one", noted, concurrency=20)])
    connect = connector(pipeline)
    async with connect() as broker, working(connect, pipeline):

        async def all_at_once() -> bool:
            return len(noted.started) == 20

        await eventually(all_at_once)
        noted.finish.set()
        for job in ids:
            await until(broker, job, "completed")
        assert await redis.exists(Keys(namespace).place("one", 0).tenants) == 0
    assert noted.started == list(range(20))


# ── shared by all ────────────────────────────────────────────────────────────────────────────────


async def test_no_more_than_the_shared_limit_run_over_all_workers(connector: Connector) -> None:
    running, most = 0, 0

    async def count(ctx: Context, payload: Number) -> None:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(0.005)
        running -= 1

    pipeline = Pipeline([stage("one", count, concurrency=10, prefetch=5, shared_limit=3)])
    connect = connector(pipeline)
    async with connect() as broker, working(connect, pipeline) as a, working(connect, pipeline) as b:
        ids = await add_all(broker, [job for n in range(20) for t in "abc" for job in of_tenant(t, n)])
        for job in ids:
            await until(broker, job, "completed")
        assert a.settler.counts["settled"] + b.settler.counts["settled"] == 60
    assert most == 3


def test_a_stage_has_one_kind_of_limit() -> None:
    with pytest.raises(ValueError, match="stage 'one': tenant_limit and shared_limit exclude each other"):
        stage("one", unused, tenant_limit=1, shared_limit=1)
