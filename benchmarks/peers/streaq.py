"""streaQ: Redis streams, with a key of its own for each task.

Results are off (`ttl=0`) and so are log lines (`silent`). The defaults for prefetching, connections and
serialising (pickle) were as fast as any other tried. It runs again only what raises its own `StreaqRetry`, and
looks twice a second for what is due.
"""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from streaq import StreaqRetry, Worker

from benchmarks.peers.serving import (
    ATTEMPTS,
    BACKOFF,
    CONCURRENCY,
    Add,
    Contestant,
    Failure,
    Handler,
    Job,
    parts,
    serve,
)


@asynccontextmanager
async def producer(url: str) -> AsyncIterator[Add]:
    worker, order = _worker(url, lambda *_: None)

    async def add(jobs: list[Job]) -> None:
        if len(jobs) == 1:
            await order.enqueue(jobs[0])
        else:
            await worker.enqueue_many([order.enqueue(job) for job in jobs])

    async with worker:
        yield add


async def work(url: str, jobs: int, handler: Handler) -> float:
    return await _until_settled(_worker(url, handler)[0], jobs)


async def fan_out(url: str, jobs: int, children: int) -> float:
    return await _until_settled(_worker(url, lambda *_: None, children)[0], jobs * (1 + children))


async def _until_settled(worker: Any, jobs: int) -> float:
    started = time.perf_counter()
    running = asyncio.create_task(worker.run_async())
    # It counts a task before it is settled, and deletes a settled one's entry.
    while worker.counters["completed"] < jobs or await worker.redis.xlen(worker.stream_key + "normal"):
        await asyncio.sleep(0.001)
        if running.done():
            running.result()
    took = time.perf_counter() - started
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    return took


def _worker(url: str, handler: Handler, children: int = 0) -> tuple[Any, Any]:
    """With the task that adds jobs."""
    worker = Worker(url, concurrency=CONCURRENCY, handle_signals=False)

    async def add_part(_: Job) -> None:
        pass

    async def take_order(job: Job) -> None:
        try:
            handler(job["number"], job["due"])
        except Failure as error:
            raise StreaqRetry(delay=BACKOFF * 2 ** (order.context.tries - 1)) from error
        if children:
            await worker.enqueue_many([part.enqueue(child) for child in parts(job, children)])

    part = worker.task(name="part", max_tries=ATTEMPTS, silent=True, ttl=0)(add_part)
    order = worker.task(name="order", max_tries=ATTEMPTS, silent=True, ttl=0)(take_order)
    return worker, order


if __name__ == "__main__":
    serve(Contestant(("streaq", "coredis"), producer, work, calls=4, fan_out=fan_out))
