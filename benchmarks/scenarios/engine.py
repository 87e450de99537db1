"""The engine alone, beside its peers: adding, consuming, latency at half load, and what a waiting job weighs.

Every contestant is a process of its own (two for latency) and talks to one embedded Valkey over its Unix socket,
AOF everysec on. They take turns round by round, so that a machine that slows down slows all of them down.
"""

import statistics
import time
from contextlib import ExitStack
from typing import Annotated

import typer

from benchmarks.parts.contest import Contest, Standing, contest
from benchmarks.parts.ratios import to_best_python_peer, to_bullmq
from benchmarks.peers.entrants import EVERY, chosen
from benchmarks.peers.process import Process
from benchmarks.peers.serving import CONCURRENCY
from benchmarks.reports.report import Plot, Report

QUICK = {"jobs": 30_000, "rounds": 7, "peers": "bullmq,streaq"}
BULK = 50  # jobs a call
WEIGHED = 20_000  # waiting jobs
LATENCY_SECONDS = 5
LATENCY_ROUNDS = 3
CONCURRENCIES = {1: 0.1, 10: 0.2, 100: 0.3, 500: 0.3}  # of a round's jobs so many
CONCURRENCY_ROUNDS = 3
BY_CONCURRENCY = ("riacho", "bullmq", "taskiq", "streaq")
WORKER_START = 0.5  # seconds; they take a tenth of that
RATIOS = {
    "bulk_add": "bulk_add_per_second",
    "single_add": "single_add_per_second",
    "consume": "consume_per_second",
    "bytes_per_waiting_job": "bytes_per_waiting_job",
}
CAVEATS = [
    "One process for each contestant's worker and producer, and one for the server, share the machine's cores; "
    "Celery, Dramatiq and taskiq work in a process a core, RQ in two a core.",
    "The handler does nothing, so this is each engine's own cost and no more.",
    "All over the Unix socket; all with results off and 4 attempts with exponential backoff from 2 s.",
    "All carry the same: where an engine has no tenant or ordering key, they are fields of its payload.",
    "bytes_per_waiting_job_bare_bullmq is without those two: its payload is then just short enough (64 bytes) for "
    "the server to store the job compactly.",
    "No latency of the Python peers: they fall behind once a producer shares the cores with them.",
    "throughput by concurrency: Riacho's worker has up to 900 jobs at hand however many it runs at a time.",
    "Memory is the most that the contestant's process held meanwhile, with its children; what it does not give "
    "back from one measurement is in the next.",
    "A ratio is Riacho's figure divided by the peer's: above 1 is better for rates, below 1 for bytes.",
]

Lines = dict[str, list[tuple[float, float]]]  # by contestant


def measure(
    *,
    jobs: Annotated[int, typer.Option(help="Jobs a round.", min=1)] = 100_000,
    rounds: Annotated[int, typer.Option(help="Rounds of which the median counts.", min=1)] = 5,
    peers: Annotated[str, typer.Option(help="Which peers, each installed on its first use.")] = EVERY,
) -> Report:
    """Adding, consuming, latency at half load, bytes per waiting job; Riacho's beside its peers'."""
    with contest(chosen(peers)) as found:
        found.each("bytes", _weigh)
        for number in range(rounds):
            found.each(f"round {number + 1} of {rounds}", lambda standing: _round(standing, jobs))
        found.each("latency", lambda standing: _latency(found, standing, jobs))
        lines: Lines = {}
        found.each("concurrency", lambda standing: _by_concurrency(found, standing, jobs, lines))
        knobs: dict[str, float | str] = {"jobs": jobs, "rounds": rounds, "bulk": BULK, "concurrency": CONCURRENCY}
        report = found.report("engine", knobs, CAVEATS, ratios)
    axes = ("jobs at a time", "consumed a second")
    report.plots["throughput-by-concurrency"] = Plot("throughput by concurrency", *axes, lines, logarithmic=True)
    return report


def _weigh(standing: Standing) -> None:
    standing.found["bytes_per_waiting_job"] = [_weight(standing, "add")]
    if standing.entrant.name == "bullmq":
        standing.found["bytes_per_waiting_job_bare"] = [_weight(standing, "add_bare")]


def _weight(standing: Standing, command: str) -> float:
    standing.process.ask(command, BULK, BULK)  # scripts are loaded then, and not weighed
    standing.server.empty()
    before = standing.server.dataset()
    standing.process.ask(command, WEIGHED, BULK)
    return (standing.server.dataset() - before) / WEIGHED


def _round(standing: Standing, jobs: int) -> None:
    share, singles = standing.share(jobs, BULK), _whole(jobs * standing.entrant.singles)
    standing.server.empty()
    standing.timed("single_add", singles, "add", singles, 1)
    standing.server.empty()
    standing.timed("bulk_add", share, "add", share, BULK)
    standing.timed("consume", share, "work", share)


def _latency(found: Contest, standing: Standing, jobs: int) -> None:
    """At half of what goes through from end to end, from a producer in a process of its own.

    Not of the Python peers: they fall behind at half of their rate once a producer shares the cores, and the
    backlog would be all that is measured.
    """
    if standing.entrant.python:
        return
    with ExitStack() as stack:
        producer = found.process(standing.entrant, stack)
        for _ in range(LATENCY_ROUNDS):
            flow = _flow(standing, standing.share(jobs, BULK), producer)
            standing.found["flow_per_second"].append(flow)
        rate = int(standing.median("flow_per_second") / 2)
        for _ in range(LATENCY_ROUNDS):
            p50, p99 = _at(standing, rate, producer)
            standing.found["p50_ms_at_half_load"].append(p50)
            standing.found["p99_ms_at_half_load"].append(p99)


def _flow(standing: Standing, jobs: int, producer: Process) -> float:
    """Jobs a second from one end to the other, while as many are added as can be."""
    standing.server.empty()
    standing.process.send("work", jobs)
    time.sleep(WORKER_START)
    started = time.perf_counter()
    producer.ask("add", jobs, BULK)
    standing.process.answer()
    return jobs / (time.perf_counter() - started)


def _at(standing: Standing, rate: int, producer: Process) -> tuple[float, float]:
    standing.server.empty()
    standing.process.send("latency", rate * LATENCY_SECONDS)
    time.sleep(WORKER_START)
    producer.ask("produce", rate * LATENCY_SECONDS, rate)
    p50, p99 = standing.process.answer()
    return p50, p99


def _by_concurrency(found: Contest, standing: Standing, jobs: int, lines: Lines) -> None:
    """What some consume with workers that run so many at a time."""
    if standing.entrant.name in BY_CONCURRENCY:
        lines[standing.entrant.title] = [
            (number, _rate_at(found, standing, number, jobs * part)) for number, part in CONCURRENCIES.items()
        ]


def _rate_at(found: Contest, standing: Standing, concurrency: int, jobs: float) -> float:
    share, rates = standing.share(jobs, BULK), list[float]()
    with ExitStack() as stack:
        process = found.process(standing.entrant, stack, concurrency=concurrency)
        for _ in range(CONCURRENCY_ROUNDS):
            standing.server.empty()
            process.ask("add", share, BULK)
            rates.append(share / process.ask("work", share))
    return statistics.median(rates)


def ratios(figures: dict[str, float]) -> dict[str, float]:
    """Riacho's figures divided by its peers', where there are any."""
    return to_bullmq(figures, RATIOS) | to_best_python_peer(figures, {"consume": RATIOS["consume"]})


def _whole(jobs: float) -> int:
    """As many whole calls of a bulk."""
    return max(1, int(jobs / BULK)) * BULK
