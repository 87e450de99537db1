"""A benchmark that is killed or stopped, whatever it is at: no process of it and no data stay behind."""

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil
import pytest

from tests.support import reached

pytestmark = pytest.mark.faults

ROOT = Path(__file__).parents[2]
OURS = "STARTED_BY_A_TEST"  # in the environment of all that a run starts
SLOW = "#!/bin/sh\nsleep 600\n"  # an npm that takes its time


class Run:
    """Idle workers being looked at, in a folder with all that the benchmark and its contestants write."""

    def __init__(self, folder: Path, peers: str) -> None:
        self._folder = folder
        self._output = folder / "output"
        for name in ("tmp", "bin"):
            (folder / name).mkdir()
        for tool in ("node", "npm"):
            (folder / "bin" / tool).write_text(SLOW)
            (folder / "bin" / tool).chmod(0o755)
        variables = {
            "PATH": f"{folder / 'bin'}{os.pathsep}{os.environ['PATH']}",
            "PYTHONPATH": str(ROOT),
            "TMPDIR": str(folder / "tmp"),
            OURS: str(folder),
        }
        command = [sys.executable, "-m", "benchmarks", "idle", "--seconds", "600", "--peers", peers]
        with self._output.open("wb") as output:
            self.process = subprocess.Popen(
                command,
                cwd=folder,
                env=os.environ | variables,
                start_new_session=True,
                preexec_fn=_heeding_ctrl_c,  # noqa: PLW1509 - nothing of ours runs in threads yet
                stdout=output,
                stderr=output,
            )

    def said(self, words: str) -> bool:
        return words in self._output.read_text()

    def runs(self, words: str) -> bool:
        """Whether one of its processes was started by these words."""
        return any(words in command for command in self.commands())

    def commands(self) -> list[str]:
        return [" ".join(process.info["cmdline"] or []) for process in self._processes()]

    def left(self) -> list[str]:
        return self.commands() + [path.name for path in (self._folder / "tmp").iterdir()]

    def end(self) -> None:
        for process in self._processes():
            with suppress(psutil.NoSuchProcess):
                process.kill()
        self.process.wait()

    def _processes(self) -> list[psutil.Process]:
        return [process for process in psutil.process_iter(["cmdline"]) if self._started(process)]

    def _started(self, process: psutil.Process) -> bool:
        with suppress(psutil.Error, OSError):  # a server's environment is not to be read, but it is in the folder
            inside = Path(process.cwd()).is_relative_to(self._folder)
            return inside or process.environ().get(OURS) == str(self._folder)
        return False


@contextmanager
def running(peers: str) -> Iterator[Run]:
    with tempfile.TemporaryDirectory() as folder:  # pytest's paths are too long for a server's socket
        run = Run(Path(folder).resolve(), peers)
        try:
            yield run
        finally:
            run.end()


def _heeding_ctrl_c() -> None:
    """What a shell starts in the background has it ignored, and so has all that is started by that."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


def killed(process: "subprocess.Popen[bytes]") -> None:
    process.kill()


def terminated(process: "subprocess.Popen[bytes]") -> None:
    process.terminate()


def interrupted(process: "subprocess.Popen[bytes]") -> None:
    """As Ctrl-C does: all that are in the foreground."""
    os.killpg(process.pid, signal.SIGINT)


@pytest.mark.parametrize("ended", [killed, terminated, interrupted])
@pytest.mark.parametrize(
    ("peers", "at"),
    [
        pytest.param("", lambda run: run.runs("parts.janitor"), id="beginning"),
        pytest.param("", lambda run: run.runs("valkey-server"), id="starting-a-server"),
        pytest.param("", lambda run: run.runs("peers.riacho"), id="starting-a-contestant"),
        pytest.param("bullmq", lambda run: run.runs("sleep 600"), id="installing-a-peer"),
        pytest.param("", lambda run: run.said("round 1"), id="measuring"),
    ],
)
async def test_a_benchmark_leaves_nothing_behind(
    ended: Callable[["subprocess.Popen[bytes]"], None], peers: str, at: Callable[[Run], bool]
) -> None:
    with running(peers) as run:
        await reached(lambda: at(run), what="getting there")
        ended(run.process)
        await reached(lambda: run.process.poll() is not None, what="its end")
        await reached(lambda: not run.left(), what="the end of all that it started")
