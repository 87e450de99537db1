"""Waiting for a job's end, and how far it has come until then."""

import asyncio
import time

import pytest
from redis.asyncio import Redis

from pipeline import Broker, Context, Job, JobId, Permanent, Pipeline
from pipeline.broker import looking
from pipeline.errors import BadInput, JobUnknown, ServerUnavailable
from tests.support import (
    Connector,
    Noted,
    Number,
    add_all,
    add_one,
    eventually,
    jobs,
    look,
    reached,
    stage,
    until,
    unused,
    working,
)

pytestmark = pytest.mark.integration

ONE = Job(stage="one", payload=Number(1))


async def test_a_result_is_waited_for_and_comes_at_once(
    connector: Connector, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(looking, "LOOK_AGAIN", 60.0)  # only being told is in time
    noted = Noted(finish=False)
    pipeline = Pipeline([stage("one", noted)])
    connect = connector(pipeline)
    async with connect() as broker, working(connect, pipeline):
        job = await add_one(broker, ONE)
        asking = asyncio.create_task(broker.result(job, timeout=30))
        await reached(lambda: noted.started == [1])
        assert not asking.done()
        noted.finish.set()
        async with asyncio.timeout(5):
            view = await asking
    assert (view.job_id, view.state, view.result) == (str(job), "completed", 1)


async def test_many_can_wait_at_once_over_one_broker(
    connector: Connector, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(looking, "LOOK_AGAIN", 60.0)
    noted = Noted(finish=False)
    pipeline = Pipeline([stage("one", noted, concurrency=50)])
    connect = connector(pipeline)
    async with connect() as broker, working(connect, pipeline):
        ids = await add_all(broker, jobs("one", 50))
        asking = [asyncio.create_task(broker.result(job, timeout=20)) for job in (*ids, *ids)]
        await reached(lambda: len(noted.started) == 50)
        noted.finish.set()
        found = [view.result for view in await asyncio.gather(*asking)]
    assert found == [*range(50), *range(50)]


async def test_a_job_that_is_finished_already_is_answered_from_what_is_remembered(connector: Connector) -> None:
    pipeline = Pipeline([stage("one", Noted())])
    connect = connector(pipeline)
    async with connect() as broker, working(connect, pipeline):
        job = await add_one(broker, ONE)
        await until(broker, job, "completed")
        assert (await broker.result(job, timeout=5)).result == 1


async def test_a_failure_is_a_result_too(connector: Connector) -> None:
    async def refuse(ctx: Context, payload: Number) -> None:
        raise Permanent("not this one")

    pipeline = Pipeline([stage("one", refuse)])
    connect = connector(pipeline)
    async with connect() as broker, working(connect, pipeline):
        view = await broker.result(await add_one(broker, ONE), timeout=20)
    assert (view.state, view.reason) == ("failed", "not this one")


@pytest.mark.parametrize("delay", [0.0, 60.0])
async def test_a_cancellation_is_a_result_too(connector: Connector, delay: float) -> None:
    async with connector(Pipeline([stage("one", unused)]))() as broker:
        job = await add_one(broker, Job(stage="one", payload=Number(1), delay=delay))
        asking = asyncio.create_task(broker.result(job, timeout=20))
        await asyncio.sleep(0)
        await broker.cancel(job)
        assert (await asking).state == "cancelled"


async def test_a_result_of_a_delayed_job_is_waited_for_through_its_delay(connector: Connector) -> None:
    pipeline = Pipeline([stage("one", Noted())])
    connect = connector(pipeline)
    async with connect() as broker, working(connect, pipeline):
        job = await add_one(broker, Job(stage="one", payload=Number(1), delay=0.2))
        assert (await broker.result(job, timeout=20)).result == 1


async def test_who_waited_long_enough_is_told_in_time(connector: Connector) -> None:
    async with connector(Pipeline([stage("one", unused)]))() as broker:
        job = await add_one(broker, ONE)
        before = time.monotonic()
        with pytest.raises(TimeoutError, match=f"{job} was not finished within 0.3 s"):
            await broker.result(job, timeout=0.3)
        assert 0.3 <= time.monotonic() - before < 0.8


async def test_a_stage_that_keeps_no_results_cannot_be_waited_for(connector: Connector) -> None:
    async with connector(Pipeline([stage("one", unused, keep_results=0)]))() as broker:
        job = await add_one(broker, ONE)
        with pytest.raises(BadInput, match=r"test\.one keeps no results: its stage needs keep_results"):
            await broker.result(job, timeout=5)


async def test_a_job_that_never_was_cannot_be_waited_for(connector: Connector) -> None:
    async with connector(Pipeline([stage("one", unused)]))() as broker:
        with pytest.raises(JobUnknown, match=r"no job one\.0\.1-0"):
            await broker.result(JobId("one", 0, "1-0"), timeout=5)


async def test_a_server_that_is_away_is_told_as_everywhere() -> None:
    async with Broker("redis://127.0.0.1:1", Pipeline([stage("one", unused)])) as broker:
        with pytest.raises(ServerUnavailable, match=r"Redis at redis://127\.0\.0\.1:1: "):
            await broker.result(JobId("one", 0, "1-0"), timeout=5)


async def test_a_result_comes_though_the_signals_were_cut_off_meanwhile(
    connector: Connector, redis: "Redis"
) -> None:
    noted = Noted(finish=False)
    pipeline = Pipeline([stage("one", noted)])
    connect = connector(pipeline)
    async with connect() as broker, working(connect, pipeline):
        job = await add_one(broker, ONE)
        asking = asyncio.create_task(broker.result(job, timeout=20))
        await reached(lambda: noted.started == [1])
        assert await redis.client_kill_filter(_type="pubsub") >= 1
        noted.finish.set()
        assert (await asking).result == 1


# ── progress ─────────────────────────────────────────────────────────────────────────────────────


async def progress(broker: Broker, job: JobId) -> int:
    return (await look(broker, job)).progress


@pytest.mark.parametrize("delay", [0.0, 0.05])
async def test_progress_is_shown_while_a_job_runs_and_100_when_it_is_completed(
    connector: Connector, delay: float
) -> None:
    finish = asyncio.Event()

    async def work(ctx: Context, payload: Number) -> None:
        await ctx.progress(40, "counting sheep")
        await finish.wait()

    pipeline = Pipeline([stage("one", work)])
    connect = connector(pipeline)
    async with connect() as broker, working(connect, pipeline):
        job = await add_one(broker, Job(stage="one", payload=Number(1), delay=delay))
        assert await progress(broker, job) == 0

        async def noted() -> bool:
            return await progress(broker, job) == 40

        await eventually(noted, what="progress")
        view = await look(broker, job)
        assert (view.state, view.doing) == ("active", "counting sheep")
        finish.set()
        view = await broker.result(job, timeout=20)
        assert (view.progress, view.doing) == (100, "")


async def test_a_failed_job_shows_how_far_it_came(connector: Connector) -> None:
    async def work(ctx: Context, payload: Number) -> None:
        await ctx.progress(70)
        raise Permanent("no further")

    pipeline = Pipeline([stage("one", work)])
    connect = connector(pipeline)
    async with connect() as broker, working(connect, pipeline):
        view = await broker.result(await add_one(broker, ONE), timeout=20)
    assert (view.state, view.progress) == ("failed", 70)


@pytest.mark.parametrize("percent", [-1, 101])
async def test_progress_goes_from_0_to_100(connector: Connector, percent: int) -> None:
    said: list[str] = []

    async def work(ctx: Context, payload: Number) -> None:
        await ctx.progress(0)
        await ctx.progress(100)
        with pytest.raises(ValueError, match="it goes from 0 to 100 per cent") as raised:
            await ctx.progress(percent)
        said.append(str(raised.value))

    pipeline = Pipeline([stage("one", work)])
    connect = connector(pipeline)
    async with connect() as broker, working(connect, pipeline):
        await broker.result(await add_one(broker, ONE), timeout=20)
    assert said == [f"progress of {percent}; it goes from 0 to 100 per cent"]
