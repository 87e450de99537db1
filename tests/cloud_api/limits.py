"""Meta's two limits, exact to the nanosecond, and by the time of arrival."""

from collections import deque

SECOND = 1_000_000_000


class Window:
    """No more than `most` calls in any second."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._taken: deque[int] = deque()

    def take(self, now: int) -> bool:
        """Whether a call at this time (nanoseconds, never less than the last) is within the limit.

        One that is not counts for nothing.
        """
        while self._taken and self._taken[0] <= now - SECOND:
            self._taken.popleft()
        if len(self._taken) >= self._most:
            return False
        self._taken.append(now)
        return True


class Bucket:
    """`burst` calls at once, and one more for each `every` nanoseconds; kept as the time when it is full again."""

    def __init__(self, burst: int, every: int) -> None:
        self._room = (burst - 1) * every
        self._every = every
        self._full = 0

    def has_room(self, now: int) -> bool:
        """Whether a call at this time is within the limit."""
        return self._full - now <= self._room

    def take(self, now: int) -> None:
        """Count a call that there is room for."""
        self._full = max(self._full, now) + self._every
