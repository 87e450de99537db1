"""Cancelling: what waits never runs, what runs is told to stop."""

import asyncio
import contextlib
import threading
import time
from collections.abc import Awaitable, Callable

import pytest
from redis.asyncio import Redis

from pipeline import Broker, Context, Job, JobId, Pipeline, Retry, RetryPolicy, Stage
from pipeline.broker.consuming import Tokens
from pipeline.errors import JobUnknown
from pipeline.executor import CANCELLED, NOTHING
from pipeline.keys import Keys
from pipeline.message import Delivery, seal
from pipeline.outcome import Throttled
from tests.support import (
    Connector,
    Noted,
    Number,
    add_all,
    add_one,
    depths,
    reached,
    stage,
    state,
    status,
    until,
    working,
)

pytestmark = pytest.mark.integration

SOON = 0.3  # seconds


def job_of(n: int, delay: float = 0.0) -> Job:
    return Job(stage="one", payload=Number(n), tenant="shop", delay=delay)


# ── not with a worker ────────────────────────────────────────────────────────────────────────────


async def waiting(broker: Broker, one: Stage) -> JobId:
    return await add_one(broker, job_of(1))


async def delayed(broker: Broker, one: Stage) -> JobId:
    return await add_one(broker, job_of(1, SOON))


async def retrying(broker: Broker, one: Stage) -> JobId:
    job = await add_one(broker, job_of(1))
    await broker.retry(one, 0, "a", [(delivery, Retry(SOON)) for delivery in await fetch(broker)])
    return job


async def released(broker: Broker, one: Stage) -> JobId:
    job = await add_one(broker, job_of(1))
    await broker.release("one", 0, "a", await fetch(broker))
    return job


async def rate_limited(broker: Broker, one: Stage) -> JobId:
    job = await add_one(broker, job_of(1))
    await broker.throttled(one, 0, "a", [(delivery, Throttled(SOON)) for delivery in await fetch(broker)])
    return job


async def held_back(broker: Broker, one: Stage) -> JobId:
    _, held = await add_all(broker, [job_of(0), job_of(1)])
    return held


async def fetch(broker: Broker) -> list[Delivery]:
    return await broker.fetch("one", 0, "a", 10, 10)


@pytest.mark.parametrize(
    ("arrange", "was"),
    [
        (waiting, "waiting"),
        (delayed, "delayed"),
        (retrying, "retrying"),
        (released, "waiting"),
        (rate_limited, "waiting"),
        (held_back, "waiting"),
    ],
)
async def test_a_job_that_waits_for_whatever_reason_is_cancelled_and_never_runs(
    connector: Connector,
    redis: "Redis",
    namespace: str,
    arrange: Callable[[Broker, Stage], Awaitable[JobId]],
    was: str,
) -> None:
    noted = Noted()
    one = stage("one", noted, tenant_limit=1)
    pipeline = Pipeline([one])
    connect = connector(pipeline)
    async with connect() as broker:
        await broker.ensure_groups()
        job = await arrange(broker, one)
        assert await state(broker, job) == was
        assert await broker.cancel(job) == "cancelled"
        assert await state(broker, job) == "cancelled"
        place = Keys(namespace).place("one", 0)
        assert await redis.exists(place.due, place.delays) == 0, "its time is forgotten with it"
        with pytest.raises(JobUnknown, match=f"no unfinished job {job}"):
            await broker.cancel(job)
        async with working(connect, pipeline):
            # Of the same tenant, and due after the cancelled one would have been.
            await until(broker, await add_one(broker, job_of(2, 2 * SOON)), "completed")
        assert await state(broker, job) == "cancelled"
        found = await status(broker, "one")
        assert (found.waiting, found.delayed, found.active, found.retrying, found.dead) == (0, 0, 0, 0, 0)
    assert 1 not in noted.started


# ── with a worker ────────────────────────────────────────────────────────────────────────────────


async def test_a_running_handler_is_interrupted_and_its_job_cancelled(connector: Connector) -> None:
    interrupted = asyncio.Event()
    running = asyncio.Event()

    async def wait(ctx: Context, payload: Number) -> None:
        running.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            assert ctx.cancelled
            interrupted.set()
            raise

    pipeline = Pipeline([stage("one", wait)])
    connect = connector(pipeline)
    async with connect() as broker, working(connect, pipeline, lease=60):
        job = await add_one(broker, job_of(1))
        await running.wait()
        assert await broker.cancel(job) == "cancelling"
        view = await until(broker, job, "cancelled", deadline=5)
        assert (view.attempt, await depths(broker, "one")) == (1, (0, 0, 0, 0))
    assert interrupted.is_set()


async def test_an_interrupted_handler_leaves_its_slot_fit_for_the_next_job(connector: Connector) -> None:
    noted = Noted(finish=False)
    pipeline = Pipeline([stage("one", noted)])
    connect = connector(pipeline)
    async with connect() as broker, working(connect, pipeline):
        job, following = await add_all(broker, [job_of(1), job_of(2)])
        await reached(lambda: noted.started == [1])
        await broker.cancel(job)
        await reached(lambda: noted.started == [1, 2])
        noted.finish.set()
        await until(broker, following, "completed")


async def test_a_job_whose_handler_finishes_all_the_same_is_completed(connector: Connector) -> None:
    running = asyncio.Event()

    async def stubborn(ctx: Context, payload: Number) -> str:
        running.set()
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.Event().wait()
        return "done"

    pipeline = Pipeline([stage("one", stubborn)])
    connect = connector(pipeline)
    async with connect() as broker, working(connect, pipeline):
        job = await add_one(broker, job_of(1))
        await running.wait()
        assert await broker.cancel(job) == "cancelling"
        assert (await until(broker, job, "completed")).result == "done"


async def test_a_cancelled_job_whose_handler_fails_is_not_tried_again(connector: Connector) -> None:
    running = asyncio.Event()
    tries: list[int] = []

    async def fail(ctx: Context, payload: Number) -> None:
        tries.append(ctx.attempt)
        running.set()
        try:
            await asyncio.Event().wait()
        finally:
            raise OSError("the line broke")

    pipeline = Pipeline([stage("one", fail, retry=RetryPolicy(base=60))])
    connect = connector(pipeline)
    async with connect() as broker, working(connect, pipeline):
        job = await add_one(broker, job_of(1))
        await running.wait()
        await broker.cancel(job)
        await until(broker, job, "cancelled")
        assert await depths(broker, "one") == (0, 0, 0, 0)
    assert tries == [1]


async def test_a_handler_in_a_thread_sees_that_it_is_cancelled(connector: Connector) -> None:
    running, saw = threading.Event(), threading.Event()

    def work(ctx: Context) -> None:
        running.set()
        end = time.monotonic() + 10
        while time.monotonic() < end:
            if ctx.cancelled:
                saw.set()
                return
            time.sleep(0.005)

    async def handle(ctx: Context, payload: Number) -> None:
        assert not ctx.cancelled
        await asyncio.to_thread(work, ctx)

    pipeline = Pipeline([stage("one", handle)])
    connect = connector(pipeline)
    async with connect() as broker, working(connect, pipeline):
        job = await add_one(broker, job_of(1))
        assert await asyncio.to_thread(running.wait, 10)
        await broker.cancel(job)
        await until(broker, job, "cancelled")
        assert await asyncio.to_thread(saw.wait, 10)


async def test_a_job_that_its_worker_has_not_started_never_runs(connector: Connector) -> None:
    noted = Noted(finish=False)
    pipeline = Pipeline([stage("one", noted, prefetch=1)])
    connect = connector(pipeline)
    async with connect() as broker, working(connect, pipeline) as worker:
        first, second = await add_all(broker, [job_of(1), job_of(2)])
        await reached(lambda: worker.lanes[0].unfinished() == 2)
        assert await broker.cancel(second) == "cancelling"
        await reached(lambda: all(held.unwanted for held in worker.lanes[0].held[0].values() if held.id == second))
        noted.finish.set()
        await until(broker, second, "cancelled")
        await until(broker, first, "completed")
    assert noted.started == [1]


async def test_a_cancellation_while_a_job_asks_for_its_token_is_not_missed(
    connector: Connector, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked, answer = asyncio.Event(), asyncio.Event()

    async def slowly(*_: object) -> Tokens:
        asked.set()
        await answer.wait()
        return Tokens(0.0, 1)

    monkeypatch.setattr(Broker, "throttle", slowly)
    noted = Noted(finish=False)
    pipeline = Pipeline([stage("one", noted, rates=lambda *_: ["a bucket"])])
    connect = connector(pipeline)
    async with connect() as broker, working(connect, pipeline) as worker:
        job = await add_one(broker, job_of(1))
        await asked.wait()
        await broker.cancel(job)
        await reached(lambda: all(held.unwanted for held in worker.lanes[0].held[0].values()))
        answer.set()
        await until(broker, job, "cancelled", deadline=5)
    assert noted.started == []


# ── the signal is lost ───────────────────────────────────────────────────────────────────────────


async def test_a_cancellation_nobody_was_told_of_is_found_by_the_renewer(
    connector: Connector, redis: "Redis", namespace: str
) -> None:
    noted = Noted(finish=False)
    pipeline = Pipeline([stage("one", noted)])
    connect = connector(pipeline)
    async with connect() as broker, working(connect, pipeline, lease=0.3):
        job = await add_one(broker, job_of(1))
        await reached(lambda: noted.started == [1])
        await redis.sadd(Keys(namespace).place("one", 0).cancelled, job.entry)
        await until(broker, job, "cancelled")


async def test_who_hears_signals_again_asks_what_was_missed(
    connector: Connector, redis: "Redis", namespace: str
) -> None:
    noted = Noted(finish=False)
    pipeline = Pipeline([stage("one", noted)])
    connect = connector(pipeline)
    async with connect() as broker, working(connect, pipeline, lease=600):
        job = await add_one(broker, job_of(1))
        await reached(lambda: noted.started == [1])
        await redis.sadd(Keys(namespace).place("one", 0).cancelled, job.entry)
        await redis.client_kill_filter(_type="pubsub")
        await until(broker, job, "cancelled")


async def test_cancelling_works_while_the_signals_are_cut_off(connector: Connector, redis: "Redis") -> None:
    noted = Noted(finish=False)
    pipeline = Pipeline([stage("one", noted)])
    connect = connector(pipeline)
    async with connect() as broker, working(connect, pipeline, lease=0.3):
        job = await add_one(broker, job_of(1))
        await reached(lambda: noted.started == [1])
        assert await redis.client_kill_filter(_type="pubsub") >= 1
        assert await broker.cancel(job) == "cancelling"
        await until(broker, job, "cancelled")


async def test_who_takes_over_from_a_lost_worker_does_not_run_what_was_cancelled(connector: Connector) -> None:
    noted = Noted()
    pipeline = Pipeline([stage("one", noted)])
    connect = connector(pipeline)
    async with connect() as broker:
        await broker.ensure_groups()
        job = await add_one(broker, job_of(1))
        await broker.fetch("one", 0, "lost", 1, 10)
        assert await broker.cancel(job) == "cancelling"
        async with working(connect, pipeline, lease=0.2):
            await until(broker, job, "cancelled")
        assert await depths(broker, "one") == (0, 0, 0, 0)
    assert noted.started == []


# ── nothing to cancel ────────────────────────────────────────────────────────────────────────────


async def test_a_job_that_never_was_or_is_finished_cannot_be_cancelled(connector: Connector) -> None:
    pipeline = Pipeline([stage("one", Noted())])
    connect = connector(pipeline)
    async with connect() as broker, working(connect, pipeline):
        for delay in (0.0, 0.05):
            job = await add_one(broker, job_of(1, delay))
            await until(broker, job, "completed")
            with pytest.raises(JobUnknown, match="nothing was cancelled"):
                await broker.cancel(job)
            assert await state(broker, job) == "completed"
        with pytest.raises(JobUnknown):
            await broker.cancel(JobId("one", 0, "1-0"))


async def test_what_was_cancelled_is_forgotten_once_it_ended_long_ago_and_no_sooner(
    connector: Connector, redis: "Redis", namespace: str
) -> None:
    """Else one cancellation a week keeps all those before it."""
    one = stage("one", Noted())
    place = Keys(namespace).place("one", 0)
    async with connector(Pipeline([one]))() as broker:
        await broker.ensure_groups()
        for n in range(3):
            await redis.xadd(place.stream, {"e": seal(job_of(n))}, id=f"1-{n}")
        await add_one(broker, job_of(3))
        cancelled, runs, finished, new = await fetch(broker)
        for delivery in (cancelled, runs, finished, new):
            assert await broker.cancel(delivery.id) == "cancelling"
        await broker.settle(one, 0, [(cancelled, CANCELLED), (finished, NOTHING), (new, CANCELLED)])
        await broker.reclaim("one", 0, "b", 60.0, 10)
        assert await redis.smembers(place.cancelled) == {runs.entry, new.entry}
