"""One job becomes many: each order adds so many parts, another kind of job, until all of them are settled.

On one embedded Valkey, its append-only file on, in turns; the orders wait before the clock starts.
"""

from typing import Annotated

import typer

from benchmarks.parts.contest import Standing, contest
from benchmarks.parts.ratios import to_best_python_peer, to_bullmq
from benchmarks.peers.entrants import EVERY, chosen
from benchmarks.peers.serving import CONCURRENCY
from benchmarks.reports.report import Report

QUICK = {"jobs": 50_000, "rounds": 7, "peers": "bullmq,streaq"}
BULK = 10  # orders a call, before the clock starts
RATIOS = {"fanout": "fanout_per_second"}
CAVEATS = [
    "A rate is of all jobs that are settled, orders and parts. The rest is as in `engine`: a worker works both "
    "kinds, the handlers do nothing else, and all have 4 attempts with backoff.",
    "Riacho hands parts on in the step that settles their order: whatever dies when, each is there once. With all "
    "others the handler adds them, and its job is settled after that: one that is run again adds them again.",
    "Riacho, BullMQ (both), Bull and FastStream work a queue for each kind, 100 jobs at a time of each; the "
    "others, 100 at a time in all, from a queue for each kind (Celery, RQ, Dramatiq) or one for both.",
]


def measure(
    *,
    jobs: Annotated[int, typer.Option(help="Jobs a round, orders and parts.", min=1)] = 100_000,
    children: Annotated[int, typer.Option(help="Parts of an order.", min=1)] = 10,
    rounds: Annotated[int, typer.Option(help="Rounds of which the median counts.", min=1)] = 5,
    peers: Annotated[str, typer.Option(help="Which peers, each installed on its first use.")] = EVERY,
) -> Report:
    """Jobs that each hand on several others; Riacho's beside its peers'."""
    with contest(chosen(peers)) as found:
        for number in range(rounds):
            found.each(f"round {number + 1} of {rounds}", lambda standing: _round(standing, jobs, children))
        knobs: dict[str, float | str] = {
            "jobs": jobs,
            "rounds": rounds,
            "children": children,
            "concurrency": CONCURRENCY,
        }
        return found.report("fanout", knobs, CAVEATS, ratios)


def _round(standing: Standing, jobs: int, children: int) -> None:
    orders = standing.share(jobs / (1 + children), BULK)
    standing.server.empty()
    standing.process.ask("add", orders, BULK)
    standing.timed("fanout", orders * (1 + children), "fan_out", orders, children)


def ratios(figures: dict[str, float]) -> dict[str, float]:
    return to_bullmq(figures, RATIOS) | to_best_python_peer(figures, RATIOS)
