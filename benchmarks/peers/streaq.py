"""streaQ: Redis streams, with a key of its own for each task.

Results are off (`ttl=0`) and so are log lines (`silent`). The defaults for prefetching, connections and
serialising (pickle) were as fast as any other tried. It runs again only what raises its own `StreaqRetry`, and
looks twice a second for what is due.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from streaq import StreaqRetry, Worker

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
    return await _until_settled(url, handler, jobs)


async def fan_out(url: str, jobs: int, children: int) -> float:
    return await _until_settled(url, lambda *_: None, jobs * (1 + children), children)


async def _until_settled(url: str, handler: Handler, jobs: int, children: int = 0) -> float:
    countdown = Countdown(jobs)
    worker, _ = _worker(url, handler, children, countdown.one)
    left = max(0, await _waiting(url) - jobs)
    started = time.perf_counter()
    running = asyncio.create_task(worker.run_async())
    await countdown.wait()
    while await _entries(worker) > left:  # it deletes a settled task's
        await asyncio.sleep(0.001)
    took = time.perf_counter() - started
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    return took


async def _waiting(url: str) -> int:
    worker, _ = _worker(url, lambda *_: None)
    async with worker:
        return await _entries(worker)


async def _entries(worker: Any) -> int:
    return int(await worker.redis.xlen(worker.stream_key + "normal"))


def _worker(
    url: str, handler: Handler, children: int = 0, handled: Callable[[], None] = lambda: None
) -> tuple[Any, Any]:
    """With the task that adds jobs."""
    worker = Worker(url, concurrency=CONCURRENCY, handle_signals=False)

    async def add_part(_: Job) -> None:
        handled()

    async def take_order(job: Job) -> None:
        try:
            handler(job["number"], job["due"])
        except Failure as error:
            raise StreaqRetry(delay=BACKOFF * 2 ** (order.context.tries - 1)) from error
        if children:
            await worker.enqueue_many([part.enqueue(child) for child in parts(job, children)])
        handled()

    part = worker.task(name="part", max_tries=ATTEMPTS, silent=True, ttl=0)(add_part)
    order = worker.task(name="order", max_tries=ATTEMPTS, silent=True, ttl=0)(take_order)
    return worker, order


if __name__ == "__main__":
    serve(Contestant(("streaq", "coredis"), producer, work, calls=4, fan_out=fan_out))
