"""How many requests a caller may make."""

import time
from collections.abc import Callable

FORGET_EVERY = 10.0  # seconds; a caller who rested this long is as good as new


class Limit:
    """So many requests a second for each caller, and a second's worth of them at once; 0: any number."""

    def __init__(self, per_second: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._every = 1 / per_second if per_second else 0.0
        self._ahead = max(1.0, self._every)
        self._clock = clock
        self._paid_until: dict[str, float] = {}  # each request moves it on by what it costs
        self._forgot = clock()

    def wait(self, caller: str) -> float:
        """0 where the request may be made, which then counts; else the seconds after which to try again."""
        if not self._every:
            return 0.0
        now = self._clock()
        self._forget(now)
        paid = max(now, self._paid_until.get(caller, now)) + self._every
        if (over := paid - now - self._ahead) > 1e-9:  # what sums of fractions may be off by
            return over
        self._paid_until[caller] = paid
        return 0.0

    def _forget(self, now: float) -> None:
        """Bounds the memory by the callers of a few seconds."""
        if now - self._forgot > FORGET_EVERY:
            self._paid_until = {caller: paid for caller, paid in self._paid_until.items() if paid > now}
            self._forgot = now
