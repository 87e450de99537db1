"""A paused stage starts nothing, from the moment on that `pause` returned; resumed, it goes on where it was."""

from contextlib import AsyncExitStack

import pytest
from redis.asyncio import Redis

from pipeline import Broker, Context, Done, Job, JobId, Pipeline, Retry, Stage, fetcher
from pipeline.keys import Keys
from tests.support import (
    Connector,
    Noted,
    Number,
    add_all,
    add_one,
    eventually,
    jobs,
    reached,
    stage,
    state,
    status,
    until,
    working,
)

pytestmark = pytest.mark.integration

CANARY = Job(stage="other", payload=Number(0))


def pipeline_of(one: Stage) -> Pipeline:
    """The stage, and another that is not paused: what it gets done shows that workers had their chance."""
    return Pipeline([one, stage("other", Noted())])


async def a_while(broker: Broker) -> None:
    """As long as workers with a lease of 0.4 s need to look for due entries twice."""
    for _ in range(3):
        canary = await add_one(broker, Job(stage="other", payload=Number(0), delay=0.1))
        await until(broker, canary, "completed")


async def test_nothing_added_after_pause_returned_is_started_however_many_workers_there_are(
    connector: Connector,
) -> None:
    noted = Noted()
    one = stage("one", noted, concurrency=3, prefetch=5)
    pipeline = pipeline_of(one)
    connect = connector(pipeline)
    async with connect() as broker, AsyncExitStack() as workers:
        for _ in range(3):
            await workers.enter_async_context(working(connect, pipeline, lease=0.4))
        for round_ in range(1, 6):
            before = await add_all(broker, jobs("one", 50))
            await broker.pause([one])
            marked = [Job(stage="one", payload=Number(1000 * round_ + n)) for n in range(50)]
            ids = await add_all(broker, marked)
            await until(broker, await add_one(broker, CANARY), "completed")
            if round_ == 1:
                await a_while(broker)
            assert not [n for n in noted.started if n >= 1000 * round_]
            found = await status(broker, "one")
            assert found.paused
            assert found.waiting >= 50
            await broker.resume([one])
            for job in (*before, *ids):
                await until(broker, job, "completed")
    assert len([n for n in noted.started if n >= 1000]) == 250
    assert len(noted.started) == 500


async def test_what_was_prefetched_goes_back_and_what_runs_goes_on(connector: Connector) -> None:
    noted = Noted(finish=False)
    one = stage("one", noted, prefetch=5)
    pipeline = pipeline_of(one)
    connect = connector(pipeline)
    async with connect() as broker, working(connect, pipeline) as worker:
        ids = await add_all(broker, jobs("one", 8))
        await reached(lambda: worker.lanes[0].unfinished() == 6)
        await broker.pause([one])

        async def given_back() -> bool:
            found = await status(broker, "one")
            return (found.active, found.waiting) == (1, 7)

        await eventually(given_back, what="giving back")
        noted.finish.set()
        await until(broker, ids[0], "completed")
        await until(broker, await add_one(broker, CANARY), "completed")
        assert (noted.started, (await status(broker, "one")).active) == ([0], 0)
        await broker.resume([one])
        assert (await until(broker, ids[-1], "completed")).attempt == 1
    assert sorted(noted.started) == list(range(8))


async def test_a_resumed_stage_goes_on_at_once_and_in_order(
    connector: Connector, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fetcher, "LONGEST_LOOK", 60.0)  # only being told is in time
    noted = Noted(finish=False)
    one = stage("one", noted, prefetch=20)
    pipeline = pipeline_of(one)
    connect = connector(pipeline)
    async with connect() as broker, working(connect, pipeline, lease=600) as worker:
        ids = await add_all(broker, jobs("one", 40))
        await reached(lambda: worker.lanes[0].unfinished() == 21)
        await broker.pause([one])
        await reached(lambda: worker.lanes[0].unfinished() == 1)
        noted.finish.set()
        await until(broker, ids[0], "completed")
        ids += await add_all(broker, [Job(stage="one", payload=Number(n)) for n in range(40, 60)])
        await broker.resume([one])
        await until(broker, ids[-1], "completed", deadline=10)
    assert noted.started == list(range(60))


async def test_retries_delayed_jobs_and_lost_ones_wait_too(connector: Connector) -> None:
    noted = Noted()
    one = stage("one", noted)
    pipeline = pipeline_of(one)
    connect = connector(pipeline)
    async with connect() as broker:
        await broker.ensure_groups()
        failed, lost = await add_all(broker, jobs("one", 2))
        first, _ = await broker.fetch("one", 0, "lost", 2, 10)
        await broker.retry(one, 0, "lost", [(first, Retry(0.05))])
        delayed = await add_one(broker, Job(stage="one", payload=Number(2), delay=0.05))
        await broker.pause([one])
        async with working(connect, pipeline, lease=0.4):
            await a_while(broker)
            states = [await state(broker, job) for job in (failed, lost, delayed)]
            assert (states, noted.started) == (["retrying", "active", "delayed"], [])
            await broker.resume([one])
            for job in (failed, lost, delayed):
                await until(broker, job, "completed")


async def test_a_pause_outlasts_workers_that_come_and_make_sure_of_their_groups(connector: Connector) -> None:
    noted = Noted()
    one = stage("one", noted)
    pipeline = pipeline_of(one)
    connect = connector(pipeline)
    async with connect() as broker:
        await broker.pause([one])  # before there was a group at all
        ids = await add_all(broker, jobs("one", 3))
        for _ in range(2):
            await broker.ensure_groups()
            async with working(connect, pipeline):
                await until(broker, await add_one(broker, CANARY), "completed")
        assert noted.started == []
        await broker.pause([one])  # twice is as good as once
        await broker.resume([one])
        async with working(connect, pipeline):
            await until(broker, ids[-1], "completed")
    assert noted.started == [0, 1, 2]


async def test_a_pause_outlasts_its_group(connector: Connector, redis: "Redis", namespace: str) -> None:
    noted = Noted(finish=False)
    one = stage("one", noted)
    pipeline = pipeline_of(one)
    connect = connector(pipeline)
    async with connect() as broker, working(connect, pipeline, lease=0.4):
        running = await add_one(broker, jobs("one", 1)[0])
        await reached(lambda: noted.started == [0])
        await broker.pause([one])
        noted.finish.set()
        await until(broker, running, "completed")
        ids = await add_all(broker, [Job(stage="one", payload=Number(n)) for n in range(1, 6)])
        await redis.xgroup_destroy(Keys(namespace).stream("one", 0), "riacho")
        await broker.ensure_groups()
        await a_while(broker)
        assert noted.started == [0]
        await broker.resume([one])
        await until(broker, ids[-1], "completed")
    assert noted.started == list(range(6))


async def test_only_the_stages_named_are_paused(connector: Connector) -> None:
    pipeline = pipeline_of(stage("one", Noted()))
    async with connector(pipeline, partitions=3)() as broker:
        await broker.pause([pipeline.stage("one")])
        assert (await status(broker, "one")).paused
        assert not (await status(broker, "other")).paused
        await broker.resume(pipeline)
        assert not (await status(broker, "one")).paused


async def test_a_running_job_may_hand_on_to_a_paused_stage(connector: Connector) -> None:
    async def first(ctx: Context, payload: Number) -> object:
        return Done(forward=(ctx.forward("one", payload),))

    noted = Noted()
    one = stage("one", noted)
    pipeline = Pipeline([one, stage("first", first)])
    connect = connector(pipeline)
    async with connect() as broker, working(connect, pipeline):
        await broker.pause([one])
        job = await add_one(broker, Job(stage="first", payload=Number(1)))
        view = await until(broker, job, "completed")
        assert await state(broker, JobId.parse(view.next[0])) == "waiting"
        await broker.resume([one])
        await until(broker, JobId.parse(view.next[0]), "completed")
