"""Leaves nothing behind, however a benchmark ends: `kill -9` too.

What a run starts bears a mark in its environment, and what it writes for the time being goes into one folder. A
process beside it makes the folder, waits until the run is gone, ends what is the run's, and deletes the folder.
"""

import os
import shutil
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, cast

import psutil

MARK = "BENCHMARK_RUN"  # RIACHO_… are settings: its processes would not start with one they do not know
PATIENCE = 10.0  # seconds that killed processes have to be gone
PAUSE = 0.05  # seconds between two looks
LOOKS = 2  # that find nothing: what was just being started, or started others, is seen by the second


@contextmanager
def janitor() -> Iterator[None]:
    """While it lasts, temporary folders are made in one of its own, and processes started here are marked."""
    mark = uuid.uuid4().hex
    cleaner = _beside_us(mark)
    folder = cast("IO[str]", cleaner.stdout).readline().strip()
    if not folder:
        raise RuntimeError("no janitor would start; the lines above say why")
    before = {name: os.environ.get(name) for name in ("TMPDIR", MARK)}
    os.environ.update({"TMPDIR": folder, MARK: mark})
    tempfile.tempdir = None  # or it goes on with what it found once
    try:
        yield
    finally:
        for name, value in before.items():
            _put(name, value)
        tempfile.tempdir = None
        cleaner.communicate()


def _beside_us(mark: str) -> "subprocess.Popen[str]":
    """In a session of its own: Ctrl-C is not for it."""
    command = [sys.executable, "-P", "-m", "benchmarks.parts.janitor", mark]
    return subprocess.Popen(  # noqa: S603 - our own
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True
    )


def _put(name: str, value: str | None) -> None:
    if value is None:
        os.environ.pop(name, None)
    else:
        os.environ[name] = value


def clean(folder: Path, mark: str) -> None:
    """End the processes of a run, and delete its folder."""
    end, looks = time.monotonic() + PATIENCE, 0
    while folder.exists() and time.monotonic() < end:
        found = [process for process in psutil.process_iter() if _is_of(process, folder, mark)]
        for process in found:
            with suppress(psutil.Error):
                process.kill()
        looks = 0 if found else looks + 1
        if looks >= LOOKS:  # more than once where somebody who was overlooked wrote into it meanwhile
            shutil.rmtree(folder, ignore_errors=True)
        time.sleep(PAUSE)
    shutil.rmtree(folder, ignore_errors=True)


def _is_of(process: psutil.Process, folder: Path, mark: str) -> bool:
    """By its mark. Servers write their title over their environment: these are known by where they work."""
    with suppress(psutil.Error, OSError):  # others' processes do not tell
        environment = process.environ()
        return environment.get(MARK) == mark if environment else Path(process.cwd()).is_relative_to(folder)
    return False


def main(mark: str) -> None:
    """Says the folder, and cleans up once its standard input ends: whoever started it is gone, or done."""
    folder = Path(tempfile.mkdtemp(prefix="riacho-benchmark-")).resolve()
    with suppress(BrokenPipeError):
        os.write(sys.stdout.fileno(), f"{folder}\n".encode())
    sys.stdin.read()
    clean(folder, mark)


if __name__ == "__main__":
    main(sys.argv[1])
