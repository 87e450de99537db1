"""The engine alone, beside its peers: adding, consuming, latency at half load, and what a waiting job weighs.

Every contestant is a process of its own (two for latency) and talks to one embedded Valkey over its Unix socket,
AOF everysec on. They take turns round by round, so that a machine that slows down slows all of them down.
"""

import statistics
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from redis import Redis
from rich.console import Console

from benchmarks.peers.environments import Command, PeerUnavailable, node_peer, python_peer, riacho
from benchmarks.peers.process import Process
from benchmarks.peers.serving import CONCURRENCY
from benchmarks.report import Report
from pipeline.embedded import EmbeddedServer

BULK = 50  # jobs a call
WEIGHED = 20_000  # waiting jobs
LATENCY_SECONDS = 5
LATENCY_ROUNDS = 3
WORKER_START = 0.5  # seconds; they take a tenth of that
RATIOS = {
    "bulk_add": "bulk_add_per_second",
    "single_add": "single_add_per_second",
    "consume": "consume_per_second",
    "bytes_per_waiting_job": "bytes_per_waiting_job",
}
CAVEATS = [
    "One process for each contestant's worker and producer, and one for the server, share the machine's cores.",
    "The handler does nothing, so this is each engine's own cost and no more.",
    "All over the Unix socket; all with results off and 4 attempts with exponential backoff from 2 s.",
    "All carry the same: where an engine has no tenant or ordering key, they are fields of its payload.",
    "bytes_per_waiting_job_bare_bullmq is without those two: its payload is then just short enough (64 bytes) for "
    "the server to store the job compactly.",
    "No latency of the Python peers: they fall behind once a producer shares the cores with them.",
    "A ratio is Riacho's figure divided by the peer's: above 1 is better for rates, below 1 for bytes.",
]


@dataclass(frozen=True)
class Entrant:
    """`share` and `singles` say how many of the run's jobs it does a round, in bulks and one a call, so that each
    takes a second or more. `python` marks a Python peer.
    """

    name: str  # in the names of its figures
    title: str
    share: float
    singles: float
    command: Callable[[], Command]
    python: bool = True


RIACHO = Entrant("riacho", "Riacho", 1, 0.2, riacho, python=False)
PEERS = [
    Entrant("bullmq", "BullMQ", 0.3, 0.2, lambda: node_peer("bullmq"), python=False),
    Entrant("bullmq_python", "BullMQ for Python", 0.08, 0.04, lambda: python_peer("bullmq_python")),
    Entrant("taskiq", "taskiq-redis", 0.06, 0.04, lambda: python_peer("taskiq")),
    Entrant("arq", "arq", 0.05, 0.04, lambda: python_peer("arq")),
    Entrant("streaq", "streaQ", 0.025, 0.03, lambda: python_peer("streaq")),
]


class Server:
    """What is asked of the server by nobody but the benchmark."""

    def __init__(self, url: str) -> None:
        self._client: Redis = Redis.from_url(url)

    def empty(self) -> None:
        """No key, and an append-only file that starts anew: when that happens shall decide nobody's figure."""
        self._client.config_set("auto-aof-rewrite-percentage", 0)
        self._client.flushall()
        self._client.bgrewriteaof()
        while self._client.info("persistence")["aof_rewrite_in_progress"]:
            time.sleep(0.01)

    def dataset(self) -> int:
        """Bytes that keys and values take."""
        return int(self._client.info("memory")["used_memory_dataset"])


class Trial:
    """One contestant in this run, and what was found of it."""

    def __init__(self, entrant: Entrant, process: Process, server: Server) -> None:
        self.entrant = entrant
        self.process = process
        self.found: dict[str, list[float]] = defaultdict(list)
        self._server = server

    def weigh(self) -> None:
        self.found["bytes_per_waiting_job"] = [self._weight("add")]
        if self.entrant.name == "bullmq":
            self.found["bytes_per_waiting_job_bare"] = [self._weight("add_bare")]

    def _weight(self, command: str) -> float:
        self.process.ask(command, BULK, BULK)  # scripts are loaded then, and not weighed
        self._server.empty()
        before = self._server.dataset()
        self.process.ask(command, WEIGHED, BULK)
        return (self._server.dataset() - before) / WEIGHED

    def round(self, jobs: int) -> None:
        share, singles = (_whole(jobs * part) for part in (self.entrant.share, self.entrant.singles))
        self._server.empty()
        self.found["single_add_per_second"].append(singles / self.process.ask("add", singles, 1))
        self._server.empty()
        self.found["bulk_add_per_second"].append(share / self.process.ask("add", share, BULK))
        self.found["consume_per_second"].append(share / self.process.ask("work", share))

    def latency(self, jobs: int, url: str) -> None:
        """At half of what goes through from end to end, from a producer in a process of its own.

        Not of the Python peers: they fall behind at half of their rate once a producer shares the cores, and the
        backlog would be all that is measured.
        """
        if self.entrant.python:
            return
        share = _whole(jobs * self.entrant.share)
        with Process(self.entrant.command(), url) as producer:
            for _ in range(LATENCY_ROUNDS):
                self.found["flow_per_second"].append(self._flow(share, producer))
            rate = int(statistics.median(self.found["flow_per_second"]) / 2)
            for _ in range(LATENCY_ROUNDS):
                p50, p99 = self._at(rate, producer)
                self.found["p50_ms_at_half_load"].append(p50)
                self.found["p99_ms_at_half_load"].append(p99)

    def _flow(self, jobs: int, producer: Process) -> float:
        """Jobs a second from one end to the other, while as many are added as can be."""
        self._server.empty()
        self.process.send("work", jobs)
        time.sleep(WORKER_START)
        started = time.perf_counter()
        producer.ask("add", jobs, BULK)
        self.process.answer()
        return jobs / (time.perf_counter() - started)

    def _at(self, rate: int, producer: Process) -> tuple[float, float]:
        self._server.empty()
        self.process.send("latency", rate * LATENCY_SECONDS)
        time.sleep(WORKER_START)
        producer.ask("produce", rate * LATENCY_SECONDS, rate)
        p50, p99 = self.process.answer()
        return p50, p99

    def figures(self) -> dict[str, float]:
        """Medians. Riacho's bear the bare name, a peer's end in its own."""
        suffix = "" if self.entrant is RIACHO else f"_{self.entrant.name}"
        return {name + suffix: statistics.median(values) for name, values in self.found.items()}


class Run:
    """All contestants that are still in it; one that cannot be measured leaves it, and we say so."""

    def __init__(self, url: str, stack: ExitStack) -> None:
        self.trials: list[Trial] = []
        self.left_out: list[str] = []
        self._console = Console(highlight=False, stderr=True)
        self._url = url
        self._server = Server(url)
        self._stack = stack

    def enter(self, entrants: list[Entrant]) -> None:
        for entrant in entrants:
            with self._measuring("start", entrant):
                process = self._stack.enter_context(Process(entrant.command(), self._url))
                self.trials.append(Trial(entrant, process, self._server))

    def each(self, what: str, measure: Callable[[Trial], None]) -> None:
        for trial in list(self.trials):
            with self._measuring(what, trial.entrant):
                measure(trial)

    @contextmanager
    def _measuring(self, what: str, entrant: Entrant) -> Iterator[None]:
        self._console.print(f"{what}: {entrant.title}", style="dim")
        try:
            yield
        except PeerUnavailable as error:
            if entrant is RIACHO:
                raise
            self.left_out.append(f"{entrant.title} is left out: {error}.")
            self._console.print(self.left_out[-1], style="bold")
            self.trials = [trial for trial in self.trials if trial.entrant is not entrant]


def measure(*, jobs: int, rounds: int, peers: bool) -> Report:
    """Medians of several rounds, each on an empty server."""
    with tempfile.TemporaryDirectory() as folder, EmbeddedServer(Path(folder)) as server, ExitStack() as stack:
        run = Run(server.url, stack)
        run.enter([RIACHO, *(PEERS if peers else [])])
        run.each("bytes", Trial.weigh)
        for number in range(rounds):
            run.each(f"round {number + 1} of {rounds}", lambda trial: trial.round(jobs))
        run.each("latency", lambda trial: trial.latency(jobs, server.url))
    figures = {name: value for trial in run.trials for name, value in trial.figures().items()}
    knobs: dict[str, float | str] = {"jobs": jobs, "rounds": rounds, "bulk": BULK, "concurrency": CONCURRENCY}
    report = Report("engine", knobs, figures | ratios(figures), CAVEATS + run.left_out)
    report.versions.update({trial.entrant.title: _said(trial.process.versions) for trial in run.trials})
    return report


def ratios(figures: dict[str, float]) -> dict[str, float]:
    """Riacho's figures divided by its peers', where there are any."""
    found = {
        f"{name}_vs_bullmq": figures[measured] / figures[f"{measured}_bullmq"]
        for name, measured in RATIOS.items()
        if f"{measured}_bullmq" in figures
    }
    consumed = [figures.get(f"consume_per_second_{peer.name}", 0) for peer in PEERS if peer.python]
    if any(consumed):
        found["consume_vs_best_python_peer"] = figures["consume_per_second"] / max(consumed)
    return found


def _whole(jobs: float) -> int:
    """As many whole calls of a bulk."""
    return max(1, int(jobs / BULK)) * BULK


def _said(versions: dict[str, str]) -> str:
    return ", ".join(f"{library} {number}" for library, number in versions.items())
