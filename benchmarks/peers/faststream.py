"""FastStream on Redis streams: a consumer group, whose messages are acknowledged one by one.

Without types to apply and without log lines it is fastest here; so is a pipeline for several jobs. The group is
made to read from the stream's start, so that waiting jobs count. Settled entries stay in the stream: FastStream
deletes none of itself.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager

from faststream.redis import RedisBroker, StreamSub
from redis.asyncio import Redis
from redis.exceptions import ResponseError

from benchmarks.peers.serving import CONCURRENCY, Add, Contestant, Countdown, Handler, Job, parts, serve

GROUP = "workers"
NO_RETRIES = (
    "it tries nothing again: what failed stays pending until a consumer claims what has been so for long, "
    "which is also what still runs"
)


@asynccontextmanager
async def producer(url: str) -> AsyncIterator[Add]:
    async with _broker(url) as broker:

        async def add(jobs: list[Job]) -> None:
            await _publish(broker, "order", jobs)

        yield add


async def work(url: str, jobs: int, handler: Handler) -> float:
    return await _until_settled(url, handler, jobs)


async def fan_out(url: str, jobs: int, children: int) -> float:
    return await _until_settled(url, lambda *_: None, jobs * (1 + children), children)


async def _until_settled(url: str, handler: Handler, jobs: int, children: int = 0) -> float:
    countdown, broker = Countdown(jobs), _broker(url)

    async def order(job: Job) -> None:
        handler(job["number"], job["due"])
        if children:
            await _publish(broker, "part", parts(job, children))
        countdown.one()

    async def part(_: Job) -> None:
        countdown.one()

    started = time.perf_counter()
    kinds = {"order": order, "part": part} if children else {"order": order}
    client = await broker.connect()
    for stream, take in kinds.items():
        await _make_group(client, stream)
        asked = StreamSub(stream, group=GROUP, consumer="worker", max_records=CONCURRENCY)
        broker.subscriber(stream=asked, max_workers=CONCURRENCY)(take)
    settled = await _acknowledged(client, kinds) + jobs
    await broker.start()
    await countdown.wait()
    while await _acknowledged(client, kinds) < settled:
        await asyncio.sleep(0.001)
    took = time.perf_counter() - started
    await broker.stop()
    return took


def _broker(url: str) -> RedisBroker:
    return RedisBroker(url, apply_types=False, logger=None)


async def _publish(broker: RedisBroker, stream: str, jobs: list[Job]) -> None:
    if len(jobs) == 1:
        await broker.publish(jobs[0], stream=stream)
        return
    async with (await broker.connect()).pipeline(transaction=False) as pipeline:
        for job in jobs:
            await broker.publish(job, stream=stream, pipeline=pipeline)
        await pipeline.execute()


async def _make_group(client: Redis, stream: str) -> None:
    """FastStream makes one that overlooks what waits already, or is read from its start at each start."""
    try:
        await client.xgroup_create(stream, GROUP, id="0", mkstream=True)
    except ResponseError as error:
        if "BUSYGROUP" not in str(error):
            raise


async def _acknowledged(client: Redis, streams: Iterable[str]) -> int:
    """How many so far: entries stay where they are."""
    groups = [group for stream in streams for group in await client.xinfo_groups(stream)]
    return sum((group["entries-read"] or 0) - group["pending"] for group in groups)


if __name__ == "__main__":
    serve(Contestant(("faststream", "redis"), producer, work, calls=4, fan_out=fan_out, retries=NO_RETRIES))
