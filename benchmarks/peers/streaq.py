"""streaQ: Redis streams, with a key of its own for each task.

Results are off (`ttl=0`) and so are log lines (`silent`). The defaults for prefetching, connections and
serialising (pickle) were as fast as any other tried.
"""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from streaq import Worker

from benchmarks.peers.serving import ATTEMPTS, CONCURRENCY, Add, Contestant, Countdown, Handler, Job, serve


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
    countdown = Countdown(jobs)

    def counted(number: int, due: float) -> None:
        handler(number, due)
        countdown.one()

    worker, _ = _worker(url, counted)
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


def _worker(url: str, handler: Handler) -> tuple[Any, Any]:
    async def order(job: Job) -> None:
        handler(job["number"], job["due"])

    worker = Worker(url, concurrency=CONCURRENCY, handle_signals=False)
    return worker, worker.task(name="order", max_tries=ATTEMPTS, silent=True, ttl=0)(order)


if __name__ == "__main__":
    serve(Contestant(("streaq", "coredis"), producer, work, calls=4))
