"""ChasquiMQ: an engine in Rust on Redis streams, by its Python binding.

It needs a server that knows what is new in Redis 8.6, and speaks no Unix sockets: it alone talks over loopback, on
which the server is asked to listen, too.

Its Producer adds many jobs that share their options in one call, where `Queue.add_bulk` makes a call for each. No
events are written, and no schedules looked for. What is to be tried again is looked for ten times a second.
"""

import asyncio
import socket
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import msgpack
from chasquimq import BackoffSpec, Producer, Worker
from redis import Redis
from redis.exceptions import ResponseError

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
    say,
    serve,
)

MOST = 100_000_000  # waiting jobs; of more than its default, a million, it throws the oldest away
BACKING_OFF = BackoffSpec.exponential(int(BACKOFF * 1000), jitter_ms=0).to_dict()
OPTIONS = {"retry": {"max_attempts": ATTEMPTS, "backoff": BACKING_OFF}}
HOST = "127.0.0.1"


@asynccontextmanager
async def producer(url: str) -> AsyncIterator[Add]:
    orders = _producer(_address(url), "order")

    async def add(jobs: list[Job]) -> None:
        await _add(orders, jobs)

    yield add


async def work(url: str, jobs: int, handler: Handler) -> float:
    countdown = Countdown(jobs)

    async def order(job: Any) -> None:
        handler(job.data["number"], job.data["due"])
        countdown.one()

    return await _until_settled(url, jobs, countdown, order=order)


async def fan_out(url: str, jobs: int, children: int) -> float:
    adding, all_of_them = _producer(_address(url), "part"), jobs * (1 + children)
    countdown = Countdown(all_of_them)

    async def order(job: Any) -> None:
        await _add(adding, parts(job.data, children))
        countdown.one()

    async def part(_: Any) -> None:
        countdown.one()

    return await _until_settled(url, all_of_them, countdown, order=order, part=part)


async def _until_settled(url: str, jobs: int, countdown: Countdown, **queues: Any) -> float:
    address = _address(url)
    streams = [f"{{chasqui:{queue}}}:stream" for queue in queues]
    options = {
        "concurrency": CONCURRENCY,
        "max_attempts": ATTEMPTS,
        "events_enabled": False,
        "run_scheduler": False,
    }
    with Redis.from_url(url) as client:
        left = max(0, _entries(client, streams) - jobs)
    started = time.perf_counter()
    workers = [Worker(queue, take, redis_url=address, **options) for queue, take in queues.items()]
    running = [asyncio.create_task(worker.run()) for worker in workers]
    with Redis.from_url(url) as client:
        await countdown.wait()
        while _entries(client, streams) > left:  # what is settled is deleted, many at a time
            await asyncio.sleep(0.001)
        took = time.perf_counter() - started
        for worker in workers:
            await worker.close()
        await asyncio.gather(*running)
        if not left:  # a closed worker leaves a read behind, which would take what comes next; now it ends
            client.delete(*streams)
    return took


def _entries(client: Redis, streams: list[str]) -> int:
    return sum(client.xlen(stream) for stream in streams)


def _producer(address: str, queue: str) -> Producer:
    return Producer(address, queue, max_stream_len=MOST)


async def _add(queue: Producer, jobs: list[Job]) -> None:
    await queue.add_bulk_with_options([msgpack.packb(job) for job in jobs], OPTIONS)


def _address(url: str) -> str:
    """Where the server listens on loopback, from now on."""
    with Redis.from_url(url) as client:
        port = int(client.config_get("port")["port"])
        if not port:
            with socket.create_server((HOST, 0)) as free:
                port = free.getsockname()[1]
            client.config_set("bind", HOST)
            client.config_set("port", port)
    return f"redis://{HOST}:{port}"


def lacking(url: str) -> str:
    """What the server lacks, in its own words; nothing is written. Empty: it is new enough."""
    with Redis.from_url(url) as client:
        try:
            client.execute_command("XADD", "chasqui", "NOMKSTREAM", "IDMP", "producer", "1", "*", "field", "value")
        except ResponseError as error:
            server = client.info("server")
            name = server.get("server_name", "redis")
            number = server.get(f"{name}_version")
            return f"it needs XADD with IDMP (Redis 8.6), to which {name} {number} answers: {error}"
    return ""


if __name__ == "__main__":
    if why := lacking(sys.argv[1]):
        say({"cannot": why})
    else:
        serve(Contestant(("chasquimq", "msgpack"), producer, work, calls=8, fan_out=fan_out))
