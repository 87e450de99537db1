"""How often a stage tries, and how long it waits in between."""

import msgspec


class RetryPolicy(msgspec.Struct, frozen=True, kw_only=True):
    """`attempts` tries in all; the wait doubles (by `factor`) from `base` up to `cap` seconds."""

    attempts: int = 4
    base: float = 2.0
    factor: float = 2.0
    cap: float = 300.0

    def delay(self, attempt: int) -> float:
        """Seconds to wait after the given try (from 1) failed: 2, 4, 8 by default."""
        return min(self.base * self.factor ** (attempt - 1), self.cap)
