"""What a long queue does to an engine: memory by its length, adding to it, starting on it, working it off.

One after the other fills a server of its own in ten steps. With all of it waiting, a worker is started and so many
jobs are worked off; then as many when nothing else is waiting.
"""

import asyncio
import statistics
import time
from typing import Annotated

import typer

from benchmarks.parts.contest import Standing, contest
from benchmarks.parts.usage import MILLION
from benchmarks.peers.entrants import EVERY, RIACHO, chosen
from benchmarks.peers.environments import Unavailable
from benchmarks.peers.riacho import stages
from benchmarks.reports.report import Plot, Report
from pipeline import Broker

QUICK = {"jobs": 500_000, "drain": 50_000, "fill_seconds": 10.0, "peers": "bullmq,streaq"}
BULK = 50  # jobs a call
STEPS = 10
FEW = 1000  # jobs
LOOKS = 200  # at the status
CAVEATS = [
    "Once each. A peer fills up to its share of the jobs, and no longer than fill_seconds: backlog_jobs says how "
    "far it came, and what comes after is measured with so many waiting.",
    "Memory is the server's, beyond what it took when it was empty: its dataset, and what its process holds "
    "(RSS); its append-only file lies on the disk beside that.",
    "small_backlog: with nothing more waiting than is worked off (for the first result: 1,000 jobs).",
    "first_result_seconds is from starting a worker, in a process that runs, to its first job being settled.",
    "status_ms is one look at all depths, as `riacho status` and every scrape of its figures have it.",
]

Points = list[tuple[float, float]]


def measure(
    *,
    jobs: Annotated[int, typer.Option(help="Jobs that wait.", min=1)] = 10_000_000,
    drain: Annotated[int, typer.Option(help="Jobs that are worked off.", min=1)] = 200_000,
    fill_seconds: Annotated[float, typer.Option(help="How long one may fill, but for a step.", min=0.001)] = 60.0,
    peers: Annotated[str, typer.Option(help="Which peers, each installed on its first use.")] = EVERY,
) -> Report:
    """Memory, adding, first result and drain rate with 10 million jobs waiting; Riacho's beside its peers'."""
    lines: dict[str, Points] = {}
    with contest(chosen(peers)) as found:

        def turn(standing: Standing) -> None:
            with found.apart(standing) as alone:
                _begin(alone, drain)
                lines[standing.entrant.title] = _fill(alone, jobs, fill_seconds)
                _work_off(alone, drain)
                _work_off_alone(alone, drain)

        found.each("backlog", turn)
        knobs: dict[str, float | str] = {"jobs": jobs, "drain": drain, "fill_seconds": fill_seconds}
        report = found.report("big-backlog", knobs, CAVEATS)
        of = {standing.entrant.title for standing in found.standings}
    points = {title: line for title, line in lines.items() if title in of}
    report.plots["memory-by-backlog"] = Plot("memory by backlog", "jobs waiting", "dataset, MB", points, True)
    return report


def _begin(standing: Standing, drain: int) -> None:
    """Warm up; then a first result of few."""
    share = standing.share(drain, BULK)
    standing.process.ask("add", share, BULK)
    standing.process.ask("work", share)
    standing.server.empty()
    standing.process.ask("add", FEW, BULK)
    standing.found["first_result_seconds_small_backlog"] = [standing.process.ask("work", 1)]


def _fill(standing: Standing, jobs: int, longest: float) -> Points:
    """Up to its share of the jobs; the MB that its data takes by how many wait."""
    server, step = standing.server, standing.share(jobs / STEPS, BULK)
    server.empty()
    dataset, held = server.dataset(), server.held()
    points, took = Points(), list[float]()
    while len(took) < STEPS and sum(took) < longest:
        took.append(standing.process.ask("add", step, BULK))
        points.append((step * len(took), (server.dataset() - dataset) / MILLION))
    filled, mb = points[-1]
    standing.found |= {
        "backlog_jobs": [filled],
        "dataset_mb": [mb],
        "rss_mb": [(server.held() - held) / MILLION],
        "bytes_per_waiting_job": [mb * MILLION / filled],
        "rss_bytes_per_waiting_job": [(server.held() - held) / filled],
        "add_per_second_at_first": [step / took[0]],
        "add_per_second_at_last": [step / took[-1]],
    }
    return points


def _work_off(standing: Standing, drain: int) -> None:
    share = standing.share(drain, BULK)
    if standing.entrant is RIACHO:
        standing.found["status_ms"] = [_status_ms(standing.server.url, standing.found["backlog_jobs"][0])]
    standing.found["first_result_seconds"] = [standing.process.ask("work", 1)]
    standing.found["drain_per_second"] = [share / standing.process.ask("work", share)]


def _work_off_alone(standing: Standing, drain: int) -> None:
    share = standing.share(drain, BULK)
    standing.server.empty()
    standing.process.ask("add", share, BULK)
    if standing.entrant is RIACHO:
        standing.found["status_ms_small_backlog"] = [_status_ms(standing.server.url, share)]
    standing.found["drain_per_second_small_backlog"] = [share / standing.process.ask("work", share)]


def _status_ms(url: str, waiting: float) -> float:
    """How long a look takes that finds so many waiting. Raises Unavailable where it finds others."""
    return asyncio.run(_looking(url, waiting))


async def _looking(url: str, waiting: float) -> float:
    took = []
    async with Broker(url, stages(lambda *_: None)) as broker:
        for _ in range(LOOKS):
            began = time.perf_counter()
            (status,) = await broker.status()
            took.append((time.perf_counter() - began) * 1000)
    if status.waiting != waiting:
        raise Unavailable(f"of {waiting:,.0f} jobs {status.waiting:,} wait: is there too little memory?")
    return statistics.median(took)
