"""Load whose pace knows nothing of the answers: what is due at a fixed rate is sent when it is due.

A latency counts from when its thing was due, whatever kept it: a target that stalls counts for all that it held
up. If each waited for the one before, its worst moments would be those in which least is sent, and measured
("coordinated omission"). What had to wait because as many were under way as may be counts from when it was due,
too, and so does what this process was late with; that is kept by itself as well, as it is not the target's.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from typing import NamedTuple

from hdrh.histogram import HdrHistogram

LONGEST = 3600 * 1_000_000  # microseconds; what takes longer counts as that
DIGITS = 3
TICK = 0.001  # seconds; event loops know no shorter sleep
EARLY = 1e-6  # seconds that are too few to sleep once more
AT_ONCE = 100
ENOUGH = 100  # durations for a p99


class Latencies:
    """Durations in a HdrHistogram: microseconds, to three digits."""

    def __init__(self) -> None:
        self._histogram = HdrHistogram(1, LONGEST, DIGITS)

    def __len__(self) -> int:
        return int(self._histogram.get_total_count())

    def record(self, seconds: float) -> None:
        self._histogram.record_value(min(max(0, round(seconds * 1e6)), LONGEST))

    def ms(self, percentile: float) -> float:
        """So many per cent took no longer; 0 where there are none."""
        return float(self._histogram.get_value_at_percentile(percentile)) / 1000

    def figures(self) -> dict[str, float]:
        """None where there are none; of few the p99 would be the longest."""
        percentiles = {"p50_ms": 50, "p99_ms": 99, "max_ms": 100}
        if len(self) < ENOUGH:
            del percentiles["p99_ms"]
        return {name: self.ms(percentile) for name, percentile in percentiles.items()} if len(self) else {}


@dataclass(frozen=True)
class Pace:
    """`rate` things a second for `seconds`; those of `warm_up` seconds before are sent alike, and not recorded."""

    rate: float
    seconds: float
    warm_up: float = 0.0

    @property
    def warming(self) -> int:
        """How many are not recorded."""
        return round(self.rate * self.warm_up)

    @property
    def count(self) -> int:
        """How many are sent; one at least is recorded."""
        return self.warming + max(1, round(self.rate * self.seconds))


class Due(NamedTuple):
    """Which thing, and when it was to be sent."""

    number: int
    at: float


@dataclass(frozen=True)
class Offer:
    """What is sent at a pace, and how long each took; `behind` is how late this process found things due. Times
    are seconds on `clock`: a loop's own may know no more than milliseconds (uvloop's)."""

    pace: Pace
    clock: Callable[[], float] = time.perf_counter
    latencies: Latencies = field(default_factory=Latencies)
    behind: Latencies = field(default_factory=Latencies)

    async def due(self) -> AsyncIterator[Due]:
        """Each thing, once it is due."""
        started = slept = self.clock()
        for number in range(self.pace.count):
            at = started + number / self.pace.rate
            if self.clock() - slept > TICK:  # however late this is, answers have to be read
                await asyncio.sleep(0)
                slept = self.clock()
            while (early := at - self.clock()) > EARLY:
                await asyncio.sleep(max(early, TICK))
                slept = self.clock()
            due = Due(number, at)
            if self.counts(due):
                self.behind.record(self.clock() - at)
            yield due

    def counts(self, due: Due) -> bool:
        """It is none of the warm-up."""
        return due.number >= self.pace.warming

    def answered(self, due: Due) -> None:
        """It was answered just now."""
        if self.counts(due):
            self.latencies.record(self.clock() - due.at)

    def figures(self) -> dict[str, float]:
        return self.latencies.figures() | {"generator_behind_p99_ms": self.behind.ms(99)}


async def offer(
    pace: Pace,
    send: Callable[[Due], Awaitable[object]],
    at_once: int = AT_ONCE,
    clock: Callable[[], float] = time.perf_counter,
) -> Offer:
    """Await `send` of each thing when it is due, for `at_once` at a time, in their order; until the last is
    answered. Raises an ExceptionGroup when one fails."""
    made, turns = Offer(pace, clock), asyncio.Semaphore(at_once)

    async def one(due: Due) -> None:
        async with turns:
            await send(due)
            made.answered(due)

    async with asyncio.TaskGroup() as sending:
        async for due in made.due():
            sending.create_task(one(due))
    return made
