"""The engine alone: adding, consuming, latency at half load, and what a waiting job weighs.

A full-featured envelope (tenant, ordering key, retry policy, time), results off, AOF everysec on, all in one
process on the embedded Valkey's Unix socket.
"""

import asyncio
import multiprocessing
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import msgspec
import uvloop
from redis import Redis

from benchmarks.report import Report
from pipeline import Broker, Context, Job, Pipeline, RetryPolicy, Stage, Worker
from pipeline.embedded import EmbeddedServer

CONCURRENCY = 100
CAVEATS = [
    "One Python process for producer and worker each; the server has a core of its own at best.",
    "The handler does nothing, so this is the engine's own cost and no more.",
]


class Order(msgspec.Struct):
    """A small chat-sized payload. `due` is on the clock that all processes of a machine share, in seconds."""

    number: int
    text: str
    due: float


class Handled:
    """A no-op handler that counts, and knows when it has counted enough."""

    def __init__(self) -> None:
        self.enough = asyncio.Event()
        self.latencies: list[float] = []
        self._missing = 0

    def expect(self, count: int) -> None:
        self._missing = count
        self.enough.clear()

    async def __call__(self, ctx: Context, payload: Order) -> None:
        self._missing -= 1
        if not self._missing:
            self.enough.set()


class Timed(Handled):
    """Keeps how long each job took from being due to its handler, in ms."""

    async def __call__(self, ctx: Context, payload: Order) -> None:
        self.latencies.append((time.perf_counter() - payload.due) * 1000)
        await super().__call__(ctx, payload)


def measure(*, jobs: int, rounds: int) -> Report:
    """Medians of several rounds, each on an empty server."""
    with tempfile.TemporaryDirectory() as folder, EmbeddedServer(Path(folder)) as server:
        weight = uvloop.run(_bytes_per_job(server.url, 20_000))
        single = uvloop.run(_rounds(rounds, lambda: _add(server.url, jobs // 10, 1)))
        bulk = uvloop.run(_rounds(rounds, lambda: _add(server.url, jobs, 50)))
        consume = uvloop.run(_rounds(rounds, lambda: _consume(server.url, jobs)))
        latency = uvloop.run(_latency(server.url, statistics.median(consume) / 2))
    figures = {
        "add_single_per_second": statistics.median(single),
        "add_bulk_per_second": statistics.median(bulk),
        "consume_per_second": statistics.median(consume),
        "p50_ms_at_half_load": statistics.median(latency),
        "p99_ms_at_half_load": statistics.quantiles(latency, n=100)[98],
        "bytes_per_waiting_job": weight,
    }
    knobs: dict[str, float | str] = {"jobs": jobs, "rounds": rounds, "bulk": 50, "concurrency": CONCURRENCY}
    return Report("engine", knobs, figures, CAVEATS)


async def _rounds(count: int, one: Callable[[], Awaitable[float]]) -> list[float]:
    return [await one() for _ in range(count)]


def _pipeline(handler: Handled) -> Pipeline:
    stage = Stage(
        queue="bench",
        name="order",
        payload=Order,
        handler=handler,
        concurrency=CONCURRENCY,
        prefetch=400,
        high_water=100_000_000,
    )
    return Pipeline([stage])


def _job(number: int, due: float = 0.0) -> Job:
    return Job(
        stage="order",
        payload=Order(number, "two large pizzas for tonight", due),
        tenant="shop",
        key=f"chat-{number % 1000}",
        retry=RetryPolicy(attempts=4, base=2.0),
    )


async def _add(url: str, jobs: int, bulk: int) -> float:
    """Jobs added a second, `bulk` a call, 32 calls at a time."""
    with Redis.from_url(url) as client:
        client.flushall()
    async with Broker(url, _pipeline(Handled())) as broker:
        await broker.ensure_groups()
        calls = iter(range(jobs // bulk))

        async def producer() -> None:
            for call in calls:
                await broker.add([_job(call * bulk + number) for number in range(bulk)])

        started = time.perf_counter()
        await asyncio.gather(*(producer() for _ in range(32)))
        return jobs / (time.perf_counter() - started)


async def _consume(url: str, jobs: int) -> float:
    """Waiting jobs consumed a second, from the first fetch to the last settle."""
    await _add(url, jobs, 50)
    handled = Handled()
    handled.expect(jobs)
    pipeline = _pipeline(handled)
    worker, stop = Worker(lambda: Broker(url, pipeline), list(pipeline)), asyncio.Event()
    started = time.perf_counter()
    running = asyncio.create_task(worker.run(stop))
    await handled.enough.wait()
    while worker.settler.counts["settled"] < jobs:
        await asyncio.sleep(0.001)
    took = time.perf_counter() - started
    stop.set()
    await running
    return jobs / took


async def _latency(url: str, rate: float, seconds: float = 5) -> list[float]:
    """Enqueue to handler in ms, open loop at `rate` jobs a second, from a producer in a process of its own."""
    with Redis.from_url(url) as client:
        client.flushall()
    timed = Timed()
    timed.expect(int(rate * seconds))
    pipeline, stop = _pipeline(timed), asyncio.Event()
    running = asyncio.create_task(Worker(lambda: Broker(url, pipeline), list(pipeline)).run(stop))
    producer = multiprocessing.get_context("spawn").Process(target=_produce, args=(url, rate, seconds))
    producer.start()
    await timed.enough.wait()
    producer.join()
    stop.set()
    await running
    return timed.latencies


def _produce(url: str, rate: float, seconds: float) -> None:
    uvloop.run(_produce_on_time(url, rate, int(rate * seconds)))


async def _produce_on_time(url: str, rate: float, total: int) -> None:
    """Add each job when it is due, in ticks of a millisecond; a call that takes long holds up no other."""
    async with Broker(url, _pipeline(Handled())) as broker, asyncio.TaskGroup() as adding:
        started, sent = time.perf_counter(), 0
        while sent < total:
            now = min(total, int((time.perf_counter() - started) * rate))
            if now > sent:
                batch = [_job(number, started + number / rate) for number in range(sent, now)]
                adding.create_task(broker.add(batch))
                sent = now
            await asyncio.sleep(0.001)


async def _bytes_per_job(url: str, jobs: int) -> float:
    with Redis.from_url(url) as client:
        client.flushall()
        before = int(client.info("memory")["used_memory_dataset"])
        await _add(url, jobs, 50)
        return (int(client.info("memory")["used_memory_dataset"]) - before) / jobs
