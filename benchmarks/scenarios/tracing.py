"""What tracing costs: text messages through the whole chat, without it, with one trace of a hundred, and with all.

Three sets of processes, an API and a worker each, stand side by side on one server, and take turns round by round:
a round is so many signed webhooks, and ends when the last reply has gone out. Spans go over OTLP/HTTP to a
collector that reads them and forgets them, in a process of its own.
"""

import asyncio
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import AsyncExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import aiohttp
import msgspec
import typer

from api.demo import Said, wait_until_ready
from api.load import QueueLoad
from api.processes import ProcessTree
from benchmarks.parts.contest import Rounds
from benchmarks.parts.messages import TEXT, post
from benchmarks.parts.settings import of_a_run
from benchmarks.parts.usage import cpu_of
from benchmarks.reports.report import Report
from config import Settings, replaced
from pipeline.embedded import EmbeddedServer

QUICK = {"messages": 200, "rounds": 5}
AT_ONCE = 16  # webhooks under way
PROCESSES = {"api": ["api"], "worker": ["worker"]}
SHARES = {"off": None, "1_percent": "0.01", "100_percent": "1"}
CAVEATS = [
    "Load generator, API, worker, collector and Valkey share the machine's cores.",
    "A message is a webhook, its conversation (SQLite) and its reply (outbox): four spans in two processes.",
    "lost: of the messages a second without tracing, as a fraction, the median of the rounds; cpu: the same of "
    "the CPU time that API and worker took for a message, which the machine's other work disturbs less.",
]


@dataclass
class Contestant:
    """An API and a worker with a share of traces."""

    http: aiohttp.ClientSession
    processes: Sequence[int]
    rates: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)


async def measure(
    *,
    messages: Annotated[int, typer.Option(help="Text messages a round.", min=4)] = 400,
    rounds: Annotated[int, typer.Option(help="Rounds of which the median counts.", min=1)] = 9,
) -> Report:
    """The chat's messages a second without tracing, with one trace of a hundred, and with all."""
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        url = stack.enter_context(EmbeddedServer(folder / "server")).url
        collector = stack.enter_context(_collector())
        contestants = {}
        for name, share in SHARES.items():
            settings = replaced(of_a_run(folder / name, url), redis={"namespace": f"riacho-{name}"})
            contestants[name] = await _contestant(stack, settings, _variables(collector, share))
        for contestant in contestants.values():
            await _round(contestant, messages // 4)  # warm
            contestant.rates.clear()
            contestant.cpu.clear()
        for number in range(rounds):
            for contestant in _in_turns(list(contestants.values()), number):
                await _round(contestant, messages)
    return Report.of("tracing", {"messages": messages, "rounds": rounds}, _rounds(contestants), CAVEATS)


def _in_turns(contestants: list[Contestant], number: int) -> list[Contestant]:
    """Each is first, second and last as often as the others."""
    start = number % len(contestants)
    return contestants[start:] + contestants[:start]


def _rounds(contestants: dict[str, Contestant]) -> Rounds:
    off = contestants["off"]
    found = {"messages_per_second_off": off.rates, "cpu_ms_per_message_off": [each * 1000 for each in off.cpu]}
    for name, contestant in contestants.items():
        if contestant is not off:
            found[f"messages_per_second_{name}"] = contestant.rates
            found[f"lost_at_{name}"] = [1 - ratio for ratio in _ratios(contestant.rates, off.rates)]
            found[f"cpu_more_at_{name}"] = [ratio - 1 for ratio in _ratios(contestant.cpu, off.cpu)]
    return found


def _ratios(those: list[float], of: list[float]) -> list[float]:
    return [one / other for one, other in zip(those, of, strict=True)]


def _variables(collector: str, share: str | None) -> dict[str, str]:
    if share is None:
        return {"OTEL_SDK_DISABLED": "true"}
    sampler = {"OTEL_TRACES_SAMPLER": "parentbased_traceidratio", "OTEL_TRACES_SAMPLER_ARG": share}
    return {"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": f"{collector}/v1/traces", **sampler}


async def _contestant(stack: AsyncExitStack, settings: Settings, variables: dict[str, str]) -> Contestant:
    tree = await stack.enter_async_context(ProcessTree(settings, PROCESSES, variables))
    address = f"http://{settings.http.host}:{settings.http.port}"
    http = await stack.enter_async_context(aiohttp.ClientSession(address))
    await wait_until_ready(http)
    return Contestant(http, tree.pids)


async def _round(contestant: Contestant, messages: int) -> None:
    loop, gate = asyncio.get_running_loop(), asyncio.Semaphore(AT_ONCE)
    began, used = loop.time(), sum(map(cpu_of, contestant.processes))
    await asyncio.gather(*(_post(contestant.http, gate, number) for number in range(messages)))
    while await _unfinished(contestant.http):
        await asyncio.sleep(0.02)
    contestant.rates.append(messages / (loop.time() - began))
    contestant.cpu.append((sum(map(cpu_of, contestant.processes)) - used) / messages)


async def _post(http: aiohttp.ClientSession, gate: asyncio.Semaphore, number: int) -> None:
    async with gate:
        await post(http, Said(f"55119{number:08}", text=TEXT))


async def _unfinished(http: aiohttp.ClientSession) -> int:
    async with http.get("/queue/status") as answer:
        queues = msgspec.json.decode(await answer.read(), type=dict[str, list[QueueLoad]])["queues"]
    stages = [stage for queue in queues for stage in queue.stages if queue.queue != "cleanup"]
    return sum(stage.waiting + stage.active + stage.delayed + stage.retrying for stage in stages)


@contextmanager
def _collector() -> Iterator[str]:
    command = [sys.executable, "-P", "-m", "benchmarks.parts.collector"]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)  # noqa: S603
    try:
        assert process.stdout  # noqa: S101 - it was asked for
        yield process.stdout.readline().strip()
    finally:
        process.kill()
        process.communicate()
