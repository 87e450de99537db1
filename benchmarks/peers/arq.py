"""arq: a sorted set and keys of its own for each job.

`poll_delay` is next to nothing: its default of 0.5 s holds arq at 1,000 jobs a second, as it starts at most 500 a
poll. Results are not kept; pickle (the default) is as fast here as MessagePack. arq has no call for several jobs,
so 50 calls go out at once.
"""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from arq.connections import RedisSettings, create_pool
from arq.worker import Worker, func

from benchmarks.peers.serving import ATTEMPTS, CONCURRENCY, Add, Contestant, Countdown, Handler, Job, serve

QUEUE = "arq:queue"


@asynccontextmanager
async def producer(url: str) -> AsyncIterator[Add]:
    pool = await create_pool(RedisSettings.from_dsn(url))

    async def add(jobs: list[Job]) -> None:
        await asyncio.gather(*(pool.enqueue_job("order", job) for job in jobs))

    yield add
    await pool.aclose()


async def work(url: str, jobs: int, handler: Handler) -> float:
    countdown = Countdown(jobs)
    started = time.perf_counter()
    worker = await _worker(url, handler, countdown)
    running = asyncio.create_task(worker.async_run())
    await countdown.wait()
    took = time.perf_counter() - started
    running.cancel()
    # What it has begun comes to its end, or closing would fail with it.
    await asyncio.gather(running, *worker.tasks.values(), return_exceptions=True)
    await worker.close()
    return took


async def _worker(url: str, handler: Handler, countdown: Countdown) -> Worker:
    async def order(_: object, job: Job) -> None:
        handler(job["number"], job["due"])

    async def settled(_: object) -> None:
        countdown.one()

    return Worker(
        [func(order, name="order", max_tries=ATTEMPTS, keep_result=0)],
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
    serve(Contestant(("arq", "redis"), producer, work, calls=4))
