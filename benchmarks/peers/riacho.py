"""Riacho as a contestant: a full-featured envelope (tenant, ordering key, retry policy, time), results off."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import msgspec

from benchmarks.peers.serving import (
    ATTEMPTS,
    BACKOFF,
    CONCURRENCY,
    TEXT,
    Add,
    Contestant,
    Countdown,
    Handler,
    serve,
)
from pipeline import Broker, Context, Job, Pipeline, RetryPolicy, Stage, Worker

RETRY = RetryPolicy(attempts=ATTEMPTS, base=BACKOFF)


class Order(msgspec.Struct):
    """A small chat-sized payload; `due` in seconds."""

    number: int
    text: str
    due: float


@asynccontextmanager
async def producer(url: str) -> AsyncIterator[Add]:
    async with Broker(url, stages(lambda *_: None)) as broker:
        await broker.ensure_groups()
        yield broker.add


async def work(url: str, jobs: int, handler: Handler) -> float:
    countdown = Countdown(jobs)

    def counted(number: int, due: float) -> None:
        handler(number, due)
        countdown.one()

    pipeline = stages(counted)
    worker, stop = Worker(lambda: Broker(url, pipeline), list(pipeline)), asyncio.Event()
    started = time.perf_counter()
    running = asyncio.create_task(worker.run(stop))
    await countdown.wait()  # nobody asks while nothing comes: what an idle worker takes is measured, too
    while worker.settler.counts["settled"] < jobs:
        await asyncio.sleep(0.001)
    took = time.perf_counter() - started
    stop.set()
    await running
    return took


def stages(handler: Handler) -> Pipeline:
    async def order(_: Context, payload: Order) -> None:
        handler(payload.number, payload.due)

    stage = Stage(
        queue="bench",
        name="order",
        payload=Order,
        handler=order,
        concurrency=CONCURRENCY,
        prefetch=900,
        high_water=100_000_000,
    )
    return Pipeline([stage])


def _job(number: int, due: float) -> Job:
    order = Order(number, TEXT, due)
    return Job(stage="order", payload=order, tenant="shop", key=f"chat-{number % 1000}", retry=RETRY)


if __name__ == "__main__":
    serve(Contestant(("redis", "msgspec"), producer, work, calls=32, job=_job))
