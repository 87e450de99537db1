"""taskiq with taskiq-redis' stream broker.

With orjson, and without parsing parameters by their annotations (`--no-parse`), it is fastest here. The worker is
taskiq's own receiver, in a process a core (its default is two, which do 1.6 times what one does); it acknowledges
after the task, and reads streams from their start, so that waiting jobs count. Settled entries stay in the stream:
taskiq deletes none. It has no call for several jobs; 8 callers, each of which adds its 50 one after the other, are
faster than all of them at once. A stream knows no delay, so what is to be tried again goes into a schedule;
taskiq's scheduler looks for what is due once a second, and cannot do so more often.
"""

import asyncio
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta

import uvloop
from redis.asyncio import Redis
from taskiq import SmartRetryMiddleware, TaskiqScheduler
from taskiq.api import run_scheduler_task
from taskiq.receiver import Receiver
from taskiq.serializers import ORJSONSerializer
from taskiq_redis import ListRedisScheduleSource, RedisStreamBroker

from benchmarks.peers.forking import THREADS, Settled, settle
from benchmarks.peers.serving import (
    ATTEMPTS,
    BACKOFF,
    CONCURRENCY,
    Add,
    Contestant,
    Handler,
    Job,
    parts,
    serve,
)

QUEUE = "taskiq"
EVERY_LOOK = timedelta()


@asynccontextmanager
async def producer(url: str) -> AsyncIterator[Add]:
    broker, _ = _broker(url)
    order = broker.register_task(_nothing, "order", retry_on_error=True)
    await broker.startup()

    async def add(jobs: list[Job]) -> None:
        for job in jobs:
            await order.kiq(job)

    yield add
    await broker.shutdown()


async def work(url: str, jobs: int, handler: Handler) -> float:
    return await _until_settled(url, jobs, handler)


async def fan_out(url: str, jobs: int, children: int) -> float:
    return await _until_settled(url, jobs * (1 + children), lambda *_: None, children)


async def _until_settled(url: str, jobs: int, handler: Handler, children: int = 0) -> float:
    broker, schedule = _broker(url)
    await broker.startup()
    acknowledged = await _acknowledged(url) + jobs
    scheduling = asyncio.create_task(run_scheduler_task(TaskiqScheduler(broker, [schedule]), interval=EVERY_LOOK))

    async def taken_out() -> None:
        """What was sent again is, too."""
        while await _acknowledged(url) < acknowledged or await schedule.get_schedules():
            await asyncio.sleep(0.001)

    took = await settle(jobs, lambda settled: uvloop.run(_work(url, handler, children, settled)), after=taken_out)
    scheduling.cancel()
    await asyncio.gather(scheduling, return_exceptions=True)
    await broker.shutdown()
    await schedule.shutdown()
    return took


async def _work(url: str, handler: Handler, children: int, settled: Settled) -> None:
    """A process of the worker's."""
    broker, schedule = _broker(url)

    async def part(_: Job) -> None:
        settled()

    add_part = broker.register_task(part, "part", retry_on_error=True)

    async def order(job: Job) -> None:
        handler(job["number"], job["due"])
        if children:
            await asyncio.gather(*(add_part.kiq(part) for part in parts(job, children)))
        settled()

    broker.register_task(order, "order", retry_on_error=True)
    finish = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, finish.set)
    await broker.startup()
    await Receiver(broker, max_async_tasks=THREADS, validate_params=False, run_startup=False).listen(finish)
    await broker.shutdown()
    await schedule.shutdown()


def _broker(url: str) -> tuple[RedisStreamBroker, ListRedisScheduleSource]:
    schedule = ListRedisScheduleSource(url, max_connection_pool_size=2 * CONCURRENCY)
    retry = SmartRetryMiddleware(
        default_retry_count=ATTEMPTS, default_delay=BACKOFF, use_delay_exponent=True, schedule_source=schedule
    )
    broker = RedisStreamBroker(url, consumer_id="0", max_connection_pool_size=2 * CONCURRENCY)
    return broker.with_serializer(ORJSONSerializer()).with_middlewares(retry), schedule


async def _nothing(_: Job) -> None:
    """Stands for the task where jobs are added only."""


async def _acknowledged(url: str) -> int:
    """How many so far: entries stay where they are."""
    async with Redis.from_url(url) as client:
        groups = await client.xinfo_groups(QUEUE) if await client.exists(QUEUE) else []
        return sum((group["entries-read"] or 0) - group["pending"] for group in groups)


if __name__ == "__main__":
    serve(Contestant(("taskiq", "taskiq-redis", "redis"), producer, work, calls=8, fan_out=fan_out))
