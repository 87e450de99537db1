"""The way to the server. Nothing is retried here: a repeated XADD would duplicate, a repeated XREADGROUP would
strand the first batch."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any
from urllib.parse import urlsplit

import hiredis
from redis.asyncio import ConnectionPool
from redis.asyncio.client import PubSub
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import OutOfMemoryError, ReadOnlyError, ResponseError
from redis.exceptions import TimeoutError as RedisTimeoutError

from pipeline.connection import Connection
from pipeline.errors import ServerUnavailable
from pipeline.metrics import Sending

CALL_TIMEOUT = 5.0  # seconds

pack: Callable[[tuple[Any, ...]], bytes] = hiredis.pack_command


class Wire:
    """Connections to one server: one for all calls, and one for each that blocks. Raises ServerUnavailable where
    it cannot be reached, or not written to, or leaves a caller waiting for `patience` seconds: then what was asked
    of it may be done later all the same. `figures` are for whoever calls scripts over it."""

    def __init__(self, url: str, patience: float | None = None, figures: Sending | None = None) -> None:
        self.address = _without_password(url)
        self.figures = figures
        self._pool: ConnectionPool = ConnectionPool.from_url(
            url,
            protocol=2,
            socket_timeout=CALL_TIMEOUT,
            socket_connect_timeout=2,
            retry=Retry(NoBackoff(), 0),
            max_connections=1000,
        )
        self._shared: Connection | None = None
        self._connecting: asyncio.Task[Connection] | None = None
        self._idle: list[Connection] = []  # of those for blocking calls
        self._closed = False
        self._patience = patience

    async def command(self, *args: Any) -> Any:
        """One command's reply. Raises ResponseError for an error reply."""
        (reply,) = await self._ask([pack(args)])
        return reply

    def begin(self, *args: Any) -> Awaitable[Any]:
        """As `command`, but sent at once where there is a connection, and not first when it is awaited."""
        shared = self._shared
        if shared is None or shared.lost:
            return self.command(*args)
        return self._begun(shared, shared.ask(pack(args), 1, CALL_TIMEOUT))

    async def _begun(self, connection: Connection, asked: Awaitable[list[Any]]) -> Any:
        with self._unavailable():
            async with asyncio.timeout(self._patience):
                (reply,) = await _checked(connection, await asked)
        return reply

    async def info(self, *section: str) -> dict[str, str]:
        """What the server says of itself, by name."""
        text: bytes = await self.command("INFO", *section)
        return dict(line.split(":", 1) for line in text.decode().splitlines() if ":" in line)

    async def blocking(
        self, *commands: tuple[Any, ...], timeout: float, started: Callable[[int], None] = lambda _: None
    ) -> list[Any]:
        """The replies of commands, the first of which may block, for `timeout` seconds at most; `started` is told
        the connection's id, with which `unblock` ends it early."""
        async with self._of_its_own() as connection:
            asked = connection.ask(b"".join(map(pack, commands)), len(commands), timeout)
            started(connection.id)
            return await _checked(connection, await asked)

    async def unblock(self, connection: int) -> bool:
        """Have a blocking command answer as if its time were over; False where it is not blocked (yet)."""
        return bool(await self.command("CLIENT", "UNBLOCK", connection))

    def pubsub(self) -> PubSub:
        """A subscriber on a connection of its own."""
        return PubSub(self._pool)

    async def transaction(self, commands: Iterable[tuple[Any, ...]]) -> list[Any]:
        """The replies of commands run as one; an error reply is in its place.

        A server whose memory is used up takes no transactions, not even of commands that free some. Then they are
        run one after the other: better that than never.
        """
        packed = [pack(command) for command in commands]
        try:
            replies = await self._ask([pack(("MULTI",)), *packed, pack(("EXEC",))])
        except ServerUnavailable as error:
            if isinstance(error.__cause__, OutOfMemoryError):
                return await self._ask(packed, raising=False)
            raise
        whole: list[Any] = replies[-1]
        return whole

    async def close(self) -> None:
        """End all connections."""
        self._closed = True
        if self._connecting:  # which nobody may wait for any more; it closes itself
            await asyncio.wait([self._connecting])
        for connection in [*self._idle, *([self._shared] if self._shared else [])]:
            await connection.close()
        await self._pool.aclose()

    async def _ask(self, packed: list[bytes], *, raising: bool = True) -> list[Any]:
        with self._unavailable():
            async with asyncio.timeout(self._patience):
                connection = await self._connected()
                replies = await connection.ask(b"".join(packed), len(packed), CALL_TIMEOUT)
            return await _checked(connection, replies) if raising else replies

    async def _connected(self) -> Connection:
        """The connection that all share. Who comes while it is being made waits for the same attempt."""
        if self._shared is not None and not self._shared.lost:
            return self._shared
        if self._connecting is None:
            self._connecting = asyncio.create_task(self._connect_anew())
            self._connecting.add_done_callback(self._connection_made)
        return await asyncio.shield(self._connecting)

    async def _connect_anew(self) -> Connection:
        if self._shared is not None:
            await self._shared.close()
        self._shared = await self._connect()
        return self._shared

    def _connection_made(self, task: "asyncio.Task[Connection]") -> None:
        self._connecting = None
        if not task.cancelled():
            task.exception()  # those who wait have it; there may be none left

    async def _connect(self) -> Connection:
        made = self._pool.make_connection()
        await made.connect()
        connection = Connection(made)
        if self._closed:  # before, or meanwhile
            await connection.close()
        (answer,) = await connection.ask(pack(("CLIENT", "ID")), 1, CALL_TIMEOUT)
        if isinstance(answer, Exception):  # it wants a password, say
            await connection.close()
            raise RedisConnectionError(str(answer)) from answer
        connection.id = answer
        return connection

    @asynccontextmanager
    async def _of_its_own(self) -> AsyncIterator[Connection]:
        with self._unavailable():
            while self._idle and self._idle[-1].lost:
                await self._idle.pop().close()
            connection = self._idle.pop() if self._idle else await self._connect()
            try:
                yield connection
            except ResponseError:
                self._idle.append(connection)
                raise
            except BaseException:
                # Whatever else happened, a cancellation too: what it was asked for may still come, and be lost.
                await connection.close()
                raise
            self._idle.append(connection)

    @contextmanager
    def _unavailable(self) -> Iterator[None]:
        try:
            yield
        except (RedisConnectionError, RedisTimeoutError, OutOfMemoryError, ReadOnlyError, OSError) as error:
            why = str(error).rstrip(".") or "no answer in time"
            raise ServerUnavailable(f"Redis at {self.address}: {why}") from error


async def _checked(connection: Connection, replies: list[Any]) -> list[Any]:
    """Raise the first error among replies."""
    for reply in replies:
        if isinstance(reply, ReadOnlyError):
            # What was the primary is none any more; a new connection may lead to the one that is.
            await connection.close()
        if isinstance(reply, Exception):
            raise reply
    return replies


def missing_group(error: Exception) -> bool:
    """Whether a stream or its group is not there (never made, or flushed)."""
    return isinstance(error, ResponseError) and ("NOGROUP" in str(error) or "no such key" in str(error))


def _without_password(url: str) -> str:
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"
