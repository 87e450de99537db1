"""Writes outcomes back, many in one script call."""

import asyncio
import logging
from collections import Counter
from collections.abc import Callable

from redis.exceptions import RedisError

from pipeline.broker import MOST_PER_CALL, Broker
from pipeline.errors import ServerUnavailable
from pipeline.message import Delivery
from pipeline.outcome import Bury, Ending, Retry, Settled
from pipeline.stage import Stage

log = logging.getLogger(__name__)


# Stage, delivery, how it ended, and whom to tell when that is written; a plain tuple, as there is one a job.
_Item = tuple[Stage, Delivery, Ending, Callable[[Delivery], object]]


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

    def put(self, stage: Stage, delivery: Delivery, ending: Ending, settled: Callable[[Delivery], object]) -> None:
        """Queue an outcome; `settled` is called once it is written, or found to be another's."""
        self._waiting.append((stage, delivery, ending, settled))
        self._wake.set()

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
                await self._write(batch)
            except (ServerUnavailable, RedisError) as error:
                log.warning("outcomes of %d jobs wait to be written: %s", len(batch), error)
                await asyncio.sleep(pause)
                pause = min(pause * 2, 1.0)
            else:
                break
        for _, delivery, _, settled in batch:
            settled(delivery)

    async def _write(self, batch: list[_Item]) -> None:
        groups: dict[tuple[str, int], list[_Item]] = {}
        for item in batch:
            groups.setdefault((item[0].name, item[1].partition), []).append(item)
        calls = [
            self._write_group(group[start : start + MOST_PER_CALL])
            for group in groups.values()
            for start in range(0, len(group), MOST_PER_CALL)
        ]
        await asyncio.gather(*calls)

    async def _write_group(self, group: list[_Item]) -> None:
        stage, partition = group[0][0], group[0][1].partition
        done: list[tuple[Delivery, Settled]] = []
        failed: list[tuple[Delivery, Retry]] = []
        dead: list[tuple[Delivery, Bury]] = []
        for _, delivery, ending, _ in group:
            match ending:
                case Settled():
                    done.append((delivery, ending))
                case Retry():
                    failed.append((delivery, ending))
                case Bury():
                    dead.append((delivery, ending))
        if done:
            self._count("settled", len(done), await self._broker.settle(stage, partition, done))
        if failed:
            mine = await self._broker.retry(stage, partition, self._consumer, failed)
            self._count("retried", len(failed), sum(mine))
        if dead:
            mine = await self._broker.bury(stage, partition, self._consumer, dead)
            self._count("buried", len(dead), sum(mine))

    def _count(self, what: str, written: int, mine: int) -> None:
        self.counts[what] += mine
        self.counts["settled elsewhere"] += written - mine
