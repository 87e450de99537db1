"""Riacho's own processes as a test starts them: with their environment, and killed at the latest at its end."""

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO

SAMPLES = Path(__file__).parent.parent / "api" / "samples"


def environment(**settings: object) -> dict[str, str]:
    """This process's environment, without any settings but these."""
    bare = {name: value for name, value in os.environ.items() if not name.startswith(("RIACHO_", "REDIS_"))}
    return bare | {name: str(value) for name, value in settings.items()}


@contextlib.contextmanager
def riacho(
    *arguments: str, env: dict[str, str], stderr: IO[bytes] | int | None = None
) -> Iterator["subprocess.Popen[bytes]"]:
    """`riacho …` while it lasts."""
    command = [sys.executable, "-m", "api", *arguments]
    with subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=stderr) as process:
        try:
            yield process
        finally:
            process.kill()


def run(
    *arguments: str, env: dict[str, str], timeout: float = 60, typed: str = ""
) -> "subprocess.CompletedProcess[str]":
    """`riacho …` to its end, with what is typed on its standard input."""
    command = [sys.executable, "-m", "api", *arguments]
    return subprocess.run(
        command, env=env, input=typed, capture_output=True, text=True, timeout=timeout, check=False
    )


def stop(process: "subprocess.Popen[bytes]", timeout: float = 30) -> int:
    """SIGTERM; returns the exit code."""
    process.send_signal(signal.SIGTERM)
    return process.wait(timeout)


def children(pid: int) -> list[int]:
    """The processes started by one (Linux)."""
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def command_line(pid: int) -> str:
    """How a process was started; empty when it is gone."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
    except (FileNotFoundError, ProcessLookupError):
        return ""


def process_of(consumer: str) -> int:
    """The worker that goes by this name on this machine."""
    number = consumer.rpartition(".")[2]
    return int((Path(tempfile.gettempdir()) / f"riacho-{os.getuid()}-worker-{number}.lock").read_text())
