"""BullMQ for Python: the Lua scripts of BullMQ for Node, on redis-py.

The worker is given a client with a pool: with a URL it makes one that has a single connection, on which its 100
jobs wait for each other (half as fast). Adding with `addBulk` is fastest on a single connection, as it makes one.
"""

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from bullmq import Queue, Worker
from redis.asyncio import Redis

from benchmarks.peers.serving import (
    ATTEMPTS,
    BACKOFF,
    CONCURRENCY,
    Add,
    Contestant,
    Countdown,
    Handler,
    Job,
    serve,
)

OPTIONS = {"attempts": ATTEMPTS, "backoff": {"type": "exponential", "delay": int(BACKOFF * 1000)}}


@asynccontextmanager
async def producer(url: str) -> AsyncIterator[Add]:
    queue = Queue("order", {"connection": url})

    async def add(jobs: list[Job]) -> None:
        if len(jobs) == 1:
            await queue.add("order", jobs[0], OPTIONS)
        else:
            await queue.addBulk([{"name": "order", "data": job, "opts": OPTIONS} for job in jobs])

    yield add
    await queue.close()


async def work(url: str, jobs: int, handler: Handler) -> float:
    countdown = Countdown(jobs)

    async def order(job: Any, _: str) -> None:
        handler(job.data["number"], job.data["due"])

    # Without redis-py's own time-out of 5 s: it cuts off blocking reads, which the worker then retries 15 s later.
    client = Redis.from_url(url, decode_responses=True, max_connections=2 * CONCURRENCY, socket_timeout=None)
    options = {"connection": client, "concurrency": CONCURRENCY, "removeOnComplete": True}
    started = time.perf_counter()
    worker = Worker("order", order, options)
    worker.on("completed", countdown.one)  # said once it is settled
    await countdown.wait()
    took = time.perf_counter() - started
    await worker.close()
    await client.aclose()
    return took


if __name__ == "__main__":
    serve(Contestant(("bullmq", "redis"), producer, work, calls=8))
