"""What several test rooms use: waiting with a deadline, and a small pipeline to run."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any

import msgspec
from sqlalchemy import URL

from pipeline import Broker, Context, Job, JobId, Pipeline, RetryPolicy, Stage, Worker
from pipeline.message import Delivery, seal, unseal
from pipeline.stage import Handler
from pipeline.views import JobView, StageStatus
from stages.conversation.store import ConversationStore
from stages.store import Database

DEADLINE = 20.0

Connect = Callable[[], Broker]
Connector = Callable[..., Connect]
Write = Callable[[bytes], Awaitable[None]]


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
    defaults: dict[str, Any] = {"queue": "test", "keep_results": 60.0, "retry": RetryPolicy(attempts=3, base=0.05)}
    return Stage(name=name, payload=Number, handler=handler, **defaults | options)


class Noted:
    """A handler that notes the numbers it starts, and then waits while `finish` is not set."""

    def __init__(self, *, finish: bool = True) -> None:
        self.started: list[int] = []
        self.finish = asyncio.Event()
        if finish:
            self.finish.set()

    async def __call__(self, ctx: Context, payload: Number) -> int:
        self.started.append(payload.n)
        await self.finish.wait()
        return payload.n


async def _unreported(*_: object) -> bool:
    return True


def context_of(
    stage: str,
    payload: object,
    *,
    tenant: str = "shop",
    number: int = 1,
    attempt: int = 1,
    report: Any = _unreported,
    **more: Any,
) -> Context:
    """What a handler is told of a job, the `number`th of its stage; with `add` it can add others."""
    body = seal(Job(stage=stage, payload=payload, tenant=tenant))
    delivery = Delivery(stage, 0, b"%d-0" % number, body, attempt)
    return Context(delivery, unseal(body), report, *more.values())


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


async def add_all(broker: Broker, wanted: Sequence[Job]) -> list[JobId]:
    """Add jobs that are expected to be accepted."""
    ids = [added.id for added in await broker.add(wanted) if added.id]
    assert len(ids) == len(wanted)
    return ids


async def look(broker: Broker, job: JobId) -> JobView:
    """A job that is expected to be known."""
    view = await broker.look(job)
    assert view
    return view


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


async def reached(condition: Callable[[], object], *, what: str = "it") -> None:
    """Wait for something in this process to become true."""

    async def ask() -> object:
        return condition()

    await eventually(ask, what=what)


async def status(broker: Broker, name: str) -> StageStatus:
    """A stage's depths and switches."""
    (found,) = [status for status in await broker.status() if status.stage == name]
    return found


async def depths(broker: Broker, name: str) -> tuple[int, int, int, int]:
    """(waiting, active, retrying, dead) of a stage."""
    found = await status(broker, name)
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


@asynccontextmanager
async def conversations(url: str | URL) -> AsyncIterator[ConversationStore]:
    """The conversations of a database."""
    async with Database(url) as database:
        yield ConversationStore(database)


class RawServer:
    """Reads a request and runs `answer`, whatever that writes; then waits for the client to go.

    `asked` counts requests, `sent` the bytes that could be written before the client was gone.
    """

    def __init__(self, answer: Callable[[Write], Awaitable[None]]) -> None:
        self._answer = answer
        self.asked = self.sent = 0
        self._serving: list[asyncio.Task[None] | None] = []

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._serving.append(asyncio.current_task())

        async def write(content: bytes) -> None:
            writer.write(content)
            await writer.drain()
            self.sent += len(content)

        with suppress(ConnectionError):
            await reader.readuntil(b"\r\n\r\n")
            self.asked += 1
            await self._answer(write)
            await reader.read()  # until the client closes
        writer.transport.abort()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[str]:
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        async with server:
            try:
                yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
            finally:
                async with asyncio.timeout(10):
                    await asyncio.gather(*filter(None, self._serving))  # until the client closes its connections
