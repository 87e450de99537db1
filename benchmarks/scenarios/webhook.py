"""How long a webhook takes to answer while transcription keeps every core busy.

Open loop: webhooks leave on a fixed schedule, and a latency is counted from when its webhook should have
left, so that a stall counts for every webhook it held up.
"""

import asyncio
import itertools
import statistics
import tempfile
from pathlib import Path
from typing import Annotated

import aiohttp
import msgspec
import typer

from api.demo import Said, event, free_port, wait_until_ready
from api.processes import ProcessTree
from api.signatures import sign
from benchmarks.notes import FOLDER, voice_notes
from benchmarks.reports.report import Report
from config import Secret, Settings, load, replaced
from pipeline.embedded import EmbeddedServer
from stages.audio.model import CLIP

QUICK = {"seconds": 10}
SECRET = "benchmark"  # noqa: S105 - of a service on loopback that ends with the run
BACKLOG = 16  # voice notes kept waiting, so that the transcriber never pauses
CAVEATS = [
    "Load generator, API, workers and Valkey share the machine's cores; the transcriber runs at nice 10.",
    "Each webhook is a text message, worked through conversation (SQLite) and outbox in the same time.",
]


async def measure(
    *,
    rate: Annotated[float, typer.Option(help="Webhooks a second, sent on time whatever the answers do.")] = 50,
    seconds: Annotated[float, typer.Option(help="Length of each of the two phases.")] = 20,
) -> Report:
    """The webhook's latency on an idle machine, and while transcription keeps every core busy."""
    with tempfile.TemporaryDirectory() as folder, EmbeddedServer(Path(folder)) as server:
        settings = _settings(Path(folder), server.url)
        address = f"http://{settings.http.host}:{settings.http.port}"
        async with ProcessTree(settings), aiohttp.ClientSession(address) as http:
            await wait_until_ready(http)
            idle, _ = await _phase(http, rate, seconds)
            busying = asyncio.create_task(_keep_transcribing(http))
            await _transcribing(http)
            busy, cpu = await _phase(http, rate, seconds)
            busying.cancel()
    figures = {
        **{f"idle_{name}": value for name, value in _summary(idle).items()},
        **{f"busy_{name}": value for name, value in _summary(busy).items()},
        "busy_cpu_fraction": cpu,
    }
    return Report("webhook", {"rate": rate, "seconds": seconds}, figures, CAVEATS)


def _settings(folder: Path, url: str) -> Settings:
    return replaced(
        load(environ={}),
        redis={"url": Secret(url)},
        data={"folder": folder},
        http={"port": free_port()},
        whatsapp={"app_secret": Secret(SECRET)},
        audio={"roots": [FOLDER], "keep_transcripts": 0.0},  # the same notes come again, and are to cost as much
        log={"level": "warning"},
    )


async def _phase(http: aiohttp.ClientSession, rate: float, seconds: float) -> tuple[list[float], float]:
    """Latencies in ms of webhooks sent at `rate`, and the share of all cores' time that was used."""
    loop, count = asyncio.get_running_loop(), int(rate * seconds)
    cpu, started = _cpu(), loop.time()
    latencies = await asyncio.gather(*(_post(http, started + number / rate) for number in range(count)))
    used, total = (after - before for before, after in zip(cpu, _cpu(), strict=True))
    return latencies, used / total


async def _post(http: aiohttp.ClientSession, due: float) -> float:
    loop = asyncio.get_running_loop()
    await asyncio.sleep(due - loop.time())
    body = msgspec.json.encode(event(Said("5511987654321", text="Olá, quanto custa?")))
    signature = {"X-Hub-Signature-256": sign(body, SECRET)}
    async with http.post("/webhooks/whatsapp", data=body, headers=signature) as answer:
        answer.raise_for_status()
    return (loop.time() - due) * 1000


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


async def _transcribing(http: aiohttp.ClientSession) -> None:
    while (await _depth(http))["active"] < 2:
        await asyncio.sleep(0.05)


def _cpu() -> tuple[int, int]:
    """(used, all) time of all cores since boot, in ticks (Linux)."""
    user, nice, system, idle, iowait, *rest = map(int, Path("/proc/stat").read_text().split("\n")[0].split()[1:])
    used = user + nice + system + sum(rest[:2])
    return used, used + idle + iowait


def _summary(latencies: list[float]) -> dict[str, float]:
    cuts = statistics.quantiles(latencies, n=100)
    return {"p50_ms": statistics.median(latencies), "p99_ms": cuts[98], "max_ms": max(latencies)}
