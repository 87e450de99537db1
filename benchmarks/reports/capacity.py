"""The capacity page: what so many messages a second take, with the sum behind each line."""

import math
from collections.abc import Iterator
from pathlib import Path

from benchmarks.capacity import FULL, HIGH_WATER, Costs, Needs, Wanted, needs
from benchmarks.reports.markdown import number, row
from benchmarks.reports.report import NoReport, Report, read


def page(folder: Path, wanted: Wanted) -> str:
    """By the costs in a folder's chat.json. Raises NoReport, too where it has none."""
    file = folder / "chat.json"
    if not file.exists():
        raise NoReport(f"{file} is not there: python -m benchmarks run chat --folder {folder} makes it")
    report = read(file)
    try:
        costs = Costs.of(report.figures)
    except ValueError as error:
        raise NoReport(f"{file} says not what messages cost: {error}; measure chat with --notes 16") from None
    return "\n".join([*_head(report, wanted), "", *_table(costs, wanted), "", *_notes(folder, costs, wanted)])


def _head(report: Report, wanted: Wanted) -> Iterator[str]:
    yield (
        f"{number(wanted.rate)} messages a second, {wanted.audio:.0%} of them voice notes; over a day "
        f"{number(wanted.daily)}; {number(wanted.outage)} s without workers; all at {wanted.busy:.0%} of its most."
    )
    taken, commit = report.taken or "unknown", report.commit or "unknown"
    yield f"Costs as of {taken} (commit {commit}) on {report.machine}."


def _table(costs: Costs, wanted: Wanted) -> Iterator[str]:
    found = needs(costs, wanted)
    yield from (row(["", "how many", "why"]), row(["---", "---:", "---"]))
    rate, full = f"{number(wanted.rate)}/s", f"a process has {number(FULL * wanted.busy)} of a core"
    yield row(["API processes", str(found.apis), f"{rate} at {number(costs.api_cpu_ms)} ms; {full}"])
    yield row(["workers", str(found.workers), f"{rate} at {number(costs.worker_cpu_ms)} ms; {full}"])
    yield row([f"transcribers on {wanted.cores} cores", str(found.transcribers), _transcribing(costs, wanted)])
    yield row(["partitions", str(found.partitions), f"the longest line in an outage, {HIGH_WATER:,} in each"])
    yield row(
        ["cores of Redis", number(found.redis_cores), f"{rate} at {number(costs.server_ms(wanted.audio))} ms"]
    )
    yield row(["memory of Redis", _bytes(found.redis_bytes), _memory(costs, found)])
    yield row([f"machines of {wanted.cores} cores", str(found.machines), f"{number(found.cores)} cores in all"])


def _transcribing(costs: Costs, wanted: Wanted) -> str:
    heard = number(costs.transcribed_audio_seconds_per_second)
    notes = f"{number(wanted.rate * wanted.audio)} notes/s of {number(costs.note_seconds)} s"
    return f"{notes}; {number(costs.cores)} cores heard {heard} s a second"


def _memory(costs: Costs, found: Needs) -> str:
    parts = {"empty": costs.empty_bytes, "waiting": found.waiting_bytes, "remembered": found.remembered_bytes}
    return ", ".join(f"{name} {_bytes(size)}" for name, size in parts.items())


def _notes(folder: Path, costs: Costs, wanted: Wanted) -> Iterator[str]:
    servers = needs(costs, wanted).redis_cores / wanted.busy
    if servers > 1:
        yield f"- One Redis does not do that: commands have one core. Split the shops over {math.ceil(servers)}."
    check = folder / "capacity-check.json"
    error = read(check).figures.get("capacity_error_fraction") if check.exists() else None
    if error is not None:
        yield f"- Where the model says the measured machine is full, and where it was: {error:.0%} apart at most."
    else:
        yield "- Nobody has checked the model there: python -m benchmarks run capacity-check does."
    yield "- benchmarks/CAPACITY.md explains each term, and what the model leaves out."


def _bytes(size: float) -> str:
    for unit in ("B", "kB", "MB"):
        if size < 1000:
            return f"{number(size)} {unit}"
        size /= 1000
    return f"{number(size)} GB"
