"""For whoever runs the whole: start and stop stages, empty them, care for dead letters."""

from collections.abc import AsyncIterator, Iterable

from pipeline import scripts
from pipeline.broker.access import MOST_PER_CALL, Access
from pipeline.keys import GROUP
from pipeline.message import (
    JobId,
)
from pipeline.stage import Stage
from pipeline.views import (
    DeadLetter,
    dead_letter,
)


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
        deleted = 0
        for stage, partition in self._places(stages):
            keys = [*self._keys.place(stage.name, partition)]
            start, last = b"0", b""
            while start:
                args = [GROUP, start, last, MOST_PER_CALL, int(active)]
                count, start, last = await scripts.clear(self._wire, keys, args)
                deleted += count
        return deleted

    async def dead_letters(self, stages: Iterable[Stage]) -> AsyncIterator[DeadLetter]:
        """The dead letters of some stages, oldest first within each partition."""
        for stage, partition in self._places(stages):
            key, start = self._keys.dead(stage.name, partition), "-"
            while page := await self._wire.command("XRANGE", key, start, "+", "COUNT", MOST_PER_CALL):
                for letter, fields in page:
                    yield dead_letter(stage.name, partition, letter, fields)
                start = f"({page[-1][0].decode()}"

    async def dead_letter(self, job: JobId) -> DeadLetter | None:
        """A job's dead letter, in two commands however many there are; None where it has none. One that a version
        without the index buried is found by `dead_letters` alone."""
        self.pipeline.stage(job.stage)
        place = (job.stage, job.partition)
        letter = await self._wire.command("HGET", self._keys.letters(*place), job.entry)
        found = letter and await self._wire.command("XRANGE", self._keys.dead(*place), letter, letter)
        return dead_letter(*place, *found[0]) if found else None

    async def replay(self, letter: DeadLetter) -> JobId | None:
        """Put a dead letter back with all its tries before it; the new job's id, None where it was gone."""
        buried = JobId.parse(letter.job_id)
        name, partition, _ = buried
        stage = self.pipeline.stage(name)
        dead, letters = self._keys.dead(name, partition), self._keys.letters(name, partition)
        keys = [*self._keys.place(name, partition), dead, letters]
        prefix = str(JobId(name, partition, ""))
        args = [prefix, letter.letter, buried.entry, stage.account(letter.tenant), stage.account_limit]
        entry: bytes = await scripts.replay(self._wire, keys, args)
        return JobId(name, partition, entry.decode()) if entry else None

    async def purge(self, stages: Iterable[Stage]) -> int:
        """Delete the dead letters of some stages for good; returns how many there were."""
        places = [(stage.name, partition) for stage, partition in self._places(stages)]
        keys = [(self._keys.dead(*place), self._keys.letters(*place)) for place in places]
        replies = [await self._together([("XLEN", dead), ("DEL", dead, letters)]) for dead, letters in keys]
        return sum(length for length, _ in replies)
