"""What every part of the broker needs: connections, key names, the pipeline."""

from collections.abc import Iterable, Sequence
from typing import Any, Self, TypeVar

import msgspec
from redis.exceptions import RedisError

from pipeline import metrics, scripts, telemetry
from pipeline.backpressure import MemoryGuard
from pipeline.keys import GROUP, Keys
from pipeline.signals import Signals
from pipeline.stage import Pipeline, Stage
from pipeline.wire import Wire, missing_group

# One script call blocks the server while it runs: 500 entries are about 2 ms.
MOST_PER_CALL = 500
LOOK_AGAIN = 1.0  # seconds after which whoever waits for something looks, signal or not
OURS = {b"e", b"i", b"t"}  # fields of an entry: envelope, job's id where it is another, account

T = TypeVar("T")


class Access:
    """One server, one namespace. Raises ServerUnavailable wherever the server cannot be reached, or does not
    answer within `patience` seconds: then what it was asked for may be done later all the same."""

    def __init__(
        self,
        url: str,
        pipeline: Pipeline,
        *,
        namespace: str = "riacho",
        partitions: int = 1,
        memory_share: float = 0.9,
        patience: float | None = None,
    ) -> None:
        self.pipeline = pipeline
        self.partitions = partitions
        self._keys = Keys(namespace)
        self._figures = metrics.sending()
        self._wire = Wire(url, patience, self._figures)
        self._signals = Signals(self._wire)
        self._memory = MemoryGuard(self._wire, memory_share)
        self.address = self._wire.address
        self._traced = telemetry.enabled()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        await self._signals.close()
        await self._wire.close()

    def _places(self, stages: Iterable[Stage]) -> list[tuple[Stage, int]]:
        """Every partition of these stages."""
        return [(stage, partition) for stage in stages for partition in range(self.partitions)]

    async def _steer(self, stages: Iterable[Stage], what: str) -> None:
        """Make the groups of these stages as they should be, and more so by `what` (lua/control.lua)."""
        for stage, partition in self._places(stages):
            keys = [*self._keys.place(stage.name, partition)]
            await scripts.control(self._wire, keys, [GROUP, what, self._keys.signals, stage.name])

    async def _together(self, commands: Iterable[tuple[Any, ...]]) -> list[Any]:
        """Commands in one transaction. A missing group answers None."""
        replies = await self._wire.transaction(commands)
        for reply in replies:
            if isinstance(reply, RedisError) and not missing_group(reply):
                raise reply
        return [None if isinstance(reply, RedisError) else reply for reply in replies]


def chunks(items: Sequence[T]) -> Iterable[Sequence[T]]:
    return (items[start : start + MOST_PER_CALL] for start in range(0, len(items), MOST_PER_CALL))


def body_of(fields: list[bytes]) -> bytes:
    """The envelope's bytes. What others put into the stream stays whole, and fails to decode later."""
    named = dict(zip(fields[::2], fields[1::2], strict=True))
    return named[b"e"] if b"e" in named and named.keys() <= OURS else msgspec.msgpack.encode(fields)
