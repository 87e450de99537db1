"""SAQ: lists, with a key of its own for each job.

Information on finished jobs is not kept (`ttl=-1`). With orjson it is a twentieth faster; its defaults for time
limits and for calls under way were as fast as any other tried. It has no call for several jobs, so 50 go out at
once. It looks for what is to be tried again once a second, and cannot do so more often; how much of the backoff it
waits is left to chance.
"""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import orjson
from redis.asyncio import Redis
from saq import Job as Task
from saq import Status, Worker
from saq.queue.redis import RedisQueue

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

OPTIONS = {"retries": ATTEMPTS, "retry_delay": BACKOFF, "retry_backoff": True, "ttl": -1}


@asynccontextmanager
async def producer(url: str) -> AsyncIterator[Add]:
    queue = _queue(url)

    async def add(jobs: list[Job]) -> None:
        await _enqueue(queue, "order", jobs)

    yield add
    await queue.disconnect()


async def work(url: str, jobs: int, handler: Handler) -> float:
    return await _until_settled(url, handler, jobs)


async def fan_out(url: str, jobs: int, children: int) -> float:
    return await _until_settled(url, lambda *_: None, jobs * (1 + children), children)


async def _until_settled(url: str, handler: Handler, jobs: int, children: int = 0) -> float:
    countdown, queue = Countdown(jobs), _queue(url)

    async def order(_: object, *, job: Job) -> None:
        handler(job["number"], job["due"])
        if children:
            await _enqueue(queue, "part", parts(job, children))

    async def part(_: object, *, job: Job) -> None:
        pass

    async def settled(context: dict[str, Any]) -> None:
        if context["job"].status is Status.COMPLETE:
            countdown.one()

    # Before anything is fetched: else a worker's first sweep takes what was fetched just then for stuck.
    await queue.sweep()
    started = time.perf_counter()
    kinds = [("order", order), ("part", part)]
    worker = Worker(queue, kinds, concurrency=CONCURRENCY, after_process=settled)
    worker.SIGNALS = []  # they are ours
    running = asyncio.create_task(worker.start())
    await countdown.wait()
    took = time.perf_counter() - started
    worker.event.set()
    await running
    await queue.disconnect()
    return took


def _queue(url: str) -> RedisQueue:
    return RedisQueue(Redis.from_url(url), dump=orjson.dumps, load=orjson.loads)


async def _enqueue(queue: RedisQueue, kind: str, jobs: list[Job]) -> None:
    await asyncio.gather(*(queue.enqueue(Task(kind, {"job": job}, **OPTIONS)) for job in jobs))


if __name__ == "__main__":
    serve(Contestant(("saq", "redis"), producer, work, calls=4, fan_out=fan_out))
