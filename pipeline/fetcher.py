"""Brings entries of one stage and partition into its lane: those due again first, then new ones."""

import asyncio
import contextlib
import logging
import time

from redis.exceptions import RedisError

from pipeline.broker import Broker
from pipeline.errors import ServerUnavailable
from pipeline.lane import Lane
from pipeline.message import Delivery
from pipeline.wire import missing_group

log = logging.getLogger(__name__)

# How often entries that are due again, or were abandoned, are asked for. An idle read answers as often;
# stopping waits for it, as one that was cut off would strand its batch.
INTERVAL = 0.1
LONGEST_PAUSE = 1.0


class Fetcher:
    """Reads while the lane has room, and goes on by itself when the server or the group went away.

    Asking for due entries before new ones is what keeps a backlog from starving retries. `lease` is how many
    seconds another worker may be silent before its entries are taken over.
    """

    def __init__(self, broker: Broker, lane: Lane, partition: int, consumer: str, lease: float) -> None:
        self._broker = broker
        self._lane = lane
        self._partition = partition
        self._consumer = consumer
        self._lease = lease
        self._reclaim_at = 0.0

    async def run(self) -> None:
        """Fetch until the lane is closed."""
        pause = 0.05
        # The lane's room is shared with the fetchers of the other partitions.
        while count := await self._lane.reserve(self._broker.partitions):
            found: list[Delivery] = []
            try:
                found = await self._reclaim(count) or await self._fetch(count)
                pause = 0.05
            except (ServerUnavailable, RedisError) as error:
                await self._recover(error)
                await asyncio.sleep(pause)
                pause = min(pause * 2, LONGEST_PAUSE)
            finally:
                self._lane.accept(found, count)

    async def _reclaim(self, count: int) -> list[Delivery]:
        now = time.monotonic()
        if now < self._reclaim_at:
            return []
        stage = self._lane.stage.name
        found = await self._broker.reclaim(stage, self._partition, self._consumer, self._lease, count)
        # Where there was as much as there was room for, there may be more.
        self._reclaim_at = 0.0 if len(found) == count else now + INTERVAL
        return found

    async def _fetch(self, count: int) -> list[Delivery]:
        stage = self._lane.stage.name
        return await self._broker.fetch(stage, self._partition, self._consumer, count, int(INTERVAL * 1000))

    async def _recover(self, error: Exception) -> None:
        """Make a group that is gone anew; whatever else it is, waiting has to do."""
        log.warning("cannot read %s: %s", self._lane.stage.full_name, error)
        if missing_group(error):
            with contextlib.suppress(ServerUnavailable, RedisError):
                await self._broker.ensure_groups()
