"""How fast work comes in and goes out, and whether a stage keeps up: from a few counters of each partition."""

from collections import deque
from collections.abc import Mapping
from typing import Literal, NamedTuple

from pipeline.stage import Stage

WINDOW = 300.0  # seconds: the longest time over which a rate is asked for
SPACING = 1.0  # seconds at least between two moments that are kept

Pressure = Literal["ok", "throttling", "shedding"]
RISING: tuple[Pressure, ...] = ("ok", "throttling", "shedding")

Place = tuple[str, int]  # a stage's partition


def worst(pressures: "list[Pressure]") -> Pressure:
    """The worst of some; ok if there is none."""
    return max(pressures, key=RISING.index, default="ok")


class Count(NamedTuple):
    """A partition's jobs at one moment, as lua/count.lua has them. Whatever came in is counted once, wherever it
    waited first."""

    added: int
    unfinished: int
    opens_at: int  # the low-water mark where it was full, else -1
    due: int  # delayed ones that could run

    @property
    def finished(self) -> int:
        """Jobs that ended in whatever way."""
        return self.added - self.unfinished

    def pressure(self, stage: Stage) -> Pressure:
        """Whether it would take a job in now; 'throttling' between the low-water and the high-water mark. That
        it was full counts until it is down to its low-water mark, though nobody may have asked since."""
        if self.unfinished >= stage.high_water:
            return "shedding"
        if self.unfinished <= stage.low_water:
            return "ok"
        return "throttling" if self.opens_at < 0 else "shedding"


class Totals(NamedTuple):
    """Jobs that ever came in and went out. They never go back, though the server's counters may (it was flushed,
    or a replica that had not heard of everything took over)."""

    added: int = 0
    finished: int = 0

    def grown(self, before: Count | None, now: Count) -> "Totals":
        if before is None:
            return Totals(self.added + max(0, now.added), self.finished + max(0, now.finished))
        return Totals(
            self.added + max(0, now.added - before.added),
            self.finished + max(0, now.finished - before.finished),
        )


class Rates(NamedTuple):
    """Jobs a second, the mean over a time."""

    into: float = 0.0
    out: float = 0.0


class Meter:
    """Knows the rates of the last minutes from counts noted now and then; over as long as it has been noted to,
    where that is less. Its memory is bounded by WINDOW and SPACING."""

    def __init__(self) -> None:
        self._last: Mapping[Place, Count] = {}
        self._at = 0.0
        self._totals: dict[str, Totals] = {}
        self._kept: deque[tuple[float, dict[str, Totals]]] = deque()

    def note(self, at: float, counts: Mapping[Place, Count]) -> None:
        """What was counted at a time on some clock, in seconds. What is older than noted already is left out."""
        if self._kept and at <= self._at:
            return
        totals = dict(self._totals)
        for place, count in counts.items():
            stage = place[0]
            totals[stage] = totals.get(stage, Totals()).grown(self._last.get(place), count)
        self._last, self._at, self._totals = counts, at, totals
        if not self._kept or at - self._kept[-1][0] >= SPACING:
            self._kept.append((at, totals))
        while len(self._kept) > 1 and self._kept[1][0] <= at - WINDOW:
            self._kept.popleft()

    def totals(self, stage: str) -> Totals:
        """All that was counted of a stage."""
        return self._totals.get(stage, Totals())

    def rates(self, seconds: float) -> dict[str, Rates]:
        """By stage, over the last `seconds`."""
        at, then = self._before(seconds)
        elapsed = self._at - at
        if elapsed <= 0:
            return dict.fromkeys(self._totals, Rates())
        return {
            stage: Rates(
                (now.added - then[stage].added) / elapsed, (now.finished - then[stage].finished) / elapsed
            )
            for stage, now in self._totals.items()
        }

    def _before(self, seconds: float) -> tuple[float, dict[str, Totals]]:
        """What was kept `seconds` ago or more, but no earlier than that; else the oldest there is."""
        for kept in reversed(self._kept):
            if kept[0] <= self._at - seconds:
                return kept
        return self._kept[0] if self._kept else (self._at, self._totals)
