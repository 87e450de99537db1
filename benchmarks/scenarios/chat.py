"""The whole chat, from the signed webhook over stream and conversation to the reply in the outbox, open loop.

Texts and voice notes come at a fixed rate to the processes that `riacho up` starts; then at several rates, for the
plot; and what a message costs is measured for the capacity page. The transcriber is a real one (Whisper `base`).
"""

import math
from collections import defaultdict
from contextlib import suppress
from typing import Annotated

import typer
import uvloop

from benchmarks.parts.chat import SHARED, Chat, Talk, running
from benchmarks.parts.contest import Rounds
from benchmarks.parts.costs import costs_of
from benchmarks.parts.openloop import ENOUGH, Pace
from benchmarks.parts.usage import MILLION
from benchmarks.peers.environments import Unavailable, must_be_linux
from benchmarks.reports.report import Plot, Report

QUICK = {"seconds": 4, "rounds": 3, "loads": "20,60,120", "notes": 16}
WARM_UP = 1.0  # seconds
PLOTTED = {
    "text, p50": "text_p50_ms",
    "text, p99": "text_p99_ms",
    "voice note, p50": "audio_p50_ms",
    "webhook, p99": "webhook_p99_ms",
}
CAVEATS = [
    SHARED,
    "text and audio: from when a message was due until its reply was out, by the time in its line of the outbox, "
    "to the millisecond; the line is in the file a moment later.",
    "Every message is the first of its chat; rules answer; no receipts come, as WhatsApp would send them.",
    "cost_…: of messages that had to wait and are then worked as fast as can be, without what rest takes.",
    f"There is a p99 where a round has {ENOUGH} messages of a kind.",
    "A rate was kept up with where the messages without a reply grew by less than a twentieth of what came.",
]


def measure(
    *,
    rate: Annotated[
        float, typer.Option(help="Messages a second, sent on time whatever the answers do.", min=1)
    ] = 40,
    audio: Annotated[float, typer.Option(help="How many of a hundred are voice notes.", min=0, max=100)] = 2,
    seconds: Annotated[float, typer.Option(help="Length of a round, and of each load.", min=1)] = 10,
    rounds: Annotated[int, typer.Option(help="Rounds of which the median counts.", min=1)] = 3,
    loads: Annotated[str, typer.Option(help="Messages a second, of the plot.")] = "20,40,60,80,100,120,140",
    notes: Annotated[int, typer.Option(help="Voice notes at once, for what they cost; 0: no costs.", min=0)] = 32,
) -> Report:
    """From webhook to reply, texts and voice notes at a fixed rate and at several; and what a message costs."""
    must_be_linux()  # which alone knows the most memory that a process had
    pace = Pace(rate, seconds, WARM_UP)
    knobs: dict[str, float | str] = {"rate": rate, "audio": audio, "seconds": seconds, "rounds": rounds}
    knobs |= {"loads": loads, "notes": notes}
    return uvloop.run(_measured(knobs, pace, audio / 100, rounds, rates_of(loads), notes))


def rates_of(loads: str) -> list[float]:
    """Raises Unavailable."""
    with suppress(ValueError):
        rates = [float(each) for each in loads.split(",") if each.strip()]
        if all(1 <= rate < math.inf for rate in rates):
            return rates
    raise Unavailable(f"--loads {loads!r} is to be messages a second, 1 or more, with commas between: 20,40,60")


async def _measured(
    knobs: dict[str, float | str], pace: Pace, audio: float, rounds: int, loads: list[float], notes: int
) -> Report:
    found: Rounds = defaultdict(list)
    async with running() as chat:
        costs = (await costs_of(chat, notes)).figures() if notes else {}
        for _ in range(rounds):
            for figure, value in figures(await chat.talk(pace, audio)).items():
                found[figure].append(value)
        sweep = {rate: await chat.talk(Pace(rate, pace.seconds, WARM_UP), audio) for rate in loads}
        report = Report.of("chat", knobs, found, CAVEATS, _memory(chat) | _best(sweep) | costs)
    if sweep:
        report.plots["latency-by-load"] = plot(sweep)
    return report


def figures(talk: Talk) -> dict[str, float]:
    """Of one round; a kind that none was of has none."""
    messages = len(talk.replies)
    found = {f"webhook_{name}": value for name, value in talk.webhooks.figures().items()}
    for kind in ("text", "audio"):
        found |= {f"{kind}_{name}": value for name, value in talk.latencies(kind).figures().items()}
    found |= {
        "replies_per_second": talk.per_second,
        "kept_up": float(talk.kept_up),
        "backlog_at_end": float(talk.backlog),
    }
    for name, seconds in talk.spent.cpu.items():
        found[f"{name}_cpu_seconds_per_million"] = seconds / messages * MILLION
    found["redis_commands_per_message"] = talk.spent.commands / messages
    return found | {"cores_busy_with_others_work": talk.spent.others_cores}


def _memory(chat: Chat) -> dict[str, float]:
    peaks = {f"{name}_peak_memory_mb": peak / MILLION for name, peak in chat.peaks().items()}
    return peaks | {"server_memory_mb": chat.server.used() / MILLION}


def _best(sweep: dict[float, Talk]) -> dict[str, float]:
    best = max((rate for rate, talk in sweep.items() if talk.kept_up), default=0.0)
    return {"kept_up_with_per_second": best} if sweep else {}


def plot(sweep: dict[float, Talk]) -> Plot:
    """Latency by load."""
    found = {rate: figures(talk) for rate, talk in sweep.items()}
    lines = {
        title: [(rate, of[name]) for rate, of in found.items() if name in of] for title, name in PLOTTED.items()
    }
    drawn = {title: points for title, points in lines.items() if points}
    return Plot("Chat: latency by load", "messages a second", "ms", drawn, logarithmic=True)
