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
Answers = asyncio.Future[list[Added]]


class Intake:
    """The way into one partition. What is offered at the same time, or while calls are under way, goes in one
    call: whoever adds one job at a time among others is as fast as who adds many, and on an idle system nobody
    waits."""

    def __init__(self, send: Callable[[list[Offer]], Awaitable[list[Added]]], most: int) -> None:
        self._send = send
        self._most = most
        self._waiting: deque[tuple[list[Offer], Answers]] = deque()
        self._planned = False
        self._on_the_way = 0
        self._loop = asyncio.get_running_loop()  # asked once: it is a system call, and there is an `add` a job
        self._sending: set[asyncio.Task[None]] = set()

    def add(self, offers: list[Offer]) -> Answers:
        """One answer for each, in their order; at most as many as go in one call. Who cancels in time gets
        nothing added."""
        loop = self._loop
        answers: Answers = loop.create_future()
        self._waiting.append((offers, answers))
        if len(offers) >= WORTH_A_CALL:
            self._call_until(lambda: not self._waiting)
        elif not self._planned and self._on_the_way < MOST_ON_THE_WAY:
            self._planned = True
            loop.call_soon(self._call_as_planned)
        return answers

    def _call_as_planned(self) -> None:
        self._planned = False
        self._call_until(lambda: not self._waiting or self._on_the_way >= MOST_ON_THE_WAY)

    def _call_until(self, enough: Callable[[], bool]) -> None:
        while not enough():
            if callers := self._next_callers():
                self._on_the_way += 1
                task = asyncio.create_task(self._call(callers))
                self._sending.add(task)
                task.add_done_callback(self._sending.discard)

    async def _call(self, callers: list[tuple[list[Offer], Answers]]) -> None:
        try:
            answers = await self._send([offer for offers, _ in callers for offer in offers])
        except Exception as error:  # noqa: BLE001 - it is theirs
            if isinstance(error.__cause__, TimeoutError):  # nor would those behind it be answered
                callers += self._waiting
                self._waiting.clear()
            for _, answered in callers:
                if not answered.done():
                    answered.set_exception(error)
        else:
            self._hand_out(answers, callers)
        finally:
            self._on_the_way -= 1
            self._call_as_planned()

    def _hand_out(self, answers: list[Added], callers: list[tuple[list[Offer], Answers]]) -> None:
        start = 0
        for offers, answered in callers:
            if not answered.done():
                answered.set_result(answers[start : start + len(offers)])
            start += len(offers)

    def _next_callers(self) -> list[tuple[list[Offer], Answers]]:
        callers, count = [], 0
        while self._waiting and count + len(self._waiting[0][0]) <= self._most:
            offers, answered = self._waiting.popleft()
            if not answered.cancelled():  # who is gone meanwhile gets nothing added
                callers.append((offers, answered))
                count += len(offers)
        return callers
