"""Brings entries of one stage and partition into its lane: those due again first, then new ones."""

import asyncio
import contextlib
import logging

from redis.exceptions import RedisError

from pipeline.broker import Broker
from pipeline.errors import ServerUnavailable
from pipeline.lane import Lane
from pipeline.message import Delivery
from pipeline.wire import missing_group

log = logging.getLogger(__name__)

LONGEST_LOOK = 1.0  # seconds between looks for entries that were abandoned, or that we were not told of
LONGEST_PAUSE = 1.0  # seconds between attempts to reach the server


class Fetcher:
    """Reads while the lane has room, and goes on by itself when the server or the group went away.

    Asking for due entries before new ones is what keeps a backlog from starving retries. An idle read ends when
    something is due, or when `wake` says that something may be: it is unblocked rather than cut off, which would
    strand what it was just being given. `lease` is how many seconds another worker may be silent before its
    entries are taken over.
    """

    def __init__(self, broker: Broker, lane: Lane, partition: int, consumer: str, lease: float) -> None:
        self._broker = broker
        self.lane = lane
        self._partition = partition
        self._consumer = consumer
        self._lease = lease
        self._longest_look = min(LONGEST_LOOK, lease / 4)
        self._look_at = 0.0  # on the loop's clock
        self._woken = False
        self._reader: int | None = None  # the connection that waits for entries, while one does
        self._unblocking: asyncio.Task[None] | None = None

    async def run(self) -> None:
        """Fetch until the lane is closed."""
        pause = 0.05
        # The lane's room is shared with the fetchers of the other partitions.
        while count := await self.lane.reserve(self._broker.partitions):
            found: list[Delivery] = []
            try:
                found = await self._reclaim(count) or await self._fetch(count)
                pause = 0.05
            except (ServerUnavailable, RedisError) as error:
                await self._recover(error)
                await asyncio.sleep(pause)
                pause = min(pause * 2, LONGEST_PAUSE)
            finally:
                self.lane.accept(found, count)

    def wake(self) -> None:
        """Look now for what is due."""
        self._woken = True
        if self._reader is not None and self._unblocking is None:
            self._unblocking = asyncio.create_task(self._unblock(self._reader))

    async def _unblock(self, reader: int) -> None:
        # The server may not have come to the read yet when we ask; then we ask again.
        with contextlib.suppress(ServerUnavailable, RedisError):
            while self._reader == reader and not await self._broker.unblock(reader):  # noqa: ASYNC110
                await asyncio.sleep(0.002)
        self._unblocking = None

    async def _reclaim(self, count: int) -> list[Delivery]:
        now = asyncio.get_running_loop().time()
        if now < self._look_at and not self._woken:
            return []
        self._woken = False
        stage = self.lane.stage.name
        found, due_in = await self._broker.reclaim(stage, self._partition, self._consumer, self._lease, count)
        # Where there was as much as there was room for, there may be more.
        pause = self._longest_look if due_in is None else min(due_in, self._longest_look)
        self._look_at = 0.0 if len(found) == count else now + pause
        return found

    async def _fetch(self, count: int) -> list[Delivery]:
        loop = asyncio.get_running_loop()
        end = self._look_at
        if self.lane.crowded():  # there are fewer places than partitions: each has its turn within one look
            end = min(end, loop.time() + self._longest_look / self._broker.partitions)
        # The server's own clock for blocked reads ticks every 100 ms, which is too coarse for what is due.
        timer = loop.call_at(end, self.wake)
        block_ms = max(1, int((end - loop.time() + 0.2) * 1000))
        try:
            stage = self.lane.stage.name
            return await self._broker.fetch(
                stage, self._partition, self._consumer, count, block_ms, started=self._blocked
            )
        finally:
            timer.cancel()
            self._reader = None

    def _blocked(self, reader: int) -> None:
        self._reader = reader
        if self._woken:
            self.wake()

    async def _recover(self, error: Exception) -> None:
        """Make a group that is gone anew; whatever else it is, waiting has to do."""
        log.warning("cannot read %s: %s", self.lane.stage.full_name, error)
        if missing_group(error):
            with contextlib.suppress(ServerUnavailable, RedisError):
                await self._broker.ensure_groups()
