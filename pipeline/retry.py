"""How often a stage tries, and how long it waits in between."""

import random

import msgspec


class RetryPolicy(msgspec.Struct, frozen=True, kw_only=True, array_like=True):
    """`attempts` tries in all; the wait grows by `factor` from `base` up to `cap` seconds.

    `jitter` is the share of a wait that is left to chance (0.2: 80 to 100 % of it), so that what failed
    together does not come back together.
    """

    attempts: int = 4
    base: float = 2.0
    factor: float = 2.0
    cap: float = 300.0
    jitter: float = 0.0

    def delay(self, attempt: int) -> float:
        """Seconds to wait after the given try (from 1) failed: 2, 4, 8 by default."""
        # In a float's range: a high attempt is far above any cap.
        wait = min(self.base * self.factor ** min(attempt - 1, 200), self.cap)
        return wait * (1 - self.jitter * random.random())  # noqa: S311 - chance, not secrecy
