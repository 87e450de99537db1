"""arq: a sorted set and keys of its own for each job.

`poll_delay` is next to nothing: its default of 0.5 s holds arq at 1,000 jobs a second, as it starts at most 500 a
poll. Results are not kept; pickle (the default) is as fast here as MessagePack. arq has no call for several jobs,
so 50 calls go out at once. It runs again only what raises its own `Retry`, and later if that says so.
"""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from arq.connections import RedisSettings, create_pool
from arq.worker import Retry, Worker, func

from benchmarks.peers.serving import (
    ATTEMPTS,
    BACKOFF,
    CONCURRENCY,
    Add,
    Contestant,
    Countdown,
    Failure,
    Handler,
    Job,
    parts,
    serve,
)

QUEUE = "arq:queue"


@asynccontextmanager
async def producer(url: str) -> AsyncIterator[Add]:
    pool = await create_pool(RedisSettings.from_dsn(url))

    async def add(jobs: list[Job]) -> None:
        await asyncio.gather(*(pool.enqueue_job("order", job) for job in jobs))

    yield add
    await pool.aclose()


async def work(url: str, jobs: int, handler: Handler) -> float:
    return await _until_settled(url, handler, jobs)


async def fan_out(url: str, jobs: int, children: int) -> float:
    return await _until_settled(url, lambda *_: None, jobs * (1 + children), children)


async def _until_settled(url: str, handler: Handler, jobs: int, children: int = 0) -> float:
    countdown = Countdown(jobs)
    started = time.perf_counter()
    worker = await _worker(url, handler, countdown, children)
    running = asyncio.create_task(worker.async_run())
    await countdown.wait()
    took = time.perf_counter() - started
    running.cancel()
    # What it has begun comes to its end, or closing would fail with it.
    await asyncio.gather(running, *worker.tasks.values(), return_exceptions=True)
    await worker.close()
    return took


async def _worker(url: str, handler: Handler, countdown: Countdown, children: int) -> Worker:
    async def order(ctx: dict[str, Any], job: Job) -> None:
        try:
            handler(job["number"], job["due"])
        except Failure as error:
            raise Retry(defer=BACKOFF * 2 ** (ctx["job_try"] - 1)) from error
        if children:
            await asyncio.gather(*(ctx["redis"].enqueue_job("part", part) for part in parts(job, children)))
        ctx["through"] = True

    async def part(ctx: dict[str, Any], _: Job) -> None:
        ctx["through"] = True

    async def settled(ctx: dict[str, Any]) -> None:
        if "through" in ctx:
            countdown.one()

    return Worker(
        [func(kind, name=kind.__name__, max_tries=ATTEMPTS, keep_result=0) for kind in (order, part)],
        redis_pool=await create_pool(RedisSettings.from_dsn(url)),
        queue_name=QUEUE,
        max_jobs=CONCURRENCY,
        poll_delay=0.001,
        keep_result=0,
        after_job_end=settled,
        handle_signals=False,
        log_results=False,
    )


if __name__ == "__main__":
    serve(Contestant(("arq", "redis"), producer, work, calls=4, fan_out=fan_out))
