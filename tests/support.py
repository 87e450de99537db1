"""What several test rooms use: waiting with a deadline, and a small pipeline to run."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import msgspec

from pipeline import Broker, Job, JobId, Pipeline, RetryPolicy, Stage, Worker
from pipeline.stage import Handler
from pipeline.views import JobView

DEADLINE = 20.0

Connect = Callable[[], Broker]


class Number(msgspec.Struct):
    """The payload of most test stages."""

    n: int


async def eventually(
    condition: Callable[[], Awaitable[Any]], *, deadline: float = DEADLINE, what: str = "it"
) -> Any:
    """The first true answer of `condition`, asked again every 10 ms. Fails after `deadline` seconds."""
    end = time.monotonic() + deadline
    while True:
        answer = await condition()
        if answer:
            return answer
        if time.monotonic() > end:
            raise AssertionError(f"{what} did not happen within {deadline:g} s; last answer: {answer!r}")
        await asyncio.sleep(0.01)


def stage(name: str, handler: Handler, **options: Any) -> Stage:
    """A stage of queue `test` that keeps results, with short retries."""
    defaults: dict[str, Any] = {"keep_results": 60.0, "retry": RetryPolicy(attempts=3, base=0.05)}
    return Stage(queue="test", name=name, payload=Number, handler=handler, **defaults | options)


async def unused(*_: object) -> None:
    """A handler for stages that no worker of the test runs."""
    raise AssertionError("this stage was not to run")


def jobs(name: str, count: int) -> list[Job]:
    """Jobs 0…count-1 for a stage."""
    return [Job(stage=name, payload=Number(n)) for n in range(count)]


async def add_one(broker: Broker, job: Job) -> JobId:
    """Add a job that is expected to be accepted."""
    (added,) = await broker.add([job])
    assert added.id
    return added.id


async def state(broker: Broker, job: JobId) -> str:
    """A job's state, or 'unknown'."""
    view = await broker.look(job)
    return view.state if view else "unknown"


async def until(broker: Broker, job: JobId, wanted: str, *, deadline: float = DEADLINE) -> JobView:
    """Wait for a job to reach a state; returns it as it then looks."""

    async def reached() -> JobView | None:
        view = await broker.look(job)
        return view if view and view.state == wanted else None

    view: JobView = await eventually(reached, deadline=deadline, what=f"{job} becoming {wanted}")
    return view


async def depths(broker: Broker, name: str) -> tuple[int, int, int, int]:
    """(waiting, active, retrying, dead) of a stage."""
    (found,) = [status for status in await broker.status() if status.stage == name]
    return found.waiting, found.active, found.retrying, found.dead


@asynccontextmanager
async def working(connect: Connect, pipeline: Pipeline, **options: Any) -> AsyncIterator[Worker]:
    """A worker on all stages while it lasts; fails if it had to cut jobs off."""
    worker = Worker(connect, list(pipeline), **{"lease": 2.0, "grace": 5.0} | options)
    stop = asyncio.Event()
    running = asyncio.create_task(worker.run(stop))
    try:
        yield worker
    finally:
        stop.set()
        assert await running == 0
