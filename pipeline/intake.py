"""Jobs on their way into the streams, many in one call."""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable

from pipeline.message import Added

# Two calls overlap: while the server works on one, the next is put together.
MOST_ON_THE_WAY = 2
WORTH_A_CALL = 20  # jobs; so many go at once whatever is under way, and lose nothing by it


# A job ready to be sent: its stage, envelope, dedup key ('' for none), account and delay in ms. A plain tuple, as
# there is one a job.
Offer = tuple[str, bytes, str, str, int]


class Intake:
    """The way into one partition. While calls are under way, what is offered gathers and goes in the next: whoever
    adds one job at a time among others is as fast as who adds many, and on an idle system nobody waits."""

    def __init__(self, send: Callable[[list[Offer]], Awaitable[list[Added]]], most: int) -> None:
        self._send = send
        self._most = most
        self._waiting: deque[tuple[list[Offer], asyncio.Future[list[Added]]]] = deque()
        self._on_the_way = 0
        self._sending: set[asyncio.Task[None]] = set()

    async def add(self, offers: list[Offer]) -> list[Added]:
        """One answer for each, in their order; at most as many as go in one call."""
        if self._on_the_way < MOST_ON_THE_WAY or len(offers) >= WORTH_A_CALL:
            return await self._call(offers)
        answers: asyncio.Future[list[Added]] = asyncio.get_running_loop().create_future()
        self._waiting.append((offers, answers))
        return await answers

    async def _call(self, offers: list[Offer]) -> list[Added]:
        self._on_the_way += 1
        try:
            return await self._send(offers)
        finally:
            self._on_the_way -= 1
            if self._waiting:
                task = asyncio.create_task(self._call_for_the_waiting())
                self._sending.add(task)
                task.add_done_callback(self._sending.discard)

    async def _call_for_the_waiting(self) -> None:
        callers = self._next_callers()
        if not callers:
            return  # the call that ended just before took them all
        try:
            answers = await self._call([offer for offers, _ in callers for offer in offers])
        except Exception as error:  # noqa: BLE001 - it is theirs
            for _, answered in callers:
                if not answered.done():
                    answered.set_exception(error)
            return
        start = 0
        for offers, answered in callers:
            if not answered.done():
                answered.set_result(answers[start : start + len(offers)])
            start += len(offers)

    def _next_callers(self) -> list[tuple[list[Offer], asyncio.Future[list[Added]]]]:
        callers, count = [], 0
        while self._waiting and count + len(self._waiting[0][0]) <= self._most:
            offers, answered = self._waiting.popleft()
            if not answered.cancelled():  # who is gone meanwhile gets nothing added
                callers.append((offers, answered))
                count += len(offers)
        return callers
