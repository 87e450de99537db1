"""What a piece of work took: CPU and memory of its processes, CPU and commands of the server."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import psutil
from redis import Redis

MILLION = 1_000_000


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
    """Seconds a process has used."""
    times = psutil.Process(process).cpu_times()
    return float(times.user + times.system)
