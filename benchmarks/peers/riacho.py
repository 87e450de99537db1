"""Riacho as a contestant: a full-featured envelope (tenant, ordering key, retry policy, time), results off."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
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
from pipeline import Broker, Context, Done, Job, Pipeline, RetryPolicy, Stage, Worker
from pipeline.stage import Handler as StageHandler

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
    return await _until_settled(url, handler, jobs)


async def fan_out(url: str, jobs: int, children: int) -> float:
    """Parts are handed on in the step that settles their order."""
    return await _until_settled(url, lambda *_: None, jobs * (1 + children), children)


async def _until_settled(url: str, handler: Handler, jobs: int, children: int = 0) -> float:
    countdown = Countdown(jobs)
    pipeline = stages(handler, children, countdown.one)
    worker, stop = Worker(lambda: Broker(url, pipeline), list(pipeline)), asyncio.Event()
    started = time.perf_counter()
    running = asyncio.create_task(worker.run(stop))
    await countdown.wait()
    while worker.settler.counts["settled"] < jobs:
        await asyncio.sleep(0.001)
    took = time.perf_counter() - started
    stop.set()
    await running
    return took


def stages(handler: Handler, children: int = 0, handled: Callable[[], None] = lambda: None) -> Pipeline:
    async def order(_: Context, payload: Order) -> Done | None:
        handler(payload.number, payload.due)
        handled()
        return Done(forward=_parts(payload, children)) if children else None

    async def part(_: Context, __: Order) -> None:
        handled()

    return Pipeline([_stage("order", order), *([_stage("part", part)] if children else [])])


def _stage(name: str, handler: StageHandler) -> Stage:
    return Stage(
        queue="bench",
        name=name,
        payload=Order,
        handler=handler,
        concurrency=CONCURRENCY,
        prefetch=900,
        high_water=100_000_000,
    )


def _parts(of: Order, count: int) -> tuple[Job, ...]:
    return tuple(_job(of.number * count + part, 0.0, "part") for part in range(count))


def _job(number: int, due: float, stage: str = "order") -> Job:
    order = Order(number, TEXT, due)
    return Job(stage=stage, payload=order, tenant="shop", key=f"chat-{number % 1000}", retry=RETRY)


if __name__ == "__main__":
    serve(Contestant(("redis", "msgspec"), producer, work, calls=32, job=_job, fan_out=fan_out))
