"""Watches the queues as long as the service runs: rates need a past, and many who ask at once share one look."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Generic, NamedTuple, TypeVar

from aiohttp import web

from api.load import Load, load_of, look
from pipeline import Broker
from pipeline.backpressure import Memory
from pipeline.errors import ServerUnavailable
from pipeline.flow import Meter, Totals
from pipeline.services.ticker import every

COUNT_EVERY = 2.0  # seconds between two looks at the counters, whether anybody asks or not
FRESH = 0.5  # seconds for which an answer is good for others who ask

T = TypeVar("T")


class Shared(Generic[T]):
    """Something expensive to ask for: asked once at a time, for all who want to know meanwhile and for `fresh`
    seconds after. A failure is for those who waited for it."""

    def __init__(self, ask: Callable[[], Awaitable[T]], fresh: float) -> None:
        self._ask, self._fresh = ask, fresh
        self._asking: asyncio.Task[T] | None = None
        self._good_until = 0.0

    async def get(self) -> T:
        """The answer. Raises what asking raises."""
        asking = self._asking
        if asking is None or (asking.done() and time.monotonic() >= self._good_until):
            asking = self._asking = asyncio.create_task(self._ask_anew())
            asking.add_done_callback(_heard)
        return await asyncio.shield(asking)

    async def close(self) -> None:
        """Ask no longer."""
        if self._asking:
            self._asking.cancel()
            await asyncio.wait([self._asking])

    async def _ask_anew(self) -> T:
        answer = await self._ask()
        self._good_until = time.monotonic() + self._fresh
        return answer


class Seen(NamedTuple):
    load: Load
    memory: Memory
    totals: dict[str, Totals]  # by stage; they only grow


class Watch:
    """What is going on on a broker, with the rates of the last minutes. Workers count that were heard of within
    `silent` seconds."""

    def __init__(self, broker: Broker, silent: float) -> None:
        self._broker, self._silent = broker, silent
        self._stages = list(broker.pipeline)
        self._meter = Meter()
        self._shared = Shared(self._look, FRESH)
        self._last: tuple[float, Seen] | None = None

    async def seen(self) -> Seen:
        """How it is, FRESH seconds old at most. Raises ServerUnavailable, as soon as the broker does."""
        return await self._shared.get()

    def last(self, age: float) -> Seen | None:
        """What was seen last, unless that is over `age` seconds ago. Another thread may ask."""
        if self._last is None or time.monotonic() - self._last[0] > age:
            return None
        return self._last[1]

    async def refresh(self) -> int:
        """Look, for whoever asks for the `last`; 1 where there was something to see."""
        with contextlib.suppress(ServerUnavailable):
            await self.seen()
            return 1
        return 0

    async def running(self, _: web.Application) -> AsyncIterator[None]:
        """Count while the application runs."""
        counting = asyncio.create_task(every(COUNT_EVERY, self.count, asyncio.Event()))
        yield
        counting.cancel()
        await asyncio.wait([counting])
        await self._shared.close()

    async def count(self) -> int:
        """Note the counters; how many partitions have some. A server that is away has none: who asks is told."""
        asked = time.monotonic()  # answers may be noted in another order than they were given in
        with contextlib.suppress(ServerUnavailable):
            counts = await self._broker.flow()
            self._meter.note(asked, counts)
            return len(counts)
        return 0

    async def _look(self) -> Seen:
        asked = time.monotonic()
        found = await look(self._broker, self._silent)
        self._meter.note(asked, found.counts)
        load = load_of(self._stages, found, self._meter)
        totals = {stage.name: self._meter.totals(stage.name) for stage in self._stages}
        seen = Seen(load, found.memory, totals)
        self._last = asked, seen
        return seen


def _heard(task: "asyncio.Task[T]") -> None:
    """Whoever waited for it may be gone; then it fails without a word."""
    if not task.cancelled():
        task.exception()
