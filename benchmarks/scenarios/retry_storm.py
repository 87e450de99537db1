"""Everything fails: each job twice, and comes through at its third try.

What is measured is how fast jobs come through that way, with a backoff so short that it is the tries that take the
time, and not the waits; on one embedded Valkey, its append-only file on, in turns.
"""

from typing import Annotated

import typer

from benchmarks.parts.contest import Standing, contest
from benchmarks.parts.ratios import to_best_python_peer, to_bullmq
from benchmarks.peers.entrants import EVERY, chosen
from benchmarks.peers.serving import ATTEMPTS, CONCURRENCY, FAILURES
from benchmarks.reports.report import Report

QUICK = {"jobs": 20_000, "rounds": 5, "peers": "bullmq,streaq"}
BULK = 50  # jobs a call, before the clock starts
RATIOS = {"retry_storm": "retry_storm_per_second"}
CAVEATS = [
    "A job counts once, when it has come through; two of its three tries fail. The rest is as in `engine`; the "
    "handler does nothing but fail, and nobody logs.",
    "The second try comes no earlier than the backoff after the first, the third no earlier than twice that "
    "after the second (SAQ leaves to chance how much of it, Dramatiq adds up to as much again; RQ forgets "
    "fractions of a second). BullMQ for Python waits whole seconds where it has nothing else to do; streaQ looks "
    "twice a second for what is due, SAQ, taskiq and RQ once; none of them can do so more often: their rates are "
    "of these waits as much as of their work, and rise with the jobs a round.",
    "Riacho keeps what a job failed with for a week; others keep it no longer than the job.",
]


def measure(
    *,
    jobs: Annotated[int, typer.Option(help="Jobs a round.", min=1)] = 50_000,
    backoff: Annotated[
        float, typer.Option(help="Seconds before the second try; twice that before the third.", min=0.001)
    ] = 0.05,
    rounds: Annotated[int, typer.Option(help="Rounds of which the median counts.", min=1)] = 5,
    peers: Annotated[str, typer.Option(help="Which peers, each installed on its first use.")] = EVERY,
) -> Report:
    """Jobs that fail twice before they come through; Riacho's beside its peers'."""
    with contest(chosen(peers), backoff=backoff) as found:
        for number in range(rounds):
            found.each(f"round {number + 1} of {rounds}", lambda standing: _round(standing, jobs))
        knobs: dict[str, float | str] = {
            "jobs": jobs,
            "rounds": rounds,
            "backoff": backoff,
            "failures": FAILURES,
            "attempts": ATTEMPTS,
            "concurrency": CONCURRENCY,
        }
        return found.report("retry-storm", knobs, CAVEATS, ratios)


def _round(standing: Standing, jobs: int) -> None:
    share = standing.share(jobs, BULK)
    standing.server.empty()
    standing.process.ask("add", share, BULK)
    standing.timed("retry_storm", share, "storm", share)


def ratios(figures: dict[str, float]) -> dict[str, float]:
    return to_bullmq(figures, RATIOS) | to_best_python_peer(figures, RATIOS)
