"""One connection to the server, for many callers at a time: replies come in the order of the commands.

The client library makes it (addresses, TLS, passwords), and hiredis packs and parses. In between there is nothing
but this: the library's own way of sending and reading takes several times what a batched call itself does.
"""

import asyncio
import contextlib
from collections import deque
from typing import Any, cast

import hiredis
from redis.asyncio import Connection as RedisConnection
from redis.exceptions import BusyLoadingError, NoScriptError, OutOfMemoryError, ReadOnlyError, ResponseError
from redis.exceptions import ConnectionError as RedisConnectionError

LOOK_EVERY = 0.5  # seconds between looks for an answer that is overdue
INCOMPLETE = False  # what hiredis says when there is no whole reply yet

ERRORS: dict[str, type[Exception]] = {
    "NOSCRIPT": NoScriptError,
    "READONLY": ReadOnlyError,
    "OOM": OutOfMemoryError,
    "LOADING": BusyLoadingError,
}


def _error(text: str) -> Exception:
    return ERRORS.get(text.partition(" ")[0], ResponseError)(text)


class _Call:
    """So many replies that somebody waits for, until `deadline` on the loop's clock."""

    __slots__ = ("deadline", "missing", "replies", "whole")

    def __init__(self, loop: asyncio.AbstractEventLoop, missing: int, timeout: float) -> None:
        self.deadline = loop.time() + timeout
        self.missing = missing
        self.replies: list[Any] = []
        self.whole: asyncio.Future[list[Any]] = loop.create_future()


class Connection(asyncio.Protocol):
    """`id` is the server's for it; `lost` says that it is of no use any more."""

    def __init__(self, made: RedisConnection) -> None:
        self.lost = False
        self.id = 0
        self._made = made
        self._loop = asyncio.get_running_loop()
        self._parser = hiredis.Reader(replyError=_error)
        self._waiting: deque[_Call] = deque()
        writer = cast("asyncio.StreamWriter", made._writer)
        self._transport = cast("asyncio.Transport", writer.transport)
        self._transport.set_protocol(self)
        self._watch = self._loop.call_later(LOOK_EVERY, self._look_for_overdue)

    def ask(self, packed: bytes, replies: int, timeout: float) -> "asyncio.Future[list[Any]]":
        """Send this; so many replies are to be awaited, errors among them, for `timeout` seconds.

        Raises RedisConnectionError, as does what is returned. Who is cancelled meanwhile leaves nothing behind:
        what comes for it is dropped.
        """
        if self.lost:
            raise RedisConnectionError("connection lost")
        call = _Call(self._loop, replies, timeout)
        self._waiting.append(call)
        self._transport.write(packed)
        return call.whole

    async def close(self) -> None:
        """End it; whoever still waits learns that it is lost."""
        self._lose("connection closed")
        with contextlib.suppress(Exception):
            await self._made.disconnect(nowait=True)

    def data_received(self, data: bytes) -> None:
        try:
            self._parser.feed(data)
            while (reply := self._parser.gets()) is not INCOMPLETE:
                self._take(reply)
        except hiredis.HiredisError as error:
            self._lose(f"not understood: {error}")

    def connection_lost(self, error: Exception | None) -> None:
        self._lose(str(error) if error else "connection closed by the server")

    def _take(self, reply: Any) -> None:
        call = self._waiting[0]
        call.replies.append(reply)
        call.missing -= 1
        if not call.missing:
            self._waiting.popleft()
            if not call.whole.done():
                call.whole.set_result(call.replies)

    def _lose(self, why: str) -> None:
        if self.lost:
            return
        self.lost = True
        self._watch.cancel()
        self._transport.abort()
        for call in self._waiting:
            if not call.whole.done():
                call.whole.set_exception(RedisConnectionError(why))
        self._waiting.clear()

    def _look_for_overdue(self) -> None:
        if self._waiting and self._waiting[0].deadline < self._loop.time():
            self._lose("no answer in time")
        else:
            self._watch = self._loop.call_later(LOOK_EVERY, self._look_for_overdue)
