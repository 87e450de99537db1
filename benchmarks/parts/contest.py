"""Contestants on one server: a process each, one after the other."""

import os
import statistics
import tempfile
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Console

from benchmarks.parts.server import Server
from benchmarks.parts.usage import PeakMemory
from benchmarks.peers.entrants import RIACHO, Entrant
from benchmarks.peers.environments import Unavailable
from benchmarks.peers.process import Process
from benchmarks.reports.report import Report
from pipeline.embedded import EmbeddedServer

Rounds = dict[str, list[float]]
# The program of another server than the embedded Valkey, if that is to be measured on.
SERVER = "BENCHMARK_SERVER"


@dataclass
class Standing:
    """A contestant in this contest, and what was found of it: of each figure a value a round."""

    entrant: Entrant
    process: Process
    server: Server
    found: Rounds = field(default_factory=lambda: defaultdict(list))

    def share(self, jobs: float, bulk: int) -> int:
        """Its part of so many jobs, in whole calls."""
        return max(1, int(jobs * self.entrant.share / bulk)) * bulk

    def timed(self, name: str, jobs: int, command: str, *numbers: int) -> None:
        """So many jobs by a command: how many a second, the most memory held meanwhile, and what each took."""
        before = self.server.usage([self.process.pid])
        with PeakMemory(self.process.pid) as memory:
            self.found[f"{name}_per_second"].append(jobs / self.process.ask(command, *numbers))
        self.found[f"{name}_memory_mb"].append(memory.mb)
        for figure, value in self.server.usage([self.process.pid]).since(before, jobs).items():
            self.found[f"{name}_{figure}"].append(value)

    def median(self, figure: str) -> float:
        return statistics.median(self.found[figure])


class Contest:
    """All contestants that are still in it; one that cannot be measured leaves it, and we say so."""

    def __init__(self, server: Server, stack: ExitStack, variables: dict[str, str] | None = None) -> None:
        self.server = server
        self.standings: list[Standing] = []
        self.left_out: list[str] = []
        self._asked: list[str] = []
        self._console = Console(highlight=False, stderr=True)
        self._stack = stack
        self._variables = variables or {}

    def enter(self, entrants: Sequence[Entrant]) -> None:
        self._asked = [entrant.name for entrant in entrants if entrant is not RIACHO]
        for entrant in entrants:
            with self._measuring("start", entrant):
                process = self.process(entrant, self._stack)
                self.standings.append(Standing(entrant, process, self.server))

    def process(self, entrant: Entrant, stack: ExitStack, **variables: object) -> Process:
        """Another process of a contestant, which lasts as long as the stack. Raises Unavailable."""
        environment = self._variables | _named(variables)
        return stack.enter_context(Process(entrant.command(), self.server.url, environment))

    @contextmanager
    def apart(self, standing: Standing) -> Iterator[Standing]:
        """A contestant on a server of its own: memory that others' data took is not all given back by one."""
        with tempfile.TemporaryDirectory() as folder, _server(Path(folder)) as server:
            command = standing.entrant.command()
            with Process(command, server.url, self._variables) as process:
                yield Standing(standing.entrant, process, Server(server.url), standing.found)

    def each(self, what: str, measure: Callable[[Standing], None]) -> None:
        """One after the other. Who cannot do this is out of it, and of what comes after."""
        for standing in list(self.standings):
            with self._measuring(what, standing.entrant):
                measure(standing)

    def report(
        self,
        scenario: str,
        knobs: dict[str, float | str],
        caveats: list[str],
        ratios: Callable[[dict[str, float]], dict[str, float]] = lambda _: {},
    ) -> Report:
        """The medians; a peer's end in its name. `ratios` makes more figures of those of a round."""
        rounds = {
            name + standing.entrant.suffix: found
            for standing in self.standings
            for name, found in standing.found.items()
        }
        knobs = knobs | {"peers": ",".join(self._asked) or "none"}
        report = Report.of(scenario, knobs, rounds | _each(rounds, ratios), caveats + self.left_out)
        report.versions |= {"server": self.server.version()} | {
            standing.entrant.title: _said(standing.process.versions) for standing in self.standings
        }
        return report

    @contextmanager
    def _measuring(self, what: str, entrant: Entrant) -> Iterator[None]:
        self._console.print(f"{what}: {entrant.title}", style="dim")
        try:
            yield
        except Unavailable as error:
            if entrant is RIACHO:
                raise
            self.left_out.append(f"{entrant.title} is left out: {error}.")
            self._console.print(self.left_out[-1], style="bold")
            self.standings = [standing for standing in self.standings if standing.entrant is not entrant]


def _each(rounds: Rounds, ratios: Callable[[dict[str, float]], dict[str, float]]) -> Rounds:
    """What `ratios` makes of each round."""
    made: Rounds = defaultdict(list)
    for number in range(max(map(len, rounds.values()), default=0)):
        figures = {name: found[number] for name, found in rounds.items() if number < len(found)}
        for name, value in ratios(figures).items():
            made[name].append(value)
    return made


@contextmanager
def contest(entrants: Sequence[Entrant], **variables: object) -> Iterator[Contest]:
    """A contest on a server of its own. `variables` are for the contestants' environment."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        server = stack.enter_context(_server(folder))
        found = Contest(Server(server.url), stack, _named(variables))
        found.enter(entrants)
        yield found


def _server(folder: Path) -> EmbeddedServer:
    program = os.environ.get(SERVER)
    return EmbeddedServer(folder, binary=Path(program) if program else None)


def _named(variables: dict[str, object]) -> dict[str, str]:
    return {f"BENCHMARK_{name.upper()}": str(value) for name, value in variables.items()}


def _said(versions: dict[str, str]) -> str:
    return ", ".join(f"{library} {number}" for library, number in versions.items())
