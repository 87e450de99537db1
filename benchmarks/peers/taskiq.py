"""taskiq with taskiq-redis' stream broker.

With orjson, and without parsing parameters by their annotations (`--no-parse`), it is fastest here. The worker is
taskiq's own receiver; it acknowledges after the task, and reads streams from their start, so that waiting jobs
count. Settled entries stay in the stream: taskiq deletes none. It has no call for several jobs, so 50 go out at
once.
"""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from redis.asyncio import Redis
from taskiq import SmartRetryMiddleware
from taskiq.receiver import Receiver
from taskiq.serializers import ORJSONSerializer
from taskiq_redis import RedisStreamBroker

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

QUEUE = "taskiq"


@asynccontextmanager
async def producer(url: str) -> AsyncIterator[Add]:
    broker = _broker(url)
    order = broker.register_task(_nothing, "order", retry_on_error=True)
    await broker.startup()

    async def add(jobs: list[Job]) -> None:
        await asyncio.gather(*(order.kiq(job) for job in jobs))

    yield add
    await broker.shutdown()


async def work(url: str, jobs: int, handler: Handler) -> float:
    countdown = Countdown(jobs)

    async def order(job: Job) -> None:
        handler(job["number"], job["due"])
        countdown.one()

    broker = _broker(url)
    broker.register_task(order, "order", retry_on_error=True)
    acknowledged = await _acknowledged(url)
    started = time.perf_counter()
    await broker.startup()
    receiver = Receiver(broker, max_async_tasks=CONCURRENCY, validate_params=False, run_startup=False)
    finish = asyncio.Event()
    running = asyncio.create_task(receiver.listen(finish))
    await countdown.wait()
    while await _acknowledged(url) < acknowledged + jobs:
        await asyncio.sleep(0.001)
    took = time.perf_counter() - started
    finish.set()  # where it is cancelled, `run_receiver_task` now and then starts again
    await asyncio.gather(running, return_exceptions=True)
    await broker.shutdown()
    return took


def _broker(url: str) -> RedisStreamBroker:
    retry = SmartRetryMiddleware(default_retry_count=ATTEMPTS, default_delay=BACKOFF, use_delay_exponent=True)
    broker = RedisStreamBroker(url, consumer_id="0", max_connection_pool_size=2 * CONCURRENCY)
    return broker.with_serializer(ORJSONSerializer()).with_middlewares(retry)


async def _nothing(_: Job) -> None:
    """Stands for the task where jobs are added only."""


async def _acknowledged(url: str) -> int:
    """How many so far: entries stay where they are."""
    async with Redis.from_url(url) as client:
        groups = await client.xinfo_groups(QUEUE) if await client.exists(QUEUE) else []
        return sum((group["entries-read"] or 0) - group["pending"] for group in groups)


if __name__ == "__main__":
    serve(Contestant(("taskiq", "taskiq-redis", "redis"), producer, work, calls=8))
