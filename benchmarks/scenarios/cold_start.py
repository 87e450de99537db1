"""From starting a process to its first job settled, one job waiting; Riacho's beside its peers'.

They take turns round by round, each with a process of its own for every round; one round before is thrown away, as
it finds files that are not in memory yet. In Riacho's turn `riacho worker` itself is started, too, as a user does.
"""

import asyncio
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from api.processes import UP
from api.root import open_broker
from benchmarks.parts.contest import Standing, contest
from benchmarks.parts.settings import of_a_run
from benchmarks.parts.usage import MILLION, memory_of
from benchmarks.peers.entrants import EVERY, RIACHO, chosen
from benchmarks.peers.environments import Unavailable
from benchmarks.peers.process import Process
from benchmarks.reports.report import Report
from config import Settings, child_environment
from pipeline import Broker, Job, JobId
from stages.jobs import Incoming, ProcessConversation

QUICK = {"rounds": 3, "peers": "bullmq,streaq"}
LONGEST = 60.0  # seconds until `riacho worker` has done a job
IMPORTING = "import time; began = time.perf_counter(); import api.__main__; print(time.perf_counter() - began)"
CAVEATS = [
    "ready_seconds: until the process says its versions, with its libraries imported; first_job_seconds: until "
    "the job is settled, without closing the worker; memory_mb: what the process holds then.",
    "The machine has read all files before, and Python has compiled them.",
    "riacho_worker: `riacho worker` with the stages of `riacho up`'s worker, until a text message is answered "
    "(its database is there already); of that, importing takes what riacho_worker_import_seconds says.",
]


def measure(
    *,
    rounds: Annotated[int, typer.Option(help="Rounds of which the median counts.", min=1)] = 7,
    peers: Annotated[str, typer.Option(help="Which peers, each installed on its first use.")] = EVERY,
) -> Report:
    """Seconds from starting a process to its first job settled; Riacho and `riacho worker` beside their peers."""
    with contest(chosen(peers)) as found, tempfile.TemporaryDirectory() as folder:
        settings = of_a_run(Path(folder), found.server.url)
        found.each("warm-up", lambda standing: _round(standing, settings))
        for standing in found.standings:
            standing.found.clear()
        for number in range(rounds):
            found.each(f"round {number + 1} of {rounds}", lambda standing: _round(standing, settings))
        return found.report("cold-start", {"rounds": rounds}, CAVEATS)


def _round(standing: Standing, settings: Settings) -> None:
    standing.server.empty()
    standing.process.ask("add", 1, 1)
    for figure, value in _contestant(standing).items():
        standing.found[figure].append(value)
    if standing.entrant is RIACHO:
        standing.server.empty()
        standing.found["riacho_worker_import_seconds"].append(_importing())
        standing.found["riacho_worker_first_job_seconds"].append(asyncio.run(_worker(settings)))


def _contestant(standing: Standing) -> dict[str, float]:
    process = Process(standing.entrant.command(), standing.server.url)
    began = time.perf_counter()
    with process:
        ready = time.perf_counter() - began
        took = process.ask("work", 1)
        memory = memory_of(process.pid) / MILLION
        return {"ready_seconds": ready, "first_job_seconds": ready + took, "memory_mb": memory}


def _importing() -> float:
    """Seconds in which Python imports what `riacho worker` is made of."""
    command = [sys.executable, "-P", "-c", IMPORTING]
    return float(subprocess.run(command, capture_output=True, check=True, text=True).stdout)  # noqa: S603 - our own


async def _worker(settings: Settings) -> float:
    """Seconds in which `riacho worker` starts and answers a message."""
    async with open_broker(settings) as broker:
        await broker.ensure_groups()
        job = await broker.enqueue(_message(time.time_ns()))
        began = time.perf_counter()
        with _started(settings) as process:
            await _until_done(broker, job, process)
            return time.perf_counter() - began


def _message(number: int) -> Job:
    """The first of a customer."""
    said = Incoming(chat=f"55{number}", id=f"wamid.{number}", sent_ms=number // 1_000_000)
    payload = ProcessConversation(said, "Olá, quanto custa?")
    return Job(stage="process-conversation", payload=payload, tenant="shop", key=said.chat)


@contextmanager
def _started(settings: Settings) -> Iterator["subprocess.Popen[bytes]"]:
    command = [sys.executable, "-P", "-m", "api", *UP["worker"]]
    with subprocess.Popen(command, env=child_environment(settings)) as process:  # noqa: S603 - our own
        try:
            yield process
        finally:
            process.terminate()


async def _until_done(broker: Broker, job: JobId, worker: "subprocess.Popen[bytes]") -> None:
    end = time.perf_counter() + LONGEST
    while not (view := await broker.look(job)) or view.state != "completed":
        if worker.poll() is not None or time.perf_counter() > end:
            raise Unavailable(f"`riacho worker` answered no message within {LONGEST:g} s")
        await asyncio.sleep(0.005)
