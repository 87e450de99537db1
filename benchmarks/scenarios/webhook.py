"""How long a webhook takes to answer while transcription keeps every core busy.

Open loop (`benchmarks.parts.openloop`): webhooks leave when they are due, whatever the answers do, and a latency
counts from then on.
"""

import asyncio
import itertools
import tempfile
import time
from collections import defaultdict
from pathlib import Path
from typing import Annotated

import aiohttp
import psutil
import typer

from api.demo import Said, wait_until_ready
from api.processes import ProcessTree
from benchmarks.notes import FOLDER, voice_notes
from benchmarks.parts.contest import Rounds
from benchmarks.parts.messages import TEXT, post
from benchmarks.parts.openloop import Pace, offer
from benchmarks.parts.settings import of_a_run
from benchmarks.parts.usage import cpu_of_all
from benchmarks.peers.environments import Unavailable
from benchmarks.reports.report import Report
from config import replaced
from pipeline.embedded import EmbeddedServer
from stages.audio.model import CLIP

QUICK = {"seconds": 4}
WARM_UP = 1.0  # seconds before each round
START = 60.0  # seconds until the transcriber is at work
BACKLOG = 16  # voice notes kept waiting, so that the transcriber never pauses
CAVEATS = [
    "Load generator, API, workers and Valkey share the machine's cores; the transcriber runs at nice 10.",
    "Each webhook is a text message, worked through conversation (SQLite) and outbox in the same time.",
]


async def measure(
    *,
    rate: Annotated[
        float, typer.Option(help="Webhooks a second, sent on time whatever the answers do.", min=1)
    ] = 50,
    seconds: Annotated[float, typer.Option(help="Length of a round.", min=1)] = 10,
    rounds: Annotated[int, typer.Option(help="Rounds of either kind, of which the median counts.", min=1)] = 3,
) -> Report:
    """The webhook's latency on an idle machine, and while transcription keeps every core busy."""
    pace, found = Pace(rate, seconds, WARM_UP), defaultdict[str, list[float]](list)
    with tempfile.TemporaryDirectory() as folder, EmbeddedServer(Path(folder)) as server:
        audio = {"roots": [FOLDER], "keep_transcripts": 0.0}  # the same notes come again, and are to cost as much
        settings = replaced(of_a_run(Path(folder), server.url), audio=audio)
        address = f"http://{settings.http.host}:{settings.http.port}"
        async with ProcessTree(settings), aiohttp.ClientSession(address) as http:
            await wait_until_ready(http)
            for _ in range(rounds):
                await _round("idle", http, pace, found)
            busying = asyncio.create_task(_keep_transcribing(http))
            await _transcribing(http, busying)
            for _ in range(rounds):
                await _round("busy", http, pace, found)
                _must_go_on(busying)
            busying.cancel()
    return Report.of("webhook", {"rate": rate, "seconds": seconds, "rounds": rounds}, found, CAVEATS)


async def _round(name: str, http: aiohttp.ClientSession, pace: Pace, found: Rounds) -> None:
    """Latencies of webhooks, and the share of all cores' time that was used meanwhile."""
    before = _cpu()
    offered = await offer(pace, lambda *_: post(http, Said("5511987654321", text=TEXT)))
    used, total = (after - before for before, after in zip(before, _cpu(), strict=True))
    for figure, value in (offered.figures() | {"cpu_fraction": used / total}).items():
        found[f"{name}_{figure}"].append(value)


async def _keep_transcribing(http: aiohttp.ClientSession) -> None:
    """Keep a backlog of voice notes until cancelled."""
    notes = itertools.cycle(str(note.path) for note in voice_notes() if note.seconds <= CLIP)
    while True:
        for _ in range(BACKLOG - (await _depth(http))["waiting"]):
            job = {"kind": "transcribe", "payload": {"source": next(notes)}}
            async with http.post("/queue/audio/jobs", json=job) as answer:
                answer.raise_for_status()
        await asyncio.sleep(0.5)


async def _depth(http: aiohttp.ClientSession) -> dict[str, int]:
    async with http.get("/queue/status") as answer:
        queues = (await answer.json())["queues"]
    (stage,) = [stage for queue in queues for stage in queue["stages"] if stage["stage"] == "transcribe"]
    depth: dict[str, int] = stage
    return depth


async def _transcribing(http: aiohttp.ClientSession, busying: "asyncio.Task[None]") -> None:
    """Until voice notes are at work. Raises Unavailable."""
    end = time.monotonic() + START
    while (await _depth(http))["active"] < 2:
        _must_go_on(busying)
        if time.monotonic() > end:
            raise Unavailable(
                f"no two voice notes were at work within {START:g} s: what does the transcriber say?"
            )
        await asyncio.sleep(0.05)


def _must_go_on(busying: "asyncio.Task[None]") -> None:
    """Raises Unavailable where nobody brings voice notes any longer."""
    if busying.done():
        raise Unavailable(f"voice notes could not be queued: {busying.exception()!r}")


def _cpu() -> tuple[float, float]:
    """(used, all) seconds of all cores since boot."""
    used, times = cpu_of_all(), psutil.cpu_times()
    return used, used + times.idle + getattr(times, "iowait", 0.0)
