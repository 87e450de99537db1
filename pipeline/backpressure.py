"""When the server takes nothing in any more: its memory is for what it has already promised to keep."""

import time

from pipeline.message import Refusal
from pipeline.wire import Wire

LOOK_EVERY = 1.0  # seconds
NO_MEMORY = Refusal("memory", 0, LOOK_EVERY)


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
            self._refusal = self._judge(await self._wire.info("memory"))
        return self._refusal

    def _judge(self, info: dict[str, str]) -> Refusal | None:
        return NO_MEMORY if int(info["used_memory"]) > self._share * most_memory(info) else None


def most_memory(info: dict[str, str]) -> int:
    """Bytes that a server may use, by its INFO."""
    return int(info["maxmemory"]) or int(info["total_system_memory"])
