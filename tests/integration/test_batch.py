"""Stages whose handler takes several jobs at once: each job still ends on its own."""

import asyncio
import time
from collections.abc import Sequence
from typing import Any

import pytest

from pipeline import Broker, Bury, Context, Done, Job, JobId, Permanent, Pipeline, Retry, RetryPolicy, Worker
from pipeline.keys import Keys
from pipeline.stage import Batch, RateLimit
from tests.support import (
    Connector,
    Number,
    add_all,
    add_one,
    depths,
    jobs,
    look,
    reached,
    stage,
    state,
    until,
    working,
)

pytestmark = pytest.mark.integration

ONCE = RetryPolicy(attempts=1)


class Batches:
    """A handler that notes its batches, and returns what each job's number stands for (itself, if nothing)."""

    def __init__(self, **outcomes: Any) -> None:
        self.seen: list[list[int]] = []
        self._outcomes = {int(name[1:]): outcome for name, outcome in outcomes.items()}

    async def __call__(self, contexts: Sequence[Context], payloads: Sequence[Number]) -> list[Any]:
        assert len(contexts) == len(payloads)
        self.seen.append([payload.n for payload in payloads])
        return [self._outcomes.get(payload.n, payload.n) for payload in payloads]


def pipeline_of(handler: Any, *, size: int = 4, wait: float = 0.0, **options: Any) -> Pipeline:
    return Pipeline([stage("many", handler, batch=Batch(size, wait), **options)])


async def results(broker: Broker, ids: Sequence[JobId]) -> list[Any]:
    return [(await broker.result(job, timeout=20)).result for job in ids]


async def test_a_batch_is_never_larger_than_its_size_and_full_when_there_is_enough(connector: Connector) -> None:
    batches = Batches()
    pipeline = pipeline_of(batches, size=8, wait=0.1)
    connect = connector(pipeline)
    async with connect() as broker:
        ids = await add_all(broker, jobs("many", 20))
        async with working(connect, pipeline):
            assert await results(broker, ids) == list(range(20))
    assert batches.seen == [list(range(8)), list(range(8, 16)), list(range(16, 20))]


async def test_a_lone_job_runs_once_it_waited_long_enough_for_others(connector: Connector) -> None:
    batches = Batches()
    pipeline = pipeline_of(batches, wait=0.3)
    connect = connector(pipeline)
    async with connect() as broker, working(connect, pipeline):
        before = time.monotonic()
        await results(broker, [await add_one(broker, jobs("many", 1)[0])])
        assert 0.3 <= time.monotonic() - before < 5
    assert batches.seen == [[0]]


async def test_a_batch_that_fills_up_while_it_waits_runs_at_once(connector: Connector) -> None:
    batches = Batches()
    pipeline = pipeline_of(batches, wait=15)
    connect = connector(pipeline)
    async with connect() as broker, working(connect, pipeline) as worker:
        ids = []
        for job in jobs("many", 4):  # each once the one before is with the worker
            ids.append(await add_one(broker, job))
            await reached(lambda: worker.lanes[0].unfinished() == len(ids) or batches.seen)
        async with asyncio.timeout(5):
            assert await results(broker, ids) == [0, 1, 2, 3]
    assert batches.seen == [[0, 1, 2, 3]]


async def test_no_more_batches_run_at_a_time_than_the_concurrency(connector: Connector) -> None:
    running, most = 0, 0

    async def count(contexts: Sequence[Context], payloads: Sequence[Number]) -> list[None]:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(0.01)
        running -= 1
        return [None] * len(payloads)

    pipeline = pipeline_of(count, concurrency=2)
    connect = connector(pipeline)
    async with connect() as broker, working(connect, pipeline):
        await results(broker, await add_all(broker, jobs("many", 50)))
    assert most == 2


async def test_each_job_of_a_batch_ends_in_its_own_outcome(connector: Connector) -> None:
    forward = Done("on", forward=(Job(stage="next", payload=Number(7)),))
    batches = Batches(_1=Bury("no such number"), _2=Retry(60, "not yet"), _3=forward)
    pipeline = Pipeline([*pipeline_of(batches, wait=0.1), stage("next", Batches())])
    connect = connector(pipeline)
    async with connect() as broker, working(connect, Pipeline([pipeline.stage("many")])):
        plain, buried, retried, done = await add_all(broker, jobs("many", 4))
        assert (await until(broker, plain, "completed")).result == 0
        assert (await until(broker, buried, "failed")).reason == "no such number"
        assert (await until(broker, retried, "retrying")).error == "not yet"
        view = await until(broker, done, "completed")
        assert (view.result, await state(broker, JobId.parse(view.next[0]))) == ("on", "waiting")
    assert batches.seen == [[0, 1, 2, 3]]


async def test_an_exception_is_every_jobs_of_the_batch(connector: Connector) -> None:
    async def fail(contexts: Sequence[Context], payloads: Sequence[Number]) -> list[object]:
        if contexts[0].attempt == 1:
            raise OSError("line is down")
        return [context.attempt for context in contexts]

    pipeline = pipeline_of(fail, wait=0.1)
    connect = connector(pipeline)
    async with connect() as broker, working(connect, pipeline):
        assert await results(broker, await add_all(broker, jobs("many", 4))) == [2] * 4


async def test_a_permanent_failure_buries_the_whole_batch(connector: Connector) -> None:
    async def fail(contexts: Sequence[Context], payloads: Sequence[Number]) -> list[object]:
        raise Permanent("the whole lot")

    pipeline = pipeline_of(fail, wait=0.1)
    connect = connector(pipeline)
    async with connect() as broker, working(connect, pipeline):
        for job in await add_all(broker, jobs("many", 4)):
            assert (await until(broker, job, "failed")).reason == "the whole lot"


@pytest.mark.parametrize("returned", [None, [1], [1, 2, 3], "ab"])
async def test_a_wrong_number_of_outcomes_is_a_failed_try_that_says_so(
    connector: Connector, returned: object
) -> None:
    async def answer(contexts: Sequence[Context], payloads: Sequence[Number]) -> Any:
        return returned

    pipeline = pipeline_of(answer, size=2, wait=0.5, retry=RetryPolicy(attempts=2, base=60))
    connect = connector(pipeline)
    async with connect() as broker, working(connect, pipeline):
        for job in await add_all(broker, jobs("many", 2)):
            view = await until(broker, job, "retrying")
            wanted = f"the handler of a batch of 2 has to return a list of as many, not {returned!r}"
            assert view.error == wanted


async def test_bytes_that_are_no_envelope_are_buried_alone(
    connector: Connector, redis: Any, namespace: str
) -> None:
    batches = Batches()
    pipeline = pipeline_of(batches, wait=0.1)
    connect = connector(pipeline)
    async with connect() as broker:
        before = await add_one(broker, jobs("many", 1)[0])
        entry = await redis.xadd(Keys(namespace).stream("many", 0), {"e": b"\xff"})
        after = await add_one(broker, jobs("many", 2)[1])
        async with working(connect, pipeline):
            assert await results(broker, [before, after]) == [0, 1]
            view = await until(broker, JobId("many", 0, entry.decode()), "failed")
            assert view.reason.startswith("cannot be read: ")
    assert batches.seen == [[0, 1]]


async def test_poison_is_buried_alone(connector: Connector) -> None:
    batches = Batches()
    pipeline = pipeline_of(batches, wait=0.3, retry=ONCE)
    connect = connector(pipeline)
    async with connect() as broker:
        await broker.ensure_groups()
        poison = await add_one(broker, jobs("many", 1)[0])
        await broker.fetch("many", 0, "dies", 1, 10)
        await broker.reclaim("many", 0, "dies too", 0, 1)
        good = await add_one(broker, jobs("many", 2)[1])
        async with working(connect, pipeline, lease=0.1):
            assert await results(broker, [good]) == [1]
            assert (await until(broker, poison, "failed")).reason == "poison: its worker was lost 2 times"
    assert batches.seen == [[1]]


async def test_a_batch_over_its_time_is_tried_again_whole(connector: Connector) -> None:
    async def wait_at_first(contexts: Sequence[Context], payloads: Sequence[Number]) -> list[int]:
        if contexts[0].attempt == 1:
            await asyncio.Event().wait()
        return [context.attempt for context in contexts]

    pipeline = pipeline_of(wait_at_first, wait=0.1, timeout=0.1)
    connect = connector(pipeline)
    async with connect() as broker, working(connect, pipeline):
        assert await results(broker, await add_all(broker, jobs("many", 4))) == [2] * 4


async def test_a_stop_cuts_a_batch_off_after_the_grace_time_and_gives_it_back(connector: Connector) -> None:
    started = asyncio.Event()

    async def endless(contexts: Sequence[Context], payloads: Sequence[Number]) -> list[None]:
        started.set()
        await asyncio.Event().wait()
        return []

    pipeline = pipeline_of(endless, size=2, wait=5, prefetch=3)
    connect = connector(pipeline)
    async with connect() as broker:
        worker, stop = Worker(connect, list(pipeline), lease=30, grace=0.05), asyncio.Event()
        ids = await add_all(broker, jobs("many", 5))
        running = asyncio.create_task(worker.run(stop))
        await started.wait()
        stop.set()
        assert await running == 0
        assert await depths(broker, "many") == (5, 0, 0, 0)
        assert [(await look(broker, job)).attempt for job in ids] == [0] * 5


async def test_a_stop_gives_back_what_waits_for_its_batch_to_fill(connector: Connector) -> None:
    batches = Batches()
    pipeline = pipeline_of(batches, wait=60)
    connect = connector(pipeline)
    async with connect() as broker:
        async with working(connect, pipeline) as worker:
            job = await add_one(broker, jobs("many", 1)[0])
            await reached(lambda: worker.lanes[0].unfinished() == 1)
        view = await look(broker, job)
        assert (view.state, view.attempt, batches.seen) == ("waiting", 0, [])


async def test_a_cancelled_job_of_a_running_batch_can_be_seen_and_is_not_tried_again(
    connector: Connector,
) -> None:
    cancelled = asyncio.Event()

    async def watch(contexts: Sequence[Context], payloads: Sequence[Number]) -> list[object]:
        while not contexts[0].cancelled:  # noqa: ASYNC110 - what a handler would do
            await asyncio.sleep(0.005)
        assert not contexts[1].cancelled
        cancelled.set()
        return [Retry(60), "done"]

    pipeline = pipeline_of(watch, size=2, wait=5)
    connect = connector(pipeline)
    async with connect() as broker, working(connect, pipeline) as worker:
        first, second = await add_all(broker, jobs("many", 2))
        await reached(lambda: worker.lanes[0].unfinished() == 2)
        assert await broker.cancel(first) == "cancelling"
        await until(broker, first, "cancelled")
        assert (await until(broker, second, "completed")).result == "done"
    assert cancelled.is_set()


async def test_jobs_without_a_token_are_left_out_of_the_batch_until_they_have_one(connector: Connector) -> None:
    batches = Batches()
    pipeline = pipeline_of(batches, wait=0.2, rates=lambda *_: [RateLimit("bucket", 5, burst=2)])
    connect = connector(pipeline)
    async with connect() as broker, working(connect, pipeline):
        ids = await add_all(broker, jobs("many", 4))
        assert await results(broker, ids) == [0, 1, 2, 3]
        assert [(await look(broker, job)).attempt for job in ids] == [1] * 4
    assert batches.seen[0] == [0, 1]
    assert sorted(n for batch in batches.seen for n in batch) == [0, 1, 2, 3]


def test_a_batch_takes_at_least_one() -> None:
    with pytest.raises(ValueError, match="stage 'many': a batch of 0"):
        pipeline_of(Batches(), size=0)
