"""A job without work through every stage: it goes the way of all jobs, and no handler is run for it."""

import asyncio
from collections.abc import Sequence

import pytest
from redis.asyncio import Redis

from pipeline import Broker, Context, Job, Pipeline, RetryPolicy
from pipeline.errors import StageDraining
from pipeline.keys import Keys
from pipeline.outcome import Bury
from pipeline.stage import Batch, RateLimit
from tests.support import (
    Connector,
    Noted,
    Number,
    add_all,
    add_one,
    depths,
    eventually,
    jobs,
    reached,
    stage,
    status,
    until,
    unused,
    working,
)

pytestmark = pytest.mark.integration


async def test_a_probe_comes_through_every_kind_of_stage_and_runs_no_handler(connector: Connector) -> None:
    def rates(tenant: str, payload: Number) -> Sequence[RateLimit]:
        return [RateLimit("slow", 0.001)]

    def buried(ctx: Context, payload: Number, why: Bury) -> Sequence[Job]:
        raise AssertionError("nothing is buried")

    pipeline = Pipeline(
        [
            stage("plain", unused, keep_results=0.0),
            stage("keeping", unused, buried=buried, keep_results=0.01),
            stage("batched", unused, batch=Batch(5, 0.01)),
            stage("paced", unused, rates=rates),
            stage("shared", unused, shared_limit=1),
            stage("once", unused, retry=RetryPolicy(attempts=1)),
        ]
    )
    connect = connector(pipeline, partitions=2)
    async with connect() as broker, working(connect, pipeline):
        for _ in range(2):  # the second is no duplicate, and there would be no second token
            found = await broker.probe()
            assert [each.stage for each in found] == [one.name for one in pipeline]
            assert [each.error for each in found] == [""] * 6
            assert all(0 < (each.milliseconds or 0) < 4500 for each in found)
        for one in pipeline:
            assert await depths(broker, one.name) == (0, 0, 0, 0)


async def test_a_probe_in_a_batch_leaves_the_others_to_the_handler(connector: Connector) -> None:
    batches: list[list[int]] = []

    async def note(contexts: list[Context], payloads: list[Number]) -> list[None]:
        batches.append([payload.n for payload in payloads])
        return [None] * len(payloads)

    one = stage("one", note, batch=Batch(3, 5.0))
    connect = connector(Pipeline([one]))
    async with connect() as broker:
        first = await add_one(broker, jobs("one", 1)[0])
        probe = await broker.add_probe(one, 0)
        last = await add_one(broker, Job(stage="one", payload=Number(1)))
        async with working(connect, broker.pipeline):
            for job in (first, probe, last):
                await until(broker, job, "completed")
    assert batches == [[0, 1]]


async def test_no_tenants_crowd_holds_a_probe_up_and_it_holds_up_nobody(
    connector: Connector, redis: Redis, namespace: str
) -> None:
    noted = Noted(finish=False)
    pipeline = Pipeline([stage("one", noted, tenant_limit=1, concurrency=3)])
    connect = connector(pipeline)
    async with connect() as broker, working(connect, pipeline):
        await add_all(broker, jobs("one", 5))  # of the tenant '', whose probes would be
        await reached(lambda: noted.started == [0])
        (found,) = await broker.probe()
        assert found.error == ""
        assert noted.started == [0], "the tenant's next job did not move up for it"
        assert await redis.hgetall(Keys(namespace).place("one", 0).tenants) == {b"": b"1"}
        noted.finish.set()
        await eventually(lambda: _empty(broker))


async def _empty(broker: Broker) -> bool:
    return await depths(broker, "one") == (0, 0, 0, 0)


async def test_what_does_not_come_through_says_why_all_at_once(connector: Connector) -> None:
    noted = Noted(finish=False)
    busy, away, behind, paused = (stage(name, noted) for name in ("busy", "away", "behind", "paused"))
    full, drained = stage("full", unused, high_water=1), stage("drained", unused)
    pipeline = Pipeline([busy, away, behind, paused, full, drained])
    connect = connector(pipeline)
    async with connect() as broker, working(connect, Pipeline([busy, behind, paused])):
        await broker.pause([paused])
        await broker.drain([drained])
        await add_all(broker, [*jobs("busy", 1), *jobs("behind", 4), *jobs("full", 1)])
        await reached(lambda: len(noted.started) == 2)
        async with asyncio.timeout(3):
            found = {each.stage: each.error for each in await broker.probe(timeout=0.3)}
        assert found == {
            "busy": "not begun within 0.3 s: its workers are busy",
            "away": "no worker has test.away; start one with 'riacho worker --stages away'",
            "behind": "not begun within 0.3 s: 3 jobs are before it",
            "paused": "paused",
            "full": found["full"],
            "drained": "test.drained is being drained and takes no new jobs",
        }
        assert found["full"].startswith("test.full holds 1 unfinished jobs, as many as it may")
        assert (await status(broker, "behind")).waiting == 3, "the probe is taken out"
        assert (await status(broker, "away")).waiting == 0
        noted.finish.set()


async def test_a_probe_that_is_cleared_with_its_stage_says_so_and_the_others_come_through(
    connector: Connector,
) -> None:
    cleared, other = stage("cleared", unused), stage("other", unused)
    connect = connector(Pipeline([cleared, other]))
    async with connect() as broker, working(connect, Pipeline([other])):
        probing = asyncio.create_task(broker.probe())
        await eventually(lambda: broker.clear([cleared]))
        found = {each.stage: each.error for each in await probing}
    assert found == {"cleared": "somebody cleared its stage", "other": ""}


async def test_a_stage_that_is_drained_refuses_a_probe(connector: Connector) -> None:
    one = stage("one", unused)
    async with connector(Pipeline([one]))() as broker:
        await broker.drain([one])
        with pytest.raises(StageDraining, match="being drained"):
            await broker.add_probe(one, 0)


async def test_a_worker_that_knows_no_probes_leaves_no_dead_letter(connector: Connector) -> None:
    one = stage("one", unused)
    async with connector(Pipeline([one]))() as broker:
        await broker.ensure_groups()
        probing = asyncio.create_task(broker.probe())
        (delivery,) = await broker.fetch("one", 0, "old", 1, 5000)
        unread = Bury("cannot be read: envelope version 0; this worker reads version 1")
        assert await broker.bury(one, 0, "old", [(delivery, unread)]) == [True]
        (found,) = await probing
        assert (found.milliseconds, found.error) == (None, f"a worker buried it: {unread.reason}")
        assert await depths(broker, "one") == (0, 0, 0, 0)
        assert await broker.dead_letter(delivery.id) is None


async def test_what_is_left_of_a_probe_is_gone_after_a_minute(
    connector: Connector, redis: Redis, namespace: str
) -> None:
    one = stage("one", unused, keep_results=3600.0)
    connect = connector(Pipeline([one]))
    async with connect() as broker, working(connect, broker.pipeline):
        job = await broker.add_probe(one, 0)
        await until(broker, job, "completed")
        assert 0 < await redis.pttl(Keys(namespace).job(job)) <= 60_000


async def test_nothing_is_left_of_a_probe_that_did_not_come_through(
    connector: Connector, redis: Redis, namespace: str
) -> None:
    """Or asking every minute would keep a week of them."""
    away, old = stage("away", unused), stage("old", unused)
    async with connector(Pipeline([away, old]))() as broker:
        await broker.ensure_groups()
        probing = asyncio.create_task(broker.probe(timeout=0.3))
        (delivery,) = await broker.fetch("old", 0, "old", 1, 5000)
        await broker.bury(old, 0, "old", [(delivery, Bury("cannot be read"))])
        assert all(found.error for found in await probing)
    assert [key async for key in redis.scan_iter(f"{{{namespace}:0}}:job:*")] == []
