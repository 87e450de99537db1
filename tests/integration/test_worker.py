"""The worker on a real server: jobs go through, fail, come back, and nothing is done twice."""

import asyncio
import threading
from collections import Counter

import pytest
from redis.asyncio import Redis

from pipeline import Broker, Context, Done, Job, Permanent, Pipeline, Worker
from pipeline.keys import Keys
from tests.support import (
    Connector,
    Noted,
    Number,
    add_one,
    depths,
    eventually,
    jobs,
    reached,
    stage,
    until,
    working,
)

pytestmark = pytest.mark.integration


async def drained(broker: Broker, *names: str) -> None:
    """Wait until nothing is waiting, running or retrying in these stages."""

    async def empty() -> bool:
        return all([(await depths(broker, name))[:3] == (0, 0, 0) for name in names])

    await eventually(empty, what="draining")


@pytest.mark.parametrize("partitions", [1, 3])
async def test_every_job_goes_through_all_its_stages_once(connector: Connector, partitions: int) -> None:
    seen: Counter[int] = Counter()

    async def double(ctx: Context, payload: Number) -> Done:
        return Done(forward=(ctx.forward("sink", Number(payload.n * 2)),))

    async def sink(ctx: Context, payload: Number) -> None:
        seen[payload.n] += 1

    pipeline = Pipeline(
        [stage("double", double, concurrency=10, prefetch=20), stage("sink", sink, concurrency=10)]
    )
    connect = connector(pipeline, partitions=partitions)
    async with connect() as broker, working(connect, pipeline):
        await broker.add(jobs("double", 700))
        await drained(broker, "double", "sink")
    assert seen == Counter(n * 2 for n in range(700))


async def test_partitions_take_turns_where_there_is_a_single_place(connector: Connector) -> None:
    pipeline = Pipeline([stage("add", Noted(), concurrency=1)])
    connect = connector(pipeline, partitions=4)
    async with connect() as broker, working(connect, pipeline):
        for key in "abcdefgh":  # of all four
            job = await add_one(broker, Job(stage="add", payload=Number(1), key=key))
            await until(broker, job, "completed", deadline=5)


async def test_two_workers_share_the_work(connector: Connector) -> None:
    seen: Counter[int] = Counter()

    async def sink(ctx: Context, payload: Number) -> None:
        seen[payload.n] += 1

    pipeline = Pipeline([stage("sink", sink, concurrency=3, prefetch=2)])
    connect = connector(pipeline)
    async with connect() as broker, working(connect, pipeline) as one, working(connect, pipeline) as two:
        await broker.add(jobs("sink", 300))
        await drained(broker, "sink")
        counts = [one.settler.counts["settled"], two.settler.counts["settled"]]
    assert seen == Counter(range(300))
    assert sum(counts) == 300
    assert all(counts)


async def test_a_failing_job_is_tried_again_and_then_done(connector: Connector) -> None:
    async def flaky(ctx: Context, payload: Number) -> int:
        if ctx.attempt < 3:
            raise OSError("not yet")
        return ctx.attempt

    pipeline = Pipeline([stage("flaky", flaky)])
    connect = connector(pipeline)
    async with connect() as broker, working(connect, pipeline):
        job = await add_one(broker, Job(stage="flaky", payload=Number(1)))
        assert (await until(broker, job, "completed")).result == 3


async def test_a_hopeless_job_ends_in_the_dead_letters_and_its_neighbours_go_on(connector: Connector) -> None:
    async def picky(ctx: Context, payload: Number) -> None:
        if payload.n == 1:
            raise Permanent("not this one")
        if payload.n == 2:
            raise OSError("never works")

    pipeline = Pipeline([stage("picky", picky, concurrency=3)])
    connect = connector(pipeline)
    async with connect() as broker, working(connect, pipeline):
        good, permanent, hopeless = [added.id for added in await broker.add(jobs("picky", 3))]
        assert good
        assert permanent
        assert hopeless
        assert (await until(broker, permanent, "failed")).reason == "not this one"
        view = await until(broker, hopeless, "failed")
        assert (view.reason, view.error, view.attempt) == ("gave up after 3 tries", "OSError: never works", 3)
        await until(broker, good, "completed")
        assert await depths(broker, "picky") == (0, 0, 0, 2)


async def test_a_stage_is_prepared_before_its_first_job(connector: Connector) -> None:
    happened: list[str] = []

    async def prepare() -> None:
        happened.append("prepared")

    async def handle(ctx: Context, payload: Number) -> None:
        happened.append("ran")

    pipeline = Pipeline([stage("one", handle, prepare=prepare)])
    connect = connector(pipeline)
    async with connect() as broker:
        job = await add_one(broker, Job(stage="one", payload=Number(1)))
        async with working(connect, pipeline):
            await until(broker, job, "completed")
    assert happened == ["prepared", "ran"]


async def test_a_worker_that_stops_leaves_no_consumer_behind(
    connector: Connector, redis: "Redis", namespace: str
) -> None:
    async def handle(ctx: Context, payload: Number) -> None:
        pass

    pipeline = Pipeline([stage("one", handle)])
    connect = connector(pipeline)
    async with connect() as broker, working(connect, pipeline):
        await until(broker, await add_one(broker, Job(stage="one", payload=Number(1))), "completed")
    assert await redis.xinfo_consumers(Keys(namespace).stream("one", 0), "riacho") == []
    assert not [thread for thread in threading.enumerate() if thread.name == "lease-renewer"]


async def test_stopping_finishes_what_runs_and_gives_back_what_never_started(connector: Connector) -> None:
    started, finish = asyncio.Event(), asyncio.Event()

    async def slow(ctx: Context, payload: Number) -> None:
        started.set()
        await finish.wait()

    pipeline = Pipeline([stage("slow", slow, concurrency=1, prefetch=3)])
    connect = connector(pipeline)
    async with connect() as broker:
        worker, stop = Worker(connect, list(pipeline), lease=30, grace=30), asyncio.Event()
        running = asyncio.create_task(worker.run(stop))
        ids = [added.id for added in await broker.add(jobs("slow", 5))]
        await started.wait()

        async def fetched() -> bool:
            return worker.lanes[0].unfinished() == 4

        await eventually(fetched, what="prefetching")
        stop.set()

        async def given_back() -> bool:
            return await depths(broker, "slow") == (4, 1, 0, 0)

        await eventually(given_back, what="giving back while the job still runs")
        assert not running.done()
        finish.set()
        assert await running == 0
        assert ids[0]
        assert await until(broker, ids[0], "completed")
        views = [await broker.look(job) for job in ids[1:] if job]
        assert [(view.state, view.attempt) for view in views if view] == [("waiting", 0)] * 4
        again, _ = await broker.reclaim("slow", 0, "next", 30, 10)
        assert [delivery.attempt for delivery in again] == [1, 1, 1]


async def test_what_outlasts_the_grace_time_goes_back_at_once_and_the_try_does_not_count(
    connector: Connector,
) -> None:
    started = asyncio.Event()

    async def endless(ctx: Context, payload: Number) -> None:
        started.set()
        await asyncio.Event().wait()

    pipeline = Pipeline([stage("endless", endless)])
    connect = connector(pipeline)
    async with connect() as broker:
        worker, stop = Worker(connect, list(pipeline), lease=30, grace=0.05), asyncio.Event()
        running = asyncio.create_task(worker.run(stop))
        job = await add_one(broker, Job(stage="endless", payload=Number(1)))
        await started.wait()
        stop.set()
        assert await running == 0
        view = await broker.look(job)
        assert view
        assert (view.state, view.attempt) == ("waiting", 0)


@pytest.mark.parametrize("returned", [object(), Done(forward=(Job(stage="nowhere", payload=Number(1)),))])
async def test_an_outcome_that_cannot_be_written_takes_no_other_with_it(
    connector: Connector, returned: object
) -> None:
    async def odd(ctx: Context, payload: Number) -> object:
        return returned if payload.n == 0 else payload.n

    pipeline = Pipeline([stage("odd", odd, concurrency=2)])
    connect = connector(pipeline)
    async with connect() as broker, working(connect, pipeline):
        bad, good = [added.id for added in await broker.add(jobs("odd", 2))]
        assert bad
        assert good
        assert (await until(broker, bad, "failed")).reason == "what its handler returned cannot be written"
        await until(broker, good, "completed")


async def test_a_retry_comes_back_in_time_however_long_the_backlog_is(connector: Connector) -> None:
    order: list[int] = []

    async def handle(ctx: Context, payload: Number) -> None:
        order.append(payload.n)
        await asyncio.sleep(0.005)
        if payload.n == 0 and ctx.attempt == 1:
            raise OSError("not yet")

    pipeline = Pipeline([stage("one", handle, prefetch=2)])  # comes back after 50 ms
    connect = connector(pipeline)
    async with connect() as broker, working(connect, pipeline):
        await broker.add(jobs("one", 300))

        async def back() -> bool:
            return order.count(0) == 2

        await eventually(back)
    assert len(order) < 150, "long before the backlog was through"


async def test_jobs_that_come_one_by_one_run_side_by_side(connector: Connector) -> None:
    noted = Noted(finish=False)
    pipeline = Pipeline([stage("one", noted, concurrency=3)])
    connect = connector(pipeline)
    async with connect() as broker, working(connect, pipeline):
        for n in range(3):
            await add_one(broker, Job(stage="one", payload=Number(n)))
            await reached(lambda: len(noted.started) == n + 1, what="starting while others run")  # noqa: B023
        noted.finish.set()
