"""What a look-up says beside a job's state: what comes before it, when it began, which trace it is part of."""

import time
from typing import Any

import pytest
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from pipeline import Broker, Context, Job, Permanent, Pipeline, Retry
from pipeline.broker import consuming, looking
from pipeline.message import JobId
from pipeline.outcome import Throttled
from pipeline.stage import Batch
from pipeline.views import JobView
from tests.support import (
    Connector,
    Noted,
    Number,
    add_all,
    add_one,
    eventually,
    jobs,
    look,
    stage,
    until,
    unused,
    working,
)

pytestmark = pytest.mark.integration


async def positions(broker: Broker, ids: list[JobId]) -> list[int | None]:
    return [(await look(broker, job)).position for job in ids]


# ── position ─────────────────────────────────────────────────────────────────────────────────────


async def test_a_waiting_job_says_how_many_nobody_was_given_before_it(connector: Connector) -> None:
    async with connector(Pipeline([stage("one", unused)]))() as broker:
        ids = await add_all(broker, jobs("one", 5))
        assert await positions(broker, ids) == [0, 1, 2, 3, 4], "before any worker came"
        await broker.ensure_groups()
        await broker.fetch("one", 0, "a", 2, 1)
        assert await positions(broker, ids) == [None, None, 0, 1, 2]


async def test_a_pause_leaves_positions_as_they_are(connector: Connector) -> None:
    one = stage("one", unused)
    async with connector(Pipeline([one]))() as broker:
        await broker.ensure_groups()
        ids = await add_all(broker, jobs("one", 4))
        await broker.fetch("one", 0, "a", 1, 1)
        await broker.pause([one])
        assert await positions(broker, ids) == [None, 0, 1, 2]
        await broker.resume([one])
        assert await positions(broker, ids) == [None, 0, 1, 2]


async def test_what_is_due_again_comes_before_what_is_new(connector: Connector) -> None:
    one = stage("one", unused)
    async with connector(Pipeline([one]))() as broker:
        await broker.ensure_groups()
        ids = await add_all(broker, jobs("one", 5))
        given, limited, failed = await broker.fetch("one", 0, "a", 3, 1)
        await broker.throttled(one, 0, "a", [(limited, Throttled(60.0))])
        await broker.retry(one, 0, "a", [(failed, Retry(60.0))])
        assert await positions(broker, ids) == [None, 0, None, 0, 1], "neither of the two is due"
        await broker.release("one", 0, "a", [given])
        assert await positions(broker, ids) == [0, 1, None, 1, 2]


async def test_a_job_held_back_for_its_tenant_comes_after_the_tenants_own_and_the_stream(
    connector: Connector,
) -> None:
    one = stage("one", unused, tenant_limit=1)
    async with connector(Pipeline([one]))() as broker:
        await broker.ensure_groups()
        ids = await add_all(broker, jobs("one", 3))
        other = await add_one(broker, Job(stage="one", payload=Number(3), tenant="other"))
        assert await positions(broker, [*ids, other]) == [0, 2, 3, 1]


async def test_a_delayed_job_has_no_position(connector: Connector) -> None:
    async with connector(Pipeline([stage("one", unused)]))() as broker:
        job = await add_one(broker, Job(stage="one", payload=Number(0), delay=60.0))
        assert await positions(broker, [job]) == [None]


@pytest.mark.parametrize("size", [1, 400_000])
async def test_jobs_before_it_are_counted_up_to_a_bound(
    connector: Connector, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    """Of their number, and of the bytes that the server copies for it."""
    monkeypatch.setattr(looking, "MOST_BEFORE", 100)
    async with connector(Pipeline([stage("one", unused)]))() as broker:
        some = [Job(stage="one", payload=Number(n), key="k" * size) for n in range(102 if size == 1 else 10)]
        views = [await look(broker, job) for job in await add_all(broker, some)]
    *_, least, most = [(view.position, view.position_at_least) for view in views]
    if size == 1:
        assert [(view.position, view.position_at_least) for view in views[-3:-1]] == [(99, False), (100, True)]
        assert most == (100, True)
    else:
        assert least == most == (3, True), "a page of one, and one of two"


# ── when it began and ended, and in which trace ──────────────────────────────────────────────────


def between(before: int, view: JobView) -> bool:
    times = (before, view.started_at or 0, view.ended_at or 0, ms())
    return list(times) == sorted(times)


def ms() -> int:
    return time.time_ns() // 1_000_000 + 1  # the engine rounds down twice


async def fail(ctx: Context, payload: Number) -> None:
    if payload.n:
        raise Permanent("no such number")


async def told_all(contexts: list[Context], payloads: list[Number]) -> list[Any]:
    return [None] * len(payloads)


async def test_ended_jobs_say_when_their_last_try_began_and_ended(connector: Connector) -> None:
    pipeline = Pipeline([stage("one", fail)])
    connect = connector(pipeline)
    before = ms() - 2
    async with connect() as broker, working(connect, pipeline):
        done, failed = await add_all(broker, jobs("one", 2))
        assert between(before, await until(broker, done, "completed"))
        assert between(before, await until(broker, failed, "failed"))


async def test_a_job_that_waits_for_its_next_try_says_when_the_last_began(connector: Connector) -> None:
    async def later(ctx: Context, payload: Number) -> Retry:
        return Retry(60.0, "not now")

    pipeline = Pipeline([stage("one", later)])
    connect = connector(pipeline)
    before = ms() - 2
    async with connect() as broker, working(connect, pipeline):
        view = await until(broker, await add_one(broker, jobs("one", 1)[0]), "retrying")
    assert before <= (view.started_at or 0) <= ms()


async def test_an_active_job_says_when_it_began_and_stays_with_it(
    connector: Connector, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(consuming, "WORTH_NOTING", 0)
    noted = Noted(finish=False)
    pipeline = Pipeline([stage("one", noted, prefetch=1)])
    connect = connector(pipeline)
    before = ms() - 2
    async with connect() as broker, working(connect, pipeline, lease=0.3):
        runs, waits = await add_all(broker, jobs("one", 2))

        async def began() -> int | None:
            return (await look(broker, runs)).started_at

        since = await eventually(began)
        assert before <= since <= ms()
        held = await until(broker, waits, "active")
        assert held.started_at is None, "a worker has it, and has not begun"
        noted.finish.set()
        ended = await until(broker, runs, "completed")
    assert ended.started_at == pytest.approx(since, abs=1000), "the note comes as late as its call is under way"


@pytest.mark.parametrize("cut_off", [False, True])
async def test_a_try_that_did_not_count_leaves_no_time_for_the_next(connector: Connector, cut_off: bool) -> None:
    """The next one may be the same worker's, or one's that goes by its name."""
    one = stage("one", unused)
    async with connector(Pipeline([one]))() as broker:
        await broker.ensure_groups()
        job = await add_one(broker, jobs("one", 1)[0])
        (first,) = await broker.fetch("one", 0, "a", 1, 1)
        first.started = time.monotonic() - 10
        await broker.renew("one", 0, "a", [first])
        assert (await look(broker, job)).started_at
        if cut_off:
            await broker.release("one", 0, "a", [first])
        else:
            await broker.retry(one, 0, "a", [(first, Retry(0.0, counts=False))])
        (again,) = (await broker.reclaim("one", 0, "a", 60.0, 1)).deliveries
        view = await look(broker, job)
        assert (view.state, view.attempt, again.attempt) == ("active", 1, 1)
        assert view.started_at is None, "nobody noted when this one began"


@pytest.mark.parametrize("batch", [False, True])
async def test_a_job_says_which_trace_it_is_part_of_while_it_waits_and_after(
    connector: Connector, spans: InMemorySpanExporter, batch: bool
) -> None:
    one = stage("one", told_all, batch=Batch(2)) if batch else stage("one", fail)
    pipeline = Pipeline([one])
    connect = connector(pipeline)
    async with connect() as broker:
        job = await add_one(broker, Job(stage="one", payload=Number(int(not batch))))
        waiting = await look(broker, job)
        async with working(connect, pipeline):
            ended = await until(broker, job, "completed" if batch else "failed")
    (sent,) = [span for span in spans.get_finished_spans() if span.name == "send test.one"]
    assert sent.context
    assert waiting.trace_id == ended.trace_id == f"{sent.context.trace_id:032x}"
