"""What a piece of work took: CPU and memory of its processes, CPU and commands of the server."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import psutil
from redis import Redis

MILLION = 1_000_000
CPU_CLOCK = 2  # with the process's number it names a clock, as clock_getcpuclockid(3) does


@dataclass(frozen=True)
class Usage:
    """So far: `cpu` in seconds of the processes, `server_cpu` of the server's; `commands` that it was sent (what a
    script calls counts, too); `memory` is what the processes hold now, in bytes."""

    cpu: float
    server_cpu: float
    commands: int
    memory: int

    @classmethod
    def of(cls, processes: Sequence[int], server: "Redis") -> Self:
        found = [psutil.Process(pid) for pid in processes]
        times = [process.cpu_times() for process in found]
        cpu, stats = server.info("cpu"), server.info("commandstats")
        return cls(
            sum(each.user + each.system for each in times),
            cpu["used_cpu_user"] + cpu["used_cpu_sys"],
            sum(each["calls"] for each in stats.values()),
            sum(process.memory_info().rss for process in found),
        )

    def since(self, before: "Usage", jobs: int) -> dict[str, float]:
        """What each of so many jobs took since then."""
        return {
            "cpu_seconds_per_million": (self.cpu - before.cpu) / jobs * MILLION,
            "server_cpu_seconds_per_million": (self.server_cpu - before.server_cpu) / jobs * MILLION,
            "redis_commands_per_job": (self.commands - before.commands) / jobs,
        }


def cpu_of(process: int) -> float:
    """Seconds a process has used, to the microsecond, where `psutil` knows hundredths (Linux)."""
    return time.clock_gettime(~process << 3 | CPU_CLOCK)


def cpu_of_all() -> float:
    """Seconds that the machine's cores have worked, for whomever."""
    times = psutil.cpu_times()
    return float(times.user + times.nice + times.system + times.irq + times.softirq)


def peak_of(process: int) -> int:
    """The most memory a process has had in use, in bytes (Linux)."""
    lines = Path(f"/proc/{process}/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))
