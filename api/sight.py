"""All that `riacho top` shows, found in one look; rates and trends are over its own looks."""

import asyncio
import time
from collections import deque
from typing import NamedTuple

import msgspec

from api.load import UNFINISHED, QueueLoad, load_of, look
from api.schedules import ScheduleView, views
from pipeline import Broker, Schedule
from pipeline.flow import Meter, Pressure
from pipeline.views import DeadLetter, WorkerView

MOST_LETTERS = 20
MOST_SCHEDULES = 20
SCHEDULES_FRESH = 10.0  # seconds; there may be a thousand, each with its last job
TREND = 40  # looks
RECENT = 5.0  # seconds over which a trend's rates are


class Sight(msgspec.Struct, frozen=True, rename="camel"):
    """What there was to see at `at` (ms since the epoch): `Load`, the workers, the newest dead letters without
    their payloads, and the schedules whose jobs come next. Rates are missing in the first look."""

    state: Pressure
    memory: float
    at: int
    queues: list[QueueLoad]
    workers: list[WorkerView]
    letters: list[DeadLetter]
    schedules: list[ScheduleView]


class Trend(NamedTuple):
    """A stage over the last looks, the newest last: its unfinished jobs, and those that went out a second."""

    depth: deque[float]
    out: deque[float]


class Looker:
    """Looks, and remembers. Workers count that were heard of within `silent` seconds."""

    def __init__(self, broker: Broker, silent: float, configured: list[Schedule]) -> None:
        self._broker, self._silent, self._configured = broker, silent, configured
        self._stages = list(broker.pipeline)
        self._meter = Meter()
        self._watched = False
        self._schedules: list[ScheduleView] = []
        self._schedules_until = 0.0
        self.trends = {stage.name: Trend(deque(maxlen=TREND), deque(maxlen=TREND)) for stage in self._stages}

    async def look(self) -> Sight:
        """Raises ServerUnavailable, as soon as the broker does."""
        found, workers, page, schedules = await asyncio.gather(
            look(self._broker, self._silent),
            self._broker.every_worker(),
            self._broker.newest_letters(self._stages, MOST_LETTERS),
            self._coming(),
        )
        self._meter.note(time.monotonic(), found.counts)
        load = load_of(self._stages, found, self._meter if self._watched else None)
        if self._watched:
            self._remember(load.queues)
        self._watched = True
        return Sight(load.state, load.memory, load.at, load.queues, workers, page.letters, schedules)

    async def _coming(self) -> list[ScheduleView]:
        if time.monotonic() >= self._schedules_until:
            every = await views(self._broker, self._configured)
            coming = sorted(
                (each for each in every if each.next), key=lambda each: each.next.ms if each.next else 0
            )
            self._schedules = coming[:MOST_SCHEDULES]
            self._schedules_until = time.monotonic() + SCHEDULES_FRESH
        return self._schedules

    def _remember(self, queues: list[QueueLoad]) -> None:
        rates = self._meter.rates(RECENT)
        for queue in queues:
            for stage in queue.stages:
                trend = self.trends[stage.stage]
                trend.depth.append(sum(getattr(stage, depth) for depth in UNFINISHED))
                trend.out.append(rates[stage.stage].out)
