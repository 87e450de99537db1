"""The way to the server: commands go out packed by hiredis, replies come back as they are.

The client library keeps the connections. Its command layer is left out: formatting arguments and replies in
Python costs several times what a batched call itself does. Nothing is retried here: a repeated XADD would
duplicate, a repeated XREADGROUP would strand the first batch.
"""

from collections.abc import Awaitable, Callable, Iterable
from typing import Any
from urllib.parse import urlsplit

import hiredis
from redis.asyncio import Connection, ConnectionPool
from redis.asyncio.client import PubSub
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import OutOfMemoryError, ReadOnlyError, ResponseError
from redis.exceptions import TimeoutError as RedisTimeoutError

from pipeline.errors import ServerUnavailable

CALL_TIMEOUT = 5.0  # seconds
READ_SIZE = 262_144  # bytes a read: a batch of entries comes in few pieces

pack: Callable[[tuple[Any, ...]], bytes] = hiredis.pack_command


class Wire:
    """Connections to one server. Raises ServerUnavailable where it cannot be reached, or not written to."""

    def __init__(self, url: str) -> None:
        self.address = _without_password(url)
        self._pool: ConnectionPool = ConnectionPool.from_url(
            url,
            protocol=2,
            socket_timeout=CALL_TIMEOUT,
            socket_connect_timeout=2,
            socket_read_size=READ_SIZE,
            retry=Retry(NoBackoff(), 0),
            max_connections=1000,
        )

    async def command(self, *args: Any, timeout: float = CALL_TIMEOUT) -> Any:
        """One command's reply; `timeout` is in seconds. Raises ResponseError for an error reply."""

        async def talk(connection: Connection) -> Any:
            await connection.send_packed_command(pack(args), check_health=False)
            return await connection.read_response(timeout=timeout)

        return await self._with_connection(talk)

    async def blocking(self, *args: Any, timeout: float, started: Callable[[int], None]) -> Any:
        """A command that may block; `started` is told the connection's id, with which `unblock` ends it early."""

        async def talk(connection: Connection) -> Any:
            await connection.send_packed_command(pack(("CLIENT", "ID")) + pack(args), check_health=False)
            started(await connection.read_response())
            return await connection.read_response(timeout=timeout)

        return await self._with_connection(talk)

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
            replies = await self._pipelined([pack(("MULTI",)), *packed, pack(("EXEC",))])
        except ServerUnavailable as error:
            if isinstance(error.__cause__, OutOfMemoryError):
                return await self._pipelined(packed, raising=False)
            raise
        whole: list[Any] = replies[-1]
        return whole

    async def _pipelined(self, packed: list[bytes], *, raising: bool = True) -> list[Any]:
        async def talk(connection: Connection) -> list[Any]:
            await connection.send_packed_command(b"".join(packed), check_health=False)
            # All of them are read before any is looked at: what is left unread would be the next command's reply.
            replies = [await _reply(connection) for _ in packed]
            for error in replies if raising else []:
                if isinstance(error, ResponseError):
                    raise error
            return replies

        replies: list[Any] = await self._with_connection(talk)
        return replies

    async def close(self) -> None:
        await self._pool.aclose()

    async def _with_connection(self, talk: Callable[[Connection], Awaitable[Any]]) -> Any:
        try:
            connection = await self._pool.get_connection()
            try:
                return await talk(connection)
            except ReadOnlyError:
                # What was the primary is none any more; a new connection may lead to the one that is.
                await connection.disconnect(nowait=True)
                raise
            except ResponseError:
                raise
            except BaseException:
                # Whatever else happened, a cancellation too, a reply may still be on its way.
                await connection.disconnect(nowait=True)
                raise
            finally:
                await self._pool.release(connection)
        except (RedisConnectionError, RedisTimeoutError, OutOfMemoryError, ReadOnlyError, OSError) as error:
            raise ServerUnavailable(f"Redis at {self.address}: {str(error).rstrip('.')}") from error


async def _reply(connection: Connection) -> Any:
    try:
        return await connection.read_response()
    except ResponseError as error:
        return error


def missing_group(error: Exception) -> bool:
    """Whether a stream or its group is not there (never made, or flushed)."""
    return isinstance(error, ResponseError) and ("NOGROUP" in str(error) or "no such key" in str(error))


def _without_password(url: str) -> str:
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"
