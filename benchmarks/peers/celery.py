"""Celery on kombu's Redis transport: a list, and a hash of what is with a worker.

A worker a core, each with as many threads as make up the concurrency. Its default, one worker with a process a
core, does two thirds of that on these jobs, as all messages pass through its parent; gevent does as much as
threads, and `solo` a third more, but one job at a time. Tasks are acknowledged after they ran, so that none is
lost with its worker. Several are added in one step by kombu's `Producer.batch`.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from celery import Celery
from celery.worker.request import Request

from benchmarks.peers.forking import THREADS, Settled, settle
from benchmarks.peers.serving import (
    ATTEMPTS,
    BACKOFF,
    Add,
    Contestant,
    Failure,
    Handler,
    Job,
    parts,
    serve,
)

SETTINGS = {
    "task_default_queue": "order",
    "task_ignore_result": True,
    "task_acks_late": True,
    "worker_enable_remote_control": False,
    "worker_hijack_root_logger": False,
    "worker_redirect_stdouts": False,
}
# Nobody listens to what it would tell other workers.
ALONE = {"without_gossip": True, "without_mingle": True, "without_heartbeat": True}


@asynccontextmanager
async def producer(url: str) -> AsyncIterator[Add]:
    app, order = _app(url, lambda *_: None)

    async def add(jobs: list[Job]) -> None:
        _send(app, order, jobs)

    yield add
    app.close()


async def work(url: str, jobs: int, handler: Handler) -> float:
    return await settle(jobs, lambda settled: _consume(url, handler, 0, settled))


async def fan_out(url: str, jobs: int, children: int) -> float:
    return await settle(jobs * (1 + children), lambda settled: _consume(url, lambda *_: None, children, settled))


def _consume(url: str, handler: Handler, children: int, settled: Settled) -> None:
    """Until SIGTERM."""
    app, _ = _app(url, handler, children, settled)
    app.Worker(pool="threads", concurrency=THREADS, queues=["order", "part"], quiet=True, **ALONE).start()


def _app(url: str, handler: Handler, children: int = 0, settled: Settled = lambda: None) -> tuple[Celery, Any]:
    """With the task that adds jobs."""
    app = Celery(broker=url.replace("unix", "redis+socket", 1), set_as_current=False)
    app.conf.update(SETTINGS)
    through: set[str] = set()

    class Settling(Request):  # type: ignore[misc] # its library is not here
        """Tells of a task that came through once it is acknowledged, as are failed tries."""

        def acknowledge(self) -> None:
            super().acknowledge()
            if self.id in through:
                through.remove(self.id)
                settled()

    def part(self: Any, _: Job) -> None:
        through.add(self.request.id)

    def order(self: Any, job: Job) -> None:
        try:
            handler(job["number"], job["due"])
        except Failure as error:
            raise self.retry(exc=error, countdown=BACKOFF * 2**self.request.retries) from error
        if children:
            _send(app, part_task, parts(job, children))
        through.add(self.request.id)

    options = {"bind": True, "shared": False, "Request": Settling, "max_retries": ATTEMPTS - 1}
    part_task = app.task(name="part", queue="part", **options)(part)
    return app, app.task(name="order", **options)(order)


def _send(app: Celery, task: Any, jobs: list[Job]) -> None:
    if len(jobs) == 1:
        task.apply_async((jobs[0],))
        return
    with app.producer_or_acquire() as producer, producer.batch():
        for job in jobs:
            task.apply_async((job,), producer=producer)


if __name__ == "__main__":
    serve(Contestant(("celery", "kombu", "redis"), producer, work, calls=1, fan_out=fan_out))
