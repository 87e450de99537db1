"""What is asked of the server by nobody but a benchmark."""

import time
from collections.abc import Sequence

from redis import Redis

from benchmarks.parts.usage import Usage, memory_of


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
        self._client.flushall(asynchronous=True)  # many keys would take it longer than the client waits
        while self._client.info("memory")["lazyfree_pending_objects"]:
            time.sleep(0.01)
        self._client.memory_purge()
        self._client.bgrewriteaof()
        while self._client.info("persistence")["aof_rewrite_in_progress"]:
            time.sleep(0.01)

    def dataset(self) -> int:
        """Bytes that keys and values take."""
        return int(self._client.info("memory")["used_memory_dataset"])

    def held(self) -> int:
        """Bytes that its process holds (RSS)."""
        return memory_of(self._client.info("server")["process_id"])

    def used(self) -> int:
        """Bytes that it has in use."""
        return int(self._client.info("memory")["used_memory"])

    def mean_size(self, pattern: str) -> float:
        """Bytes of a key and its value, of those whose names are like this; 0 where there are none."""
        sizes = [self._client.memory_usage(key, samples=0) or 0 for key in self._client.scan_iter(pattern, 1000)]
        return sum(sizes) / len(sizes) if sizes else 0.0

    def usage(self, processes: Sequence[int]) -> Usage:
        """What these processes and the server took so far."""
        return Usage.of(processes, self._client)
