"""Delayed jobs: there at once, run when they are due, and the same job all along."""

import math
import statistics
from collections import Counter

import pytest

from pipeline import Broker, Context, Done, Job, Pipeline, fetcher
from pipeline.errors import BadInput
from pipeline.message import JobId, now_ms
from tests.support import (
    Connector,
    Noted,
    Number,
    add_all,
    add_one,
    look,
    stage,
    state,
    status,
    until,
    unused,
    working,
)

pytestmark = pytest.mark.integration


def later(n: int, delay: float, **options: str) -> Job:
    return Job(stage="later", payload=Number(n), delay=delay, **options)  # type: ignore[arg-type]


class Clocked:
    """A handler that notes when each job started."""

    def __init__(self) -> None:
        self.started: dict[JobId, int] = {}

    async def __call__(self, ctx: Context, payload: Number) -> None:
        self.started[ctx.job_id] = now_ms()


async def due(broker: Broker, job: JobId) -> int:
    view = await look(broker, job)
    assert view.due_at
    return view.due_at


async def test_a_delayed_job_says_when_it_is_due_and_keeps_its_id_to_the_end(connector: Connector) -> None:
    clocked = Clocked()
    pipeline = Pipeline([stage("later", clocked)])
    connect = connector(pipeline)
    async with connect() as broker, working(connect, pipeline):
        before = now_ms()
        job = await add_one(broker, later(1, 0.3, tenant="shop"))
        view = await look(broker, job)
        assert (view.state, view.tenant) == ("delayed", "shop")
        assert before + 300 <= (view.due_at or 0) <= now_ms() + 300
        found = await status(broker, "later")
        assert (found.delayed, found.waiting, found.active) == (1, 0, 0)
        assert (await until(broker, job, "completed")).due_at is None
        assert (await status(broker, "later")).delayed == 0
    assert list(clocked.started) == [job]
    assert clocked.started[job] >= before + 300


async def test_delayed_jobs_run_within_50_ms_of_their_time_on_an_idle_system(connector: Connector) -> None:
    clocked = Clocked()
    pipeline = Pipeline([stage("later", clocked)])
    connect = connector(pipeline)
    async with connect() as broker, working(connect, pipeline):
        await until(broker, await add_one(broker, later(0, 0)), "completed")
        # Each is due before all that the sleeper knows of.
        ids = [await add_one(broker, later(n, 0.9 - 0.06 * n)) for n in range(10)]
        times = {job: await due(broker, job) for job in ids}
        for job in ids:
            await until(broker, job, "completed")
    late = [clocked.started[job] - times[job] for job in ids]
    assert min(late) >= 0
    assert statistics.median(late) <= 50


async def test_an_earlier_job_wakes_who_sleeps_until_a_later_one(
    connector: Connector, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fetcher, "LONGEST_LOOK", 60.0)  # nobody looks by chance
    clocked = Clocked()
    pipeline = Pipeline([stage("later", clocked)])
    connect = connector(pipeline)
    async with connect() as broker, working(connect, pipeline, lease=600):
        far = await add_one(broker, later(1, 30))
        await until(broker, await add_one(broker, later(0, 0)), "completed")
        for n in range(3):
            await until(broker, await add_one(broker, later(n, 0.1)), "completed", deadline=5)
        assert await state(broker, far) == "delayed"


async def test_what_is_handed_on_with_a_delay_waits_it_out(connector: Connector) -> None:
    clocked = Clocked()

    async def first(ctx: Context, payload: Number) -> Done:
        return Done(forward=(ctx.forward("later", payload, delay=0.3),))

    pipeline = Pipeline([stage("first", first), stage("later", clocked)])
    connect = connector(pipeline)
    async with connect() as broker, working(connect, pipeline):
        job = await add_one(broker, Job(stage="first", payload=Number(1)))
        view = await until(broker, job, "completed")
        (following,) = map(JobId.parse, view.next)
        due_at = await due(broker, following)
        assert due_at >= (view.ended_at or 0) + 290
        await until(broker, following, "completed")
    assert clocked.started[following] >= due_at


async def test_a_dedup_id_takes_a_delayed_job_once(connector: Connector) -> None:
    noted = Noted()
    pipeline = Pipeline([stage("later", noted)])
    connect = connector(pipeline)
    async with connect() as broker, working(connect, pipeline):
        first, again = await broker.add([later(1, 0.1, dedup="x"), later(2, 0.1, dedup="x")])
        assert first.id
        assert (again.id, again.duplicate) == (first.id, True)
        await until(broker, first.id, "completed")
        (once_more,) = await broker.add([later(3, 0, dedup="x")])
        assert (once_more.id, once_more.duplicate) == (first.id, True)
    assert noted.started == [1]


async def test_delayed_jobs_count_towards_the_high_water_mark(connector: Connector) -> None:
    async with connector(Pipeline([stage("later", unused, high_water=3)]))() as broker:
        added = await broker.add([later(n, delay) for n, delay in enumerate([60, 0, 60, 60, 0])])
        assert [bool(one.id) for one in added] == [True, True, True, False, False]
        assert added[-1].refusal
        assert added[-1].refusal.depth == 3


@pytest.mark.parametrize("delay", [-1.0, math.nan, math.inf, 367 * 86_400.0])
async def test_a_delay_out_of_range_is_refused_and_nothing_is_added(connector: Connector, delay: float) -> None:
    async with connector(Pipeline([stage("later", unused)]))() as broker:
        await broker.ensure_groups()
        with pytest.raises(BadInput, match=r"delay of \S+ s for test.later; it goes from 0 to 31622400 s"):
            await broker.add([later(1, 0), later(2, delay)])
        assert (await status(broker, "later")).waiting == 0


async def test_a_worker_that_came_later_runs_what_was_delayed_under_another(connector: Connector) -> None:
    clocked = Clocked()
    pipeline = Pipeline([stage("later", clocked)])
    connect = connector(pipeline)
    async with connect() as broker:
        async with working(connect, pipeline):
            job = await add_one(broker, later(1, 0.4))
            due_at = await due(broker, job)
        assert await state(broker, job) == "delayed"
        async with working(connect, pipeline):
            await until(broker, job, "completed")
    assert clocked.started[job] >= due_at


async def test_delayed_jobs_that_two_workers_wait_for_run_once(connector: Connector) -> None:
    seen: Counter[int] = Counter()

    async def count(ctx: Context, payload: Number) -> None:
        seen[payload.n] += 1

    pipeline = Pipeline([stage("later", count, concurrency=3)])
    connect = connector(pipeline)
    async with connect() as broker, working(connect, pipeline), working(connect, pipeline):
        for job in await add_all(broker, [later(n, 0.1) for n in range(50)]):
            await until(broker, job, "completed")
    assert seen == Counter(range(50))
