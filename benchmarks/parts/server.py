"""What is asked of the server by nobody but a benchmark."""

import time
from collections.abc import Sequence

from redis import Redis

from benchmarks.parts.usage import Usage


class Server:
    """One that Redis' protocol is spoken to."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._client: Redis = Redis.from_url(url)

    def version(self) -> str:
        """What it is, and its number."""
        found = self._client.info("server")
        name = found.get("server_name", "redis")
        return f"{name} {found[f'{name}_version']}"

    def empty(self) -> None:
        """No key, and an append-only file that starts anew: when that happens shall decide nobody's figure."""
        self._client.config_set("auto-aof-rewrite-percentage", 0)
        self._client.flushall()
        self._client.bgrewriteaof()
        while self._client.info("persistence")["aof_rewrite_in_progress"]:
            time.sleep(0.01)

    def dataset(self) -> int:
        """Bytes that keys and values take."""
        return int(self._client.info("memory")["used_memory_dataset"])

    def usage(self, processes: Sequence[int]) -> Usage:
        """What these processes and the server took so far."""
        return Usage.of(processes, self._client)
