"""What a piece of work took: CPU and memory of its processes, CPU and commands of the server.

A process stands for its children, too: some engines fork. Memory that these share counts for each of them.
"""

import sys
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

import psutil
from redis import Redis

MILLION = 1_000_000
HOUR = 3600
WORKING = ("user", "nice", "system", "irq", "softirq")
LOOKED_AT_EVERY = 0.1  # seconds; a look goes through all processes of the machine


@dataclass(frozen=True)
class Usage:
    """So far: `cpu` in seconds of the processes, `server_cpu` of the server's; `commands` that it was sent (what a
    script calls counts, too); `memory` is what the processes hold now, in bytes. `at` is when, in seconds."""

    at: float
    cpu: float
    server_cpu: float
    commands: int
    memory: int

    @classmethod
    def of(cls, processes: Sequence[int], server: "Redis") -> Self:
        info = server.info("cpu", "commandstats")
        return cls(
            time.perf_counter(),
            sum(map(cpu_of, processes)),
            info["used_cpu_user"] + info["used_cpu_sys"],
            sum(stats["calls"] for name, stats in info.items() if name.startswith("cmdstat_")),
            sum(map(memory_of, processes)),
        )

    def since(self, before: "Usage", jobs: int) -> dict[str, float]:
        """What each of so many jobs took since then."""
        return {
            "cpu_seconds_per_million": (self.cpu - before.cpu) / jobs * MILLION,
            "server_cpu_seconds_per_million": (self.server_cpu - before.server_cpu) / jobs * MILLION,
            "redis_commands_per_job": self._commands_since(before) / jobs,
        }

    def over(self, before: "Usage") -> dict[str, float]:
        """What the time since then took, and what memory is held now."""
        seconds = self.at - before.at
        return {
            "cpu_seconds_per_hour": (self.cpu - before.cpu) / seconds * HOUR,
            "server_cpu_seconds_per_hour": (self.server_cpu - before.server_cpu) / seconds * HOUR,
            "redis_commands_per_second": self._commands_since(before) / seconds,
            "memory_mb": self.memory / MILLION,
        }

    def _commands_since(self, before: "Usage") -> int:
        return self.commands - before.commands - 1  # the earlier look was one, and did not see itself


class PeakMemory:
    """Context manager: the most that a process holds while it lasts, looked at ten times a second."""

    def __init__(self, process: int) -> None:
        self._process = process
        self._over = threading.Event()
        self._looking = threading.Thread(target=self._keep_looking, daemon=True)
        self.mb = 0.0

    def __enter__(self) -> Self:
        self._look()
        self._looking.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        self._looking.join()
        self._look()

    def _keep_looking(self) -> None:
        while not self._over.wait(LOOKED_AT_EVERY):
            self._look()

    def _look(self) -> None:
        self.mb = max(self.mb, memory_of(self._process) / MILLION)


def cpu_of(process: int) -> float:
    """Seconds it used, with its children's; those that have ended are in its own account."""
    return sum(map(_cpu, _family(process)))


def memory_of(process: int) -> int:
    """Bytes that it holds (RSS), and its children."""
    return sum(map(_memory, _family(process)))


def _family(process: int) -> list[psutil.Process]:
    with suppress(psutil.NoSuchProcess):
        parent = psutil.Process(process)
        return [parent, *parent.children(recursive=True)]
    return []


def _cpu(process: psutil.Process) -> float:
    with suppress(psutil.NoSuchProcess, OSError):  # a child that ended just now
        times = process.cpu_times()
        return _running(process.pid, times.user + times.system) + times.children_user + times.children_system
    return 0.0


def _running(process: int, ticks: float) -> float:
    """Exactly, where there is a clock of another process's time (Linux; made as clock_getcpuclockid does): ticks
    are of 10 ms, and an idle worker takes a few of them in ten seconds."""
    return time.clock_gettime(~process << 3 | 2) if sys.platform == "linux" else ticks


def _memory(process: psutil.Process) -> int:
    with suppress(psutil.NoSuchProcess):
        return int(process.memory_info().rss)
    return 0


def cpu_of_all() -> float:
    """Seconds that the machine's cores have worked, for whomever."""
    times = psutil.cpu_times()
    return float(sum(getattr(times, name, 0.0) for name in WORKING))  # macOS counts no interrupts


def peak_of(process: int) -> int:
    """The most memory a process has had in use, in bytes (Linux)."""
    lines = Path(f"/proc/{process}/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))
