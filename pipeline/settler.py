"""Writes outcomes back, many in one script call."""

import asyncio
import logging
from collections import Counter, defaultdict
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, Protocol

from redis.exceptions import RedisError

from pipeline.broker import MOST_PER_CALL, Broker
from pipeline.errors import ServerUnavailable
from pipeline.message import Delivery
from pipeline.outcome import Bury, Ending, Retry, Settled, Throttled
from pipeline.stage import Stage

log = logging.getLogger(__name__)


class Holder(Protocol):
    """Who holds deliveries until they are settled: a lane."""

    stage: Stage

    def let_go(self, deliveries: Iterable[Delivery]) -> None:
        """These outcomes are written, or were found to be another's."""


Ended = tuple[Delivery, Ending]
# Whose delivery ended, and how; a plain tuple, as there is one a job.
_Item = tuple[Holder, Delivery, Ending]


class Settler:
    """Collects outcomes and writes them in batches.

    While one batch is on its way the next one gathers, so an idle worker settles at once and a busy one
    in large calls, without a timer. A batch the server could not take is tried again until it can: writing
    an outcome twice is harmless, as the second time the entry is gone.
    """

    def __init__(self, broker: Broker, consumer: str) -> None:
        self.counts: Counter[str] = Counter()
        self._broker = broker
        self._consumer = consumer
        self._waiting: list[_Item] = []
        self._wake = asyncio.Event()
        self._closing = False
        self._writers: dict[type[Ending], tuple[str, Callable[..., Awaitable[list[bool]]]]] = {
            Retry: ("retried", broker.retry),
            Throttled: ("throttled", broker.throttled),
            Bury: ("buried", broker.bury),
        }

    def put(self, holder: Holder, delivery: Delivery, ending: Ending) -> None:
        """Queue an outcome; its holder is told when it is written."""
        if not self._waiting:
            self._wake.set()
        self._waiting.append((holder, delivery, ending))

    async def run(self) -> None:
        """Write until closed and empty."""
        while not (self._closing and not self._waiting):
            await self._wake.wait()
            self._wake.clear()
            while self._waiting:
                batch, self._waiting = self._waiting, []
                await self._write_until_taken(batch)

    def close(self) -> None:
        """Let `run` end when everything is written."""
        self._closing = True
        self._wake.set()

    async def _write_until_taken(self, batch: list[_Item]) -> None:
        pause = 0.05
        while True:
            try:
                return await self._write(batch)
            except (ServerUnavailable, RedisError) as error:
                log.warning("outcomes of %d jobs wait to be written: %s", len(batch), error)
                await asyncio.sleep(pause)
                pause = min(pause * 2, 1.0)

    async def _write(self, batch: list[_Item]) -> None:
        groups: dict[tuple[Holder, int], list[Ended]] = defaultdict(list)
        for holder, delivery, ending in batch:
            groups[holder, delivery.partition].append((delivery, ending))
        calls = [
            self._write_group(holder.stage, partition, group[start : start + MOST_PER_CALL])
            for (holder, partition), group in groups.items()
            for start in range(0, len(group), MOST_PER_CALL)
        ]
        await asyncio.gather(*calls)
        for (holder, _), group in groups.items():
            holder.let_go(delivery for delivery, _ in group)

    async def _write_group(self, stage: Stage, partition: int, group: list[Ended]) -> None:
        kinds: dict[type[Ending], list[Any]] = defaultdict(list)
        for ended in group:
            kinds[type(ended[1])].append(ended)
        if done := kinds.pop(Settled, None):
            self._count("settled", len(done), await self._broker.settle(stage, partition, done))
        for kind, rest in kinds.items():
            what, write = self._writers[kind]
            mine = await write(stage, partition, self._consumer, rest)
            self._count(what, len(rest), sum(mine))

    def _count(self, what: str, written: int, mine: int) -> None:
        self.counts[what] += mine
        self.counts["settled elsewhere"] += written - mine
