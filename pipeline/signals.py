"""What the server publishes: a nudge to look again, never the only way to learn of something."""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from redis.exceptions import RedisError

from pipeline.errors import ServerUnavailable
from pipeline.wire import Wire

log = logging.getLogger(__name__)

QUIET = 10.0  # seconds without a message after which the connection is tried
PAUSE = 0.2  # seconds between attempts to connect again

# A message, or None: listening from here on (again), and what came before may have been missed.
Inbox = asyncio.Queue[bytes | None]


class Signals:
    """Subscriptions of one process, on one connection that is made anew when it breaks."""

    def __init__(self, wire: Wire) -> None:
        self._inboxes: dict[bytes, list[Inbox]] = {}
        self._address = wire.address
        self._pubsub = wire.pubsub()
        self._reading: asyncio.Task[None] | None = None
        self._subscribing = asyncio.Lock()
        self._closed = False

    @asynccontextmanager
    async def listen(self, channel: str) -> AsyncIterator[Inbox]:
        """An inbox of what is published there; its first item is a None. Raises ServerUnavailable."""
        name, inbox = channel.encode(), Inbox()
        known = self._inboxes.setdefault(name, [])
        known.append(inbox)
        try:
            if known == [inbox]:
                await self._subscribe(name)
                self._reading = self._reading or asyncio.create_task(self._read())
            else:
                inbox.put_nowait(None)
            yield inbox
        finally:
            known.remove(inbox)
            if not known:
                del self._inboxes[name]
                with contextlib.suppress(RedisError, OSError):
                    await self._pubsub.unsubscribe(name)

    async def _subscribe(self, name: bytes) -> None:
        try:
            async with self._subscribing:  # the first one connects: two at a time would, each for itself
                await self._pubsub.subscribe(name)
        except (RedisError, OSError) as error:
            raise ServerUnavailable(f"Redis at {self._address}: {error}") from error

    async def close(self) -> None:
        """End the connection."""
        self._closed = True
        if self._reading:
            self._reading.cancel()
            # The client library may swallow a cancellation while it connects.
            await asyncio.wait([self._reading], timeout=1)
        await self._pubsub.aclose()

    async def _read(self) -> None:
        while not self._closed:
            try:
                message = await self._pubsub.get_message(timeout=QUIET)
                if message is None and self._inboxes:
                    await self._pubsub.ping()
            except (RedisError, OSError) as error:
                log.debug("signals: %s", error)
                await asyncio.sleep(PAUSE)
                continue
            if message and message["type"] in ("subscribe", "message"):
                heard = message["data"] if message["type"] == "message" else None
                for inbox in self._inboxes.get(message["channel"], ()):
                    inbox.put_nowait(heard)
