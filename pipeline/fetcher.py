"""Brings new entries of one stage and partition into its lane."""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable

from redis.exceptions import RedisError

from pipeline.broker import Broker
from pipeline.errors import ServerUnavailable
from pipeline.lane import Lane
from pipeline.message import Delivery
from pipeline.wire import missing_group

log = logging.getLogger(__name__)

# An idle fetch answers after this; stopping waits for it, as a read that was cut off would strand its batch.
BLOCK_MS = 500
LONGEST_PAUSE = 1.0

Give = Callable[[Lane, list[Delivery]], Awaitable[None]]


class Fetcher:
    """Reads while the lane has room, and goes on by itself when the server or the group went away."""

    def __init__(self, broker: Broker, lane: Lane, partition: int, consumer: str, give: Give) -> None:
        self.last_read = time.monotonic()
        self._broker = broker
        self._lane = lane
        self._partition = partition
        self._consumer = consumer
        self._give = give

    async def run(self) -> None:
        """Fetch until the lane is closed."""
        pause = 0.05
        while room := await self._lane.wait_for_room():
            try:
                # The lane's room is shared with the fetchers of the other partitions.
                await self._give(self._lane, await self._fetch(max(1, room // self._broker.partitions)))
                pause = 0.05
            except (ServerUnavailable, RedisError) as error:
                log.warning("cannot read %s: %s", self._lane.stage.full_name, error)
                await asyncio.sleep(pause)
                pause = min(pause * 2, LONGEST_PAUSE)

    async def _fetch(self, count: int) -> list[Delivery]:
        stage = self._lane.stage.name
        try:
            found = await self._broker.fetch(stage, self._partition, self._consumer, count, BLOCK_MS)
        except RedisError as error:
            if not missing_group(error):
                raise
            log.warning("the consumer group of %s was gone; made anew", self._lane.stage.full_name)
            await self._broker.ensure_groups()
            return []
        self.last_read = time.monotonic()
        return found
