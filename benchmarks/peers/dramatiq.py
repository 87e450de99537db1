"""Dramatiq: a list and a hash, and a script for each step of a message.

As its own command does, it runs a process a core, here with as many threads as make up the concurrency. A process
fetches 1000 messages ahead: by default it is twice its threads, and it sleeps whenever it holds as many. When it
has nothing to do it sleeps for 100 ms at most (1 s by default, and that much later come retries). It has no call
for several jobs, and adds fastest one after the other. Its backoff is up to twice what it is told (jitter).
"""

import signal
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from dramatiq import Middleware, Worker, actor
from dramatiq.brokers.redis import RedisBroker

from benchmarks.peers.forking import THREADS, Settled, settle
from benchmarks.peers.serving import (
    ATTEMPTS,
    BACKOFF,
    Add,
    Contestant,
    Handler,
    Job,
    parts,
    serve,
)

PREFETCH = 1000
LONGEST_SLEEP = 100  # ms
OPTIONS = {"max_retries": ATTEMPTS - 1, "min_backoff": int(BACKOFF * 1000)}


class Settling(Middleware):  # type: ignore[misc] # its library is not here
    """Tells of a message that came through once it is acknowledged. Failed tries and delayed copies are, too, but
    have ids of their own in Redis."""

    def __init__(self, settled: Settled) -> None:
        self._through: set[str] = set()
        self._settled = settled

    def after_process_message(
        self, broker: object, message: Any, *, result: object = None, exception: BaseException | None = None
    ) -> None:
        if exception is None:
            self._through.add(message.options["redis_message_id"])

    def after_ack(self, broker: object, message: Any) -> None:
        if message.options["redis_message_id"] in self._through:
            self._settled()


@asynccontextmanager
async def producer(url: str) -> AsyncIterator[Add]:
    order = _order(RedisBroker(url=url), lambda *_: None)

    async def add(jobs: list[Job]) -> None:
        for job in jobs:
            order.send(job)

    yield add
    order.broker.client.close()


async def work(url: str, jobs: int, handler: Handler) -> float:
    return await settle(jobs, lambda settled: _consume(url, handler, 0, settled))


async def fan_out(url: str, jobs: int, children: int) -> float:
    return await settle(jobs * (1 + children), lambda settled: _consume(url, lambda *_: None, children, settled))


def _consume(url: str, handler: Handler, children: int, settled: Settled) -> None:
    """Until SIGTERM."""
    broker = RedisBroker(url=url)
    broker.add_middleware(Settling(settled))
    _order(broker, handler, children)
    worker = Worker(broker, worker_threads=THREADS, worker_timeout=LONGEST_SLEEP)
    worker.queue_prefetch = PREFETCH  # as does `dramatiq_queue_prefetch` in the environment
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    worker.start()
    stop.wait()
    worker.stop()


def _order(broker: RedisBroker, handler: Handler, children: int = 0) -> Any:
    """The actor that adds jobs, with the one for their parts."""

    part = actor(lambda _: None, actor_name="part", broker=broker, queue_name="part", **OPTIONS)

    def order(job: Job) -> None:
        handler(job["number"], job["due"])
        for child in parts(job, children):
            part.send(child)

    return actor(order, broker=broker, queue_name="order", **OPTIONS)


if __name__ == "__main__":
    serve(Contestant(("dramatiq", "redis"), producer, work, calls=1, fan_out=fan_out))
