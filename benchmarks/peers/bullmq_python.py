"""BullMQ for Python: the Lua scripts of BullMQ for Node, on redis-py.

It is given a client with a pool: with a URL it makes one that has a single connection, on which calls wait for
each other (a worker is half as fast, adding two fifths to three quarters). It waits whole seconds for what is to
be tried again.
"""

import time
from collections.abc import AsyncIterator, Awaitable, Callable
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
    parts,
    serve,
)

OPTIONS = {"attempts": ATTEMPTS, "backoff": {"type": "exponential", "delay": int(BACKOFF * 1000)}}


@asynccontextmanager
async def producer(url: str) -> AsyncIterator[Add]:
    client = _pool(url)
    queue = Queue("order", {"connection": client})

    async def add(jobs: list[Job]) -> None:
        if len(jobs) == 1:
            await queue.add("order", jobs[0], OPTIONS)
        else:
            await queue.addBulk(_bulk("order", jobs))

    yield add
    await queue.close()
    await client.aclose()


async def work(url: str, jobs: int, handler: Handler) -> float:
    async def order(job: Any, _: str) -> None:
        handler(job.data["number"], job.data["due"])

    return await _until_settled(url, jobs, order=order)


async def fan_out(url: str, jobs: int, children: int) -> float:
    client = _pool(url)
    queue = Queue("part", {"connection": client})

    async def order(job: Any, _: str) -> None:
        await queue.addBulk(_bulk("part", parts(job.data, children)))

    async def part(_job: Any, _: str) -> None:
        pass

    took = await _until_settled(url, jobs * (1 + children), order=order, part=part)
    await queue.close()
    await client.aclose()
    return took


async def _until_settled(url: str, jobs: int, **queues: Callable[[Any, str], Awaitable[None]]) -> float:
    countdown = Countdown(jobs)
    client = _pool(url)
    options = {"connection": client, "concurrency": CONCURRENCY, "removeOnComplete": True}
    started = time.perf_counter()
    workers = [Worker(queue, processor, options) for queue, processor in queues.items()]
    for worker in workers:
        worker.on("completed", countdown.one)  # said once it is settled
    await countdown.wait()
    took = time.perf_counter() - started
    for worker in workers:
        await worker.close()
    await client.aclose()
    return took


def _pool(url: str) -> Redis:
    # Without redis-py's own time-out of 5 s: it cuts off blocking reads, which the worker then retries 15 s later.
    return Redis.from_url(url, decode_responses=True, max_connections=2 * CONCURRENCY, socket_timeout=None)


def _bulk(name: str, jobs: list[Job]) -> list[dict[str, Any]]:
    return [{"name": name, "data": job, "opts": OPTIONS} for job in jobs]


if __name__ == "__main__":
    serve(Contestant(("bullmq", "redis"), producer, work, calls=8, fan_out=fan_out))
