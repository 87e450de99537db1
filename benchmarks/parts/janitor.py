"""Leaves nothing behind, however a benchmark ends: `kill -9` too.

What a run starts bears a mark in its environment, and what it writes for the time being goes into one folder. A
process beside it waits until it is gone, ends what has the mark, and deletes the folder.
"""

import os
import shutil
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import psutil

MARK = "RIACHO_BENCHMARK"
PATIENCE = 10.0  # seconds that killed processes have to be gone


@contextmanager
def janitor() -> Iterator[None]:
    """While it lasts, temporary folders are made in one of its own, and processes started here are marked."""
    folder, mark = tempfile.mkdtemp(prefix="riacho-benchmark-"), uuid.uuid4().hex
    command = [sys.executable, "-P", "-m", "benchmarks.parts.janitor", folder, mark]
    cleaner = subprocess.Popen(command, stdin=subprocess.PIPE, start_new_session=True)  # noqa: S603
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


def _put(name: str, value: str | None) -> None:
    if value is None:
        os.environ.pop(name, None)
    else:
        os.environ[name] = value


def clean(folder: str, mark: str) -> None:
    """End the processes with this mark, and delete the folder."""
    marked = [process for process in psutil.process_iter() if _has(process, mark)]
    for process in marked:
        with suppress(psutil.Error):
            process.kill()
    psutil.wait_procs(marked, PATIENCE)
    shutil.rmtree(folder, ignore_errors=True)


def _has(process: psutil.Process, mark: str) -> bool:
    with suppress(psutil.Error):  # others' processes do not tell
        return process.environ().get(MARK) == mark
    return False


if __name__ == "__main__":
    sys.stdin.read()  # until whoever started us is gone
    clean(*sys.argv[1:])
