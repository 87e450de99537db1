"""Writes outcomes back, many in one script call."""

import asyncio
import logging
from collections import Counter, defaultdict
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, Protocol

from redis.exceptions import RedisError

from pipeline import metrics
from pipeline.broker import MOST_PER_CALL, Broker
from pipeline.errors import ServerUnavailable
from pipeline.message import Delivery
from pipeline.outcome import Bury, Ending, Retry, Settled, Throttled
from pipeline.stage import Stage

log = logging.getLogger(__name__)

Ended = tuple[Delivery, Ending]


class Holder(Protocol):
    """Who holds deliveries until they are settled: a lane."""

    stage: Stage

    def take_ended(self) -> list[Ended]:
        """What ended since this was asked last."""

    def let_go(self, ended: Iterable[Ended]) -> None:
        """These outcomes are written, or were found to be another's."""


_Batch = tuple[Holder, list[Ended]]


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
        self._waiting: list[Holder] = []
        self._wake = asyncio.Event()
        self._closing = False
        self._figures = metrics.work()
        self._writers: dict[type[Ending], tuple[str, Callable[..., Awaitable[list[bool]]]]] = {
            Retry: ("retried", broker.retry),
            Throttled: ("throttled", broker.throttled),
            Bury: ("buried", broker.bury),
        }

    def come(self, holder: Holder) -> None:
        """Something ended there: take it, when there is time for it."""
        self._waiting.append(holder)
        self._wake.set()

    async def run(self) -> None:
        """Write until closed and empty."""
        while not (self._closing and not self._waiting):
            await self._wake.wait()
            self._wake.clear()
            while self._waiting:
                holders, self._waiting = self._waiting, []
                await self._write_until_taken([(holder, holder.take_ended()) for holder in holders])

    def close(self) -> None:
        """Let `run` end when everything is written."""
        self._closing = True
        self._wake.set()

    async def _write_until_taken(self, batch: list[_Batch]) -> None:
        pause = 0.05
        while True:
            try:
                return await self._write(batch)
            except (ServerUnavailable, RedisError) as error:
                count = sum(len(ended) for _, ended in batch)
                log.warning("outcomes of %d jobs wait to be written: %s", count, error)
                await asyncio.sleep(pause)
                pause = min(pause * 2, 1.0)

    async def _write(self, batch: list[_Batch]) -> None:
        calls = [
            self._write_group(holder.stage, partition, group[start : start + MOST_PER_CALL])
            for holder, ended in batch
            for partition, group in self._by_partition(ended)
            for start in range(0, len(group), MOST_PER_CALL)
        ]
        await asyncio.gather(*calls)
        for holder, ended in batch:
            holder.let_go(ended)

    def _by_partition(self, ended: list[Ended]) -> Iterable[tuple[int, list[Ended]]]:
        if self._broker.partitions == 1:
            return [(0, ended)]
        groups: dict[int, list[Ended]] = defaultdict(list)
        for one in ended:
            groups[one[0].partition].append(one)
        return groups.items()

    async def _write_group(self, stage: Stage, partition: int, group: list[Ended]) -> None:
        kinds: dict[type[Ending], list[Any]] = defaultdict(list)
        for ended in group:
            kinds[type(ended[1])].append(ended)
        if done := kinds.pop(Settled, None):
            self._count(stage, "settled", done, await self._broker.settle(stage, partition, done))
        for kind, rest in kinds.items():
            what, write = self._writers[kind]
            mine = await write(stage, partition, self._consumer, rest)
            self._count(stage, what, rest, sum(mine))

    def _count(self, stage: Stage, what: str, written: list[Ended], mine: int) -> None:
        self.counts[what] += mine
        self.counts["settled elsewhere"] += len(written) - mine
        if self._figures:
            self._figures.settled(stage, what, written, mine)
