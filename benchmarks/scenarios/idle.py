"""What a worker takes that has nothing to do: CPU, the server's commands, memory; Riacho's beside its peers'.

Each is a process of its own on one embedded Valkey, and the only one that works while it is looked at. They take
turns round by round. Then a whole `riacho up` (API, worker, transcriber with its model) stands idle.
"""

import asyncio
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated

import aiohttp
import typer

from api.demo import wait_until_ready
from api.processes import ProcessTree
from benchmarks.parts.contest import Contest, Standing, contest
from benchmarks.parts.server import Server
from benchmarks.parts.settings import of_a_run
from benchmarks.peers.entrants import EVERY, chosen
from benchmarks.reports.report import Report

QUICK = {"seconds": 10.0, "rounds": 1, "peers": "bullmq,streaq"}
NEVER = 1_000_000_000  # jobs
SETTLING = 2.0  # seconds from when a worker was started
CAVEATS = [
    "BullMQ and its kin look every five seconds, others more often: few seconds say little.",
    "A worker with one queue (in Riacho: one stage of one partition) that has found nothing since it started.",
    "All are as in `engine`, where they are made fast: arq looks for jobs every millisecond instead of every half "
    "second.",
    "cpu_seconds_per_hour is of the worker's process with its children, memory_mb what they hold; commands that a "
    "script calls count, too, and what a server does when no command comes (its clock) is in its CPU.",
    "up: API, worker with all stages of the chat, and transcriber with its model, as processes of `riacho up`; "
    "without the process that watches over them. What its schedules bring every half hour may be in it.",
]


def measure(
    *,
    seconds: Annotated[float, typer.Option(help="How long each is looked at.", min=0.1)] = 10.0,
    rounds: Annotated[int, typer.Option(help="Rounds of which the median counts.", min=1)] = 3,
    peers: Annotated[str, typer.Option(help="Which peers, each installed on its first use.")] = EVERY,
    tree: Annotated[bool, typer.Option(help="Also a whole `riacho up`.")] = True,
) -> Report:
    """CPU, Redis commands a second and memory of a worker with nothing to do; Riacho's beside its peers'."""
    with contest(chosen(peers)) as found:
        for number in range(rounds):
            what = f"round {number + 1} of {rounds}"
            found.each(what, lambda standing: _round(found, standing, seconds))
        knobs: dict[str, float | str] = {"seconds": seconds, "rounds": rounds, "tree": "yes" if tree else "no"}
        report = found.report("idle", knobs, CAVEATS)
        if tree:
            report.figures |= asyncio.run(_whole(found.server, seconds))
        return report


def _round(found: Contest, standing: Standing, seconds: float) -> None:
    standing.server.empty()
    with ExitStack() as stack:
        process = found.process(standing.entrant, stack)
        process.send("work", NEVER)
        time.sleep(SETTLING)
        before = standing.server.usage([process.pid])
        time.sleep(seconds)
        after = standing.server.usage([process.pid])
        process.must_be_busy()
        for figure, value in after.over(before).items():
            standing.found[figure].append(value)


async def _whole(server: Server, seconds: float) -> dict[str, float]:
    """Of `riacho up`."""
    server.empty()
    with tempfile.TemporaryDirectory() as folder:
        settings = of_a_run(Path(folder), server.url)
        address = f"http://{settings.http.host}:{settings.http.port}"
        async with ProcessTree(settings) as tree:
            async with aiohttp.ClientSession(address) as http:
                await wait_until_ready(http)
            await asyncio.sleep(SETTLING)
            before = server.usage(tree.pids)
            await asyncio.sleep(seconds)
            found = server.usage(tree.pids).over(before)
    return {f"up_{figure}": value for figure, value in found.items()}
