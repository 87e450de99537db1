"""For whoever runs the whole: start and stop stages, empty them."""

from collections.abc import AsyncGenerator, Iterable

from pipeline import scripts
from pipeline.broker.access import MOST_PER_CALL, Access
from pipeline.keys import GROUP
from pipeline.stage import Stage


class Steering(Access):
    """For operators."""

    async def pause(self, stages: Iterable[Stage]) -> None:
        """Have no job of these stages start any more, from now on and until resumed; running ones go on."""
        await self._steer(stages, "pause")

    async def drain(self, stages: Iterable[Stage]) -> None:
        """Take no new jobs in for these stages, until resumed; what they have goes on, and what other stages hand
        on to them is taken."""
        await self._steer(stages, "drain")

    async def resume(self, stages: Iterable[Stage]) -> None:
        """Undo `pause` and `drain`."""
        await self._steer(stages, "resume")

    async def clear(self, stages: Iterable[Stage], *, active: bool = False) -> int:
        """Delete unfinished jobs, those with a worker only if `active`; returns how many. What is added meanwhile
        stays."""
        return sum([count async for count in self.clearing(stages, active=active)])

    async def clearing(self, stages: Iterable[Stage], *, active: bool = False) -> AsyncGenerator[int, None]:
        """As `clear`, step by step: how many jobs each deleted. Whoever takes no more steps leaves the rest."""
        for stage, partition in self._places(stages):
            keys = [*self._keys.place(stage.name, partition)]
            start, last = b"0", b""
            while start:
                args = [GROUP, start, last, MOST_PER_CALL, int(active)]
                count, start, last = await scripts.clear(self._wire, keys, args)
                yield count
