"""When the server takes nothing in any more: its memory is for what it has already promised to keep."""

import time
from typing import NamedTuple

from pipeline.message import Refusal
from pipeline.wire import Wire

LOOK_EVERY = 1.0  # seconds
NO_MEMORY = Refusal("memory", 0, LOOK_EVERY)


class Memory(NamedTuple):
    """A server's memory in bytes; `full`: so much is used that nothing new is taken in."""

    used: int
    most: int
    full: bool


class MemoryGuard:
    """Knows, up to a second late, whether the server uses more than `share` of the memory it may use (its
    maxmemory or, without one, what the machine has)."""

    def __init__(self, wire: Wire, share: float) -> None:
        self._wire = wire
        self._share = share
        self._look_at = 0.0
        self._refusal: Refusal | None = None

    @property
    def known_to_last(self) -> bool:
        """Whether there is memory, by a look that is not due again."""
        return self._refusal is None and time.monotonic() < self._look_at

    async def refusal(self) -> Refusal | None:
        """Why nothing may be added now, if so. Raises ServerUnavailable."""
        if time.monotonic() >= self._look_at:
            self._look_at = time.monotonic() + LOOK_EVERY
            self._refusal = NO_MEMORY if (await self.look()).full else None
        return self._refusal

    async def look(self) -> Memory:
        """How it is now. Raises ServerUnavailable."""
        info = await self._wire.info("memory")
        used, most = int(info["used_memory"]), most_memory(info)
        return Memory(used, most, used > self._share * most)


def most_memory(info: dict[str, str]) -> int:
    """Bytes that a server may use, by its INFO."""
    return int(info["maxmemory"]) or int(info["total_system_memory"])
