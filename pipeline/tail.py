"""Follows the events of all partitions, and goes on by itself when the server went away."""

import asyncio
import logging
from collections import Counter
from contextlib import suppress

from redis.exceptions import RedisError

from pipeline.broker import MOST_PER_CALL, Broker
from pipeline.errors import ServerUnavailable
from pipeline.events import Told, order

log = logging.getLogger(__name__)

RENEW_EVERY = 20.0  # seconds; a third of what the server is asked for each time
LONGEST_WAIT = 0.5  # seconds for an event
LONGEST_PAUSE = 1.0  # seconds between attempts to reach the server


class Tail:
    """Whoever reads it has transitions told while they do, and sees all of them from `begin` on, or a gap.

    `position` is the last id of each partition that was read, `behind` says that there is likely to be more.
    """

    def __init__(self, broker: Broker) -> None:
        self.position: list[bytes] = []
        self.behind = False
        self._broker = broker
        self._renew_at = 0.0  # on the loop's clock
        self._reader: int | None = None  # the connection that waits for events
        self._pause = 0.0  # seconds, while the server is away

    async def begin(self) -> None:
        """Have transitions told from now on. Raises ServerUnavailable."""
        self.position = [span.last for span in await self._broker.follow()]
        self._renew_at = asyncio.get_running_loop().time() + RENEW_EVERY

    async def read(self) -> list[Told]:
        """The next events; none where there were none for LONGEST_WAIT, or the server is away."""
        try:
            gaps = await self._renew()
            found, told_still = await self._broker.events_after(self.position, LONGEST_WAIT, self._blocked)
            gaps += await self._trimmed(found)
        except (ServerUnavailable, RedisError) as error:
            await self._wait_for_the_server(error)
            return []
        finally:
            self._reader = None
        if not told_still:
            self._renew_at = 0.0
        for told in found:
            self.position[told.partition] = told.id
        return gaps + found

    async def hurry(self) -> None:
        """End a read that waits for events."""
        with suppress(ServerUnavailable, RedisError):
            if self._reader is not None:
                await self._broker.unblock(self._reader)

    def _blocked(self, reader: int) -> None:
        self._reader = reader

    async def _renew(self) -> list[Told]:
        """Have the server go on telling; a gap of each partition of which something was lost, or may have been."""
        now = asyncio.get_running_loop().time()
        if now < self._renew_at:
            return []
        gaps = []
        for partition, (first, last) in enumerate(await self._broker.follow()):
            here = order(self.position[partition])
            if here > order(last):  # the server has forgotten what we saw
                self.position[partition] = last
            if self._pause or not order(first) <= here <= order(last):
                gaps.append(Told(partition, self.position[partition], None))
        self._renew_at, self._pause = now + RENEW_EVERY, 0.0
        return gaps

    async def _trimmed(self, found: list[Told]) -> list[Told]:
        """A gap of each partition whose events were trimmed before they were read: that takes many."""
        counts = Counter(told.partition for told in found)
        self.behind = max(counts.values(), default=0) >= MOST_PER_CALL
        if not self.behind:
            return []
        firsts = [span.first for span in await self._broker.follow()]
        behind = [partition for partition in counts if order(self.position[partition]) < order(firsts[partition])]
        return [Told(partition, self.position[partition], None) for partition in behind]

    async def _wait_for_the_server(self, error: Exception) -> None:
        if not self._pause:
            log.warning("events cannot be read: %s", error)
        self._pause = min(self._pause * 2 or 0.05, LONGEST_PAUSE)
        self._renew_at = 0.0
        await asyncio.sleep(self._pause)
