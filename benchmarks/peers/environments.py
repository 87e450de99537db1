"""What a peer runs in: its libraries contradict Riacho's and each other's, so each has a folder of its own.

Made on first use under `.riacho/benchmarks/`, from the lock files beside this module: names, versions and hashes.
The folder is named after what is locked, so a changed lock makes a new one.
"""

import hashlib
import shutil
import subprocess
import sys
import venv
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).parent
CACHE = Path(".riacho") / "benchmarks"
LONGEST_SET_UP = 300  # seconds


class Unavailable(Exception):
    """Something cannot be measured here; the message says why."""


def must_be_linux() -> None:
    """Raises Unavailable."""
    if sys.platform != "linux":
        raise Unavailable("it needs Linux")


@dataclass(frozen=True)
class Command:
    """How to start a contestant; the server's URL comes after the arguments."""

    arguments: tuple[str, ...]
    folder: Path


def riacho() -> Command:
    """Riacho as it is installed here."""
    return Command((sys.executable, "-m", "benchmarks.peers.riacho"), HERE.parent.parent)


def python_peer(name: str) -> Command:
    """A peer written in Python, in a virtual environment of its own."""
    lock = HERE / f"{name}.txt"
    folder = _folder(name, lock.read_bytes() + sys.version.encode())
    if not (folder / "ready").exists():
        venv.create(folder, with_pip=True, clear=True)
        install = ("-m", "pip", "install", "--quiet", "--require-hashes", "--no-deps", "-r", str(lock))
        _run((str(folder / "bin" / "python"), *install), folder)
        (folder / "ready").touch()
    return Command((str(folder / "bin" / "python"), "-m", f"benchmarks.peers.{name}"), _only_us(folder))


def forking_peer(name: str) -> Command:
    """One whose workers are forked: nothing but Linux ends them with it, whatever ends it."""
    must_be_linux()
    return python_peer(name)


def _only_us(folder: Path) -> Path:
    """A folder with this package alone, for a peer to start in: Riacho's own libraries are no business of its."""
    start = folder / "start"
    start.mkdir(exist_ok=True)
    (start / "benchmarks").unlink(missing_ok=True)
    (start / "benchmarks").symlink_to(HERE.parent)
    return start


def node_peer(name: str) -> Command:
    """A peer written for Node. It is copied beside its libraries, where Node looks for them."""
    node, npm = _tool("node"), _tool("npm")
    lock = HERE / name / "package-lock.json"
    folder = _folder(name, lock.read_bytes())
    folder.mkdir(parents=True, exist_ok=True)
    for file in (HERE / name).iterdir():
        shutil.copy(file, folder)
    if not (folder / "ready").exists():
        _run((npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund"), folder)
        (folder / "ready").touch()
    return Command((node, "peer.mjs"), folder)


def _folder(name: str, locked: bytes) -> Path:
    return (CACHE / f"{name}-{hashlib.sha256(locked).hexdigest()[:12]}").resolve()


def _tool(name: str) -> str:
    found = shutil.which(name)
    if not found:
        raise Unavailable(f"{name} is not installed")
    return found


def _run(command: tuple[str, ...], folder: Path) -> None:
    try:
        subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True, timeout=LONGEST_SET_UP)  # noqa: S603
    except subprocess.TimeoutExpired:
        raise Unavailable(f"installing it took more than {LONGEST_SET_UP} s") from None
    except subprocess.CalledProcessError as error:
        raise Unavailable(f"installing it failed: {_last_line(error.stderr)}") from error


def _last_line(text: str) -> str:
    return (text.strip().splitlines() or ["no reason given"])[-1]
