"""RQ: a list, and a hash for each job.

A worker runs one job at a time, so there are two a core whatever the concurrency: one works while the other waits
for the server, and more do no more. They are its `SimpleWorker`, which runs jobs in its own process: the default,
a fork for each job, does a fifth. Beside them runs RQ's scheduler, which looks once a second for what is due.
"""

import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from redis import Redis
from rq import Queue, Retry, SimpleWorker

from benchmarks.peers.forking import CORES, Settled, settle
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

HERE = "benchmarks.peers.rq"  # where workers look for the functions of jobs
RETRY = Retry(ATTEMPTS - 1, [BACKOFF * 2**again for again in range(ATTEMPTS - 1)])


class Orders:
    """What `order` does in this process."""

    handle: Callable[[Job], None]


def order(job: Job) -> None:
    Orders.handle(job)


def part(_: Job) -> None:
    pass


class Settling(SimpleWorker):  # type: ignore[misc] # its library is not here
    settled: Settled

    def perform_job(self, *arguments: Any) -> bool:
        through: bool = super().perform_job(*arguments)
        if through:
            self.settled()
        return through


@asynccontextmanager
async def producer(url: str) -> AsyncIterator[Add]:
    with Redis.from_url(url) as client:
        queue = Queue("order", connection=client)

        async def add(jobs: list[Job]) -> None:
            _add(queue, jobs)

        yield add


async def work(url: str, jobs: int, handler: Handler) -> float:
    def handle(job: Job) -> None:
        handler(job["number"], job["due"])

    return await _settle(url, jobs, handle, ["order"])


async def fan_out(url: str, jobs: int, children: int) -> float:
    queue = Queue("part", connection=Redis.from_url(url))

    def hand_out(job: Job) -> None:
        _add(queue, parts(job, children))

    return await _settle(url, jobs * (1 + children), hand_out, ["order", "part"])


async def _settle(url: str, jobs: int, handle: Callable[[Job], None], queues: list[str]) -> float:
    def worker(settled: Settled) -> None:
        Orders.handle = handle
        worker = Settling(queues, connection=Redis.from_url(url))
        worker.settled = settled
        worker.work(with_scheduler=True, logging_level="CRITICAL")

    return await settle(jobs, worker, min(CONCURRENCY, 2 * CORES))


def _add(queue: Queue, jobs: list[Job]) -> None:
    """Each to the function that is named as its queue."""
    function = f"{HERE}.{queue.name}"
    if len(jobs) == 1:
        queue.enqueue(function, jobs[0], result_ttl=0, retry=RETRY)
    else:
        queue.enqueue_many([Queue.prepare_data(function, (job,), result_ttl=0, retry=RETRY) for job in jobs])


if __name__ == "__main__":
    sys.modules[HERE] = sys.modules["__main__"]  # or workers would import it once more
    serve(Contestant(("rq", "redis"), producer, work, calls=1, fan_out=fan_out))
