"""What keeping order costs: customers' messages worked with those of a chat one after the other, and without that.

The engine hands out a chat's jobs as it does others; who keeps their order is `process-conversation`: a message
that has an earlier one without a reply before it, by the database, comes back later. Here one worker works that
stage, on SQLite and with answers by rule, as it is set and with `conversation.patience = 0`, in turns.
"""

import asyncio
import os
import tempfile
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Annotated

import typer
import uvloop

from api.adapters import Adapters
from benchmarks.parts.server import Server
from benchmarks.reports.report import Report
from config import Settings, load, replaced
from pipeline import Broker, Job, Pipeline, Worker
from pipeline.embedded import EmbeddedServer
from pipeline.message import now_ms
from stages.conversation.rules import RuleResponder
from stages.jobs import Incoming, ProcessConversation
from stages.ports import Message

QUICK = {"messages": 300, "rounds": 3}
STAGE = "process-conversation"
PATIENCE = {"ordered": None, "unordered": 0.0}  # None: as it is set
TENANTS = 20
BULK = 500  # jobs a call
ALONE = "_alone"  # what figures of chats end in that have one message each
CAVEATS = [
    "A burst comes at once, as fast as it can be added: nobody writes so fast. Figures that end in _alone are of "
    "chats with one message each, in which nothing waits.",
    "What has to wait for its turn comes back 0.1 to 1 s later, and leaves its slot to others meanwhile.",
    "overtaken: the share of messages that were answered after a later one of their chat. Ordered, it is not 0 "
    "where two of a chat begin at the same moment: a message waits for the earlier ones that are known by then.",
    "Worker, SQLite and Valkey share the machine's cores.",
]


class Watching(RuleResponder):
    """Answers as the rules do, and remembers in which order it was asked."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[tuple[str, str]] = []

    async def reply(self, history: Sequence[Message]) -> str:
        self.asked.append((history[-1].chat, history[-1].id))
        return await super().reply(history)


class Conversing:
    """The stage with more patience or less, on a database of its own; and of each figure a value a round."""

    def __init__(self, url: str, pipeline: Pipeline, watching: Watching) -> None:
        self.found: dict[str, list[float]] = defaultdict(list)
        self._url = url
        self._pipeline = pipeline
        self._watching = watching

    async def round(self, server: Server, jobs: list[Job], suffix: str) -> None:
        server.empty()
        await self._add(jobs)
        self._watching.asked.clear()
        before = server.usage([os.getpid()])
        figures = {"messages_per_second": len(jobs) / await self._work(len(jobs))}
        figures |= server.usage([os.getpid()]).since(before, len(jobs))
        figures["overtaken"] = overtaken(self._watching.asked)
        for figure, value in figures.items():
            self.found[figure + suffix].append(value)

    async def _add(self, jobs: list[Job]) -> None:
        async with Broker(self._url, self._pipeline) as broker:
            await broker.ensure_groups()
            for first in range(0, len(jobs), BULK):
                await broker.add(jobs[first : first + BULK])

    async def _work(self, jobs: int) -> float:
        worker = Worker(lambda: Broker(self._url, self._pipeline), [self._pipeline.stage(STAGE)])
        stop, started = asyncio.Event(), time.perf_counter()
        running = asyncio.create_task(worker.run(stop))
        counts = worker.settler.counts
        while counts["settled"] + counts["buried"] < jobs:
            await asyncio.sleep(0.001)
        took = time.perf_counter() - started
        stop.set()
        await running
        if counts["buried"]:
            raise RuntimeError(f"{counts['buried']} of {jobs} messages could not be answered")
        return took


def measure(
    *,
    messages: Annotated[int, typer.Option(help="Messages a round.", min=1)] = 1_500,
    burst: Annotated[
        int, typer.Option(help="Messages that a customer sends one right after the other.", min=1)
    ] = 3,
    rounds: Annotated[int, typer.Option(help="Rounds of which the median counts.", min=1)] = 5,
) -> Report:
    """What it costs to answer the messages of a chat one after the other."""
    return uvloop.run(_measured(messages, burst, rounds))


async def _measured(messages: int, burst: int, rounds: int) -> Report:
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        url = stack.enter_context(EmbeddedServer(folder / "server")).url
        stages = {
            name: await stack.enter_async_context(_conversing(url, folder / name, patience))
            for name, patience in PATIENCE.items()
        }
        server, turns = Server(url), list(stages.values())
        for number in range(rounds):
            for suffix, size in (("", burst), (ALONE, 1)):
                for stage in turns:
                    await stage.round(server, jobs_of(f"{number}{suffix}", messages, size), suffix)
            turns.reverse()
    return _report({"messages": messages, "burst": burst, "rounds": rounds, "tenants": TENANTS}, **stages)


@asynccontextmanager
async def _conversing(url: str, folder: Path, patience: float | None) -> AsyncIterator[Conversing]:
    adapters, watching = Adapters(_settings(folder, patience)), Watching()
    adapters.responder = watching
    async with adapters.opened():
        yield Conversing(url, adapters.pipeline(), watching)


def _settings(folder: Path, patience: float | None) -> Settings:
    settings = replaced(load(environ={}), data={"folder": folder}, notification={"channel": "outbox"})
    return settings if patience is None else replaced(settings, conversation={"patience": patience})


def jobs_of(name: str, messages: int, burst: int) -> list[Job]:
    """A round's: chat after chat a burst, and tenant after tenant a chat."""
    now = now_ms()
    return [_job(name, *divmod(number, burst), now) for number in range(messages)]


def _job(name: str, customer: int, place: int, now: int) -> Job:
    chat = f"{name}-{customer}"
    message = Incoming(chat=chat, id=f"{chat}-{place:06}", sent_ms=now + place, received_ms=now)
    payload = ProcessConversation(message=message, text="Olá, quanto custa?")
    return Job(stage=STAGE, payload=payload, tenant=f"shop-{customer % TENANTS}", key=chat)


def overtaken(asked: list[tuple[str, str]]) -> float:
    """Which share of messages (chat, id) came after one of their chat whose id is higher."""
    latest: dict[str, str] = {}
    late = 0
    for chat, message in asked:
        late += message < latest.get(chat, "")
        latest[chat] = max(message, latest.get(chat, ""))
    return late / len(asked)


def _report(knobs: dict[str, float | str], ordered: Conversing, unordered: Conversing) -> Report:
    rounds: dict[str, list[float]] = {}
    for suffix in ("", ALONE):
        pairs = zip(*(stage.found[f"messages_per_second{suffix}"] for stage in (ordered, unordered)), strict=True)
        rounds[f"ordered_vs_unordered{suffix}"] = [one / other for one, other in pairs]
    for name, stage in (("ordered", ordered), ("unordered", unordered)):
        rounds |= {f"{name}_{figure}": found for figure, found in stage.found.items()}
    return Report.of("order", knobs, rounds, CAVEATS)
