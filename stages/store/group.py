"""Group commit: many small writes in one transaction."""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, TypeVar

from stages.store.errors import StoreUnavailable, WriteRefused

T = TypeVar("T")

LAST_WRITE = 10.0  # seconds it may still take when the database is closed


class GroupCommit(Generic[T]):
    """A writer that many call at the same time. What comes while a write is under way goes together in the next:
    on an idle system nobody waits, and under load a commit is for many.

    `write` writes all of what it is given or nothing; it gets at most `most` items unless one caller has more.
    """

    def __init__(self, write: Callable[[Sequence[T]], Awaitable[None]], most: int) -> None:
        self._write = write
        self._most = most
        self._waiting: deque[_Caller[T]] = deque()
        self._under_way: list[_Caller[T]] = []
        self._writing: asyncio.Task[None] | None = None

    async def write(self, items: Sequence[T]) -> None:
        """Returns when the items are written; raises what `write` raised for them.

        Whoever is cancelled cannot know whether they were written."""
        caller = _Caller(items)
        self._waiting.append(caller)
        if not self._writing:
            self._writing = asyncio.create_task(self._write_all())
        await caller.answer

    async def settled(self) -> None:
        """Wait until nothing is under way: of callers that were cancelled there may still be something."""
        if self._writing:
            _, late = await asyncio.wait({self._writing}, timeout=LAST_WRITE)
            for task in late:
                task.cancel()
                await asyncio.wait({task})

    async def _write_all(self) -> None:
        try:
            while self._take_next():
                await self._write_for(self._under_way)
        finally:
            self._writing = None
            for caller in (*self._under_way, *self._waiting):  # there are some only where this was cut off
                caller.tell(StoreUnavailable("the database was closed"))
            self._waiting.clear()

    def _take_next(self) -> bool:
        self._under_way, count = [], 0
        while self._waiting and (not self._under_way or count + len(self._waiting[0].items) <= self._most):
            caller = self._waiting.popleft()
            if not caller.answer.done():  # who is gone meanwhile gets nothing written
                self._under_way.append(caller)
                count += len(caller.items)
        return bool(self._under_way)

    async def _write_for(self, callers: Sequence["_Caller[T]"]) -> None:
        try:
            await self._write([item for caller in callers for item in caller.items])
        except Exception as error:  # noqa: BLE001 - it is theirs
            await self._explain(callers, error)
        else:
            for caller in callers:
                caller.tell(None)

    async def _explain(self, callers: Sequence["_Caller[T]"], error: Exception) -> None:
        """A database that is away is so for all of them; where it may be one's items, each is written alone."""
        away = isinstance(error, StoreUnavailable) and not isinstance(error, WriteRefused)
        if away or len(callers) == 1:
            for caller in callers:
                caller.tell(error)
            return
        for caller in callers:
            if not caller.answer.done():
                await self._write_for([caller])


class _Caller(Generic[T]):
    def __init__(self, items: Sequence[T]) -> None:
        self.items = items
        self.answer: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def tell(self, error: Exception | None) -> None:
        if self.answer.done():
            return
        if error:
            self.answer.set_exception(error)
        else:
            self.answer.set_result(None)
