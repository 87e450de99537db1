"""Jobs on their way into the streams, many in one call."""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from contextvars import Context
from typing import Protocol

from pipeline.message import Added

# Two calls overlap: while the server works on one, the next is put together.
MOST_ON_THE_WAY = 2
WORTH_A_CALL = 20  # jobs; so many go at once whatever is under way, and lose nothing by it

# A job ready to be sent: its stage, envelope, dedup key ('' for none), account and delay in ms. A plain tuple, as
# there is one a job.
Offer = tuple[str, bytes, str, str, int]


class Caller(Protocol):
    """Whoever waits for answers: a future, or who makes do without one. One that is `done` before its jobs are on
    their way gets nothing added."""

    def done(self) -> bool: ...

    def set_result(self, answers: list[Added], /) -> None: ...

    def set_exception(self, error: Exception, /) -> None: ...


class Intake:
    """The way into one partition. What is offered at the same time, or while calls are under way, goes in one
    call: whoever adds one job at a time among others is as fast as who adds many, and on an idle system nobody
    waits. `send` has sent by when it returns."""

    def __init__(self, send: Callable[[list[Offer]], Awaitable[list[Added]]], most: int) -> None:
        self._send = send
        self._most = most
        self._waiting: deque[tuple[list[Offer], Caller]] = deque()
        self._planned = False
        self._on_the_way = 0
        self._loop = asyncio.get_running_loop()  # asked once: it is a system call, and there is an `add` a job
        self._sending: set[asyncio.Task[None]] = set()

    def add(self, offers: list[Offer], caller: Caller) -> None:
        """The caller gets one answer for each, in their order; at most as many as go in one call."""
        self._waiting.append((offers, caller))
        if len(offers) >= WORTH_A_CALL:
            self._call_until(lambda: not self._waiting)
        elif not self._planned and self._on_the_way < MOST_ON_THE_WAY:
            self._planned = True
            # Not in the context of who happened to be first: it works for all of them.
            self._loop.call_soon(self._call_as_planned, context=Context())

    def _call_as_planned(self) -> None:
        self._planned = False
        self._call_until(lambda: not self._waiting or self._on_the_way >= MOST_ON_THE_WAY)

    def _call_until(self, enough: Callable[[], bool]) -> None:
        while not enough():
            if callers := self._next_callers():
                self._call(callers)

    def _call(self, callers: list[tuple[list[Offer], Caller]]) -> None:
        try:
            asked = self._send([offer for offers, _ in callers for offer in offers])
        except Exception as error:  # noqa: BLE001 - it is theirs
            for _, caller in callers:
                self._tell(caller, error)
            return
        self._on_the_way += 1
        task = self._loop.create_task(self._answer(asked, callers), context=Context())
        self._sending.add(task)
        task.add_done_callback(self._sending.discard)

    async def _answer(self, asked: Awaitable[list[Added]], callers: list[tuple[list[Offer], Caller]]) -> None:
        try:
            answers = await asked
        except Exception as error:  # noqa: BLE001 - it is theirs
            if isinstance(error.__cause__, TimeoutError):  # nor would those behind it be answered
                callers += self._waiting
                self._waiting.clear()
            for _, caller in callers:
                self._tell(caller, error)
        else:
            start = 0
            for offers, caller in callers:
                self._tell(caller, answers[start : start + len(offers)])
                start += len(offers)
        finally:
            self._on_the_way -= 1
            self._call_as_planned()

    def _tell(self, caller: Caller, answers: list[Added] | Exception) -> None:
        """What goes wrong at it is no matter of the other callers'."""
        try:
            if caller.done():
                return
            if isinstance(answers, Exception):
                caller.set_exception(answers)
            else:
                caller.set_result(answers)
        except Exception as error:  # noqa: BLE001
            about = {"message": "whoever had jobs added failed at the answer", "exception": error}
            self._loop.call_exception_handler(about)

    def _next_callers(self) -> list[tuple[list[Offer], Caller]]:
        callers, count = [], 0
        while self._waiting and count + len(self._waiting[0][0]) <= self._most:
            offers, caller = self._waiting.popleft()
            if not caller.done():  # who is gone meanwhile gets nothing added
                callers.append((offers, caller))
                count += len(offers)
        return callers
