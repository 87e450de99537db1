"""A worker that is busy keeps its jobs; one that is gone loses them."""

import asyncio
import threading
import time
from collections.abc import Callable

import pytest

from pipeline import Context, Job, Pipeline, Worker
from tests.support import Connect, Number, add_one, depths, stage, until, working

pytestmark = pytest.mark.faults

LEASE = 0.5


async def test_a_handler_that_blocks_its_loop_for_three_leases_is_not_run_twice(
    connector: Callable[..., Connect],
) -> None:
    runs: list[str] = []
    started = threading.Event()

    def pipeline_of(name: str) -> Pipeline:
        async def block(ctx: Context, payload: Number) -> None:
            runs.append(name)
            started.set()
            time.sleep(3 * LEASE)  # noqa: ASYNC251 - the point of the test

        return Pipeline([stage("block", block)])

    def run_blocked(stop: threading.Event) -> None:
        async def main() -> None:
            done = asyncio.Event()
            pipeline = pipeline_of("blocked")
            worker = Worker(connector(pipeline), list(pipeline), lease=LEASE, grace=30)
            running = asyncio.create_task(worker.run(done))
            await asyncio.to_thread(stop.wait)
            done.set()
            await running

        asyncio.run(main())

    stop = threading.Event()
    thread = threading.Thread(target=run_blocked, args=(stop,))
    rival = pipeline_of("rival")
    async with connector(rival)() as broker:
        job = await add_one(broker, Job(stage="block", payload=Number(1)))
        thread.start()
        try:
            assert await asyncio.to_thread(started.wait, 20)
            async with working(connector(rival), rival, lease=LEASE):
                view = await until(broker, job, "completed")
        finally:
            stop.set()
            await asyncio.to_thread(thread.join, 20)
    assert (runs, view.attempt) == (["blocked"], 1)


async def test_a_job_longer_than_many_leases_is_done_once(connector: Callable[..., Connect]) -> None:
    runs: list[int] = []

    async def slow(ctx: Context, payload: Number) -> None:
        runs.append(ctx.attempt)
        await asyncio.sleep(3 * LEASE)

    pipeline = Pipeline([stage("slow", slow, concurrency=4)])
    connect = connector(pipeline)
    async with (
        connect() as broker,
        working(connect, pipeline, lease=LEASE),
        working(connect, pipeline, lease=LEASE),
    ):
        job = await add_one(broker, Job(stage="slow", payload=Number(1)))
        await until(broker, job, "completed")
    assert runs == [1]


async def test_an_entry_that_kills_its_worker_again_and_again_is_buried_as_poison(
    connector: Callable[..., Connect],
) -> None:
    async def never(ctx: Context, payload: Number) -> None:
        raise AssertionError("must not run any more")

    pipeline = Pipeline([stage("deadly", never)])  # three tries
    connect = connector(pipeline)
    async with connect() as broker:
        await broker.ensure_groups()
        job = await add_one(broker, Job(stage="deadly", payload=Number(1)))
        await broker.fetch("deadly", 0, "dies first", 1, 10)
        for consumer in ("dies second", "dies third"):
            assert await broker.reclaim("deadly", 0, consumer, 0, 1)
        async with working(connect, pipeline, lease=0.1):
            view = await until(broker, job, "failed")
            assert view.reason == "poison: its worker was lost 3 times"
            assert await depths(broker, "deadly") == (0, 0, 0, 1)
