"""Dead letters: look at them, put them back to work, delete them."""

import asyncio
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import suppress
from typing import Any, NamedTuple

from pipeline import scripts, telemetry
from pipeline.broker.access import MOST_PER_CALL, Access
from pipeline.errors import BadInput
from pipeline.message import JobId, retraced, unseal
from pipeline.stage import Stage
from pipeline.views import DeadLetter, dead_letter

READ_AT_ONCE = 2**20  # bytes, and the letter that goes over them
LONGEST_LISTED = 2**14  # bytes of a job of which a list says whose it was
ANY_LENGTH = 2**53

Found = tuple[bytes, list[bytes]]  # an entry: its id, its fields


class LetterPage(NamedTuple):
    """Some dead letters, and after which letter (a place and an id there) the list goes on, if it does."""

    letters: list[DeadLetter]
    next: JobId | None


class Shelf(NamedTuple):
    """What a place, of this number, has for a page: the newest first, and whether there are more."""

    number: int
    stage: str
    partition: int
    found: list[Found]
    more: bool


class Letters(Access):
    """For operators."""

    async def dead_letters(self, stages: Iterable[Stage]) -> AsyncIterator[DeadLetter]:
        """The dead letters of some stages, oldest first within each partition."""
        for stage, partition in self._places(stages):
            start, more = b"-", True
            while more:
                about = ("XRANGE", start, "+", MOST_PER_CALL, ANY_LENGTH)
                page, more = await self._read(stage.name, partition, *about)
                for letter, fields in page:
                    yield dead_letter(stage.name, partition, letter, fields)
                    start = b"(" + letter

    async def newest_letters(self, stages: Sequence[Stage], most: int, after: JobId | None = None) -> LetterPage:
        """A page of the dead letters of some stages without their payloads, the newest first, of whichever stage.

        `after` is the `next` of the page before: what is buried meanwhile comes before it, and disturbs nothing.
        There may be fewer than `most` though there are more, where letters are long; of long ones not even the
        tenant is known. Raises BadInput where `after` is none of these stages'.
        """
        places = [(stage.name, partition) for stage, partition in self._places(stages)]
        reading = [
            self._shelf(number, *place, start, most)
            for number, (place, start) in enumerate(zip(places, _starts(places, after), strict=True))
        ]
        shelves = await asyncio.gather(*reading)
        return _page(shelves, most)

    async def dead_letter(self, job: JobId) -> DeadLetter | None:
        """A job's dead letter, in two commands however many there are; None where it has none. One that a version
        without the index buried is found by `dead_letters` alone."""
        self.pipeline.stage(job.stage)
        place = (job.stage, job.partition)
        letter = await self._wire.command("HGET", self._keys.letters(*place), job.entry)
        found = letter and await self._wire.command("XRANGE", self._keys.dead(*place), letter, letter)
        return dead_letter(*place, *found[0]) if found else None

    async def replay(self, letter: DeadLetter) -> JobId | None:
        """Put a dead letter back with all its tries before it; the new job's id, None where it was gone. It gets a
        new trace, linked to the one that it was buried in."""
        if not self._traced:
            return await self._replay(letter, b"")
        body = await self._envelope(letter)
        stage = self.pipeline.stage(JobId.parse(letter.job_id).stage)
        span = telemetry.send(stage, letter.key, unseal(body).trace if body else "")
        try:
            return await self._replay(letter, body and retraced(body, telemetry.traceparent(span)))
        finally:
            span.end()

    async def _replay(self, letter: DeadLetter, body: bytes) -> JobId | None:
        buried = JobId.parse(letter.job_id)
        name, partition, _ = buried
        stage = self.pipeline.stage(name)
        dead, letters = self._keys.dead(name, partition), self._keys.letters(name, partition)
        keys = [*self._keys.place(name, partition), dead, letters]
        prefix = str(JobId(name, partition, ""))
        args = [prefix, letter.letter, buried.entry, stage.account(letter.tenant), stage.account_limit, body]
        entry: bytes = await scripts.replay(self._wire, keys, args)
        return JobId(name, partition, entry.decode()) if entry else None

    async def _envelope(self, letter: DeadLetter) -> bytes:
        """Empty where the letter is gone, or its envelope cannot be read."""
        name, partition, _ = JobId.parse(letter.job_id)
        dead = self._keys.dead(name, partition)
        for _, fields in await self._wire.command("XRANGE", dead, letter.letter, letter.letter):
            body: bytes = dict(zip(fields[::2], fields[1::2], strict=True))[b"e"]
            with suppress(ValueError):
                unseal(body)
                return body
        return b""

    async def purge(self, stages: Iterable[Stage]) -> int:
        """Delete the dead letters of some stages for good; returns how many there were. However many: they are out
        of sight at once, and the server frees their memory beside its work."""
        places = [(stage.name, partition) for stage, partition in self._places(stages)]
        keys = [(self._keys.dead(*place), self._keys.letters(*place)) for place in places]
        replies = [await self._together([("XLEN", dead), ("UNLINK", dead, letters)]) for dead, letters in keys]
        return sum(length for length, _ in replies)

    async def _shelf(self, number: int, stage: str, partition: int, start: str, most: int) -> Shelf:
        about = ("XREVRANGE", start, "-", most, LONGEST_LISTED)
        return Shelf(number, stage, partition, *await self._read(stage, partition, *about))

    async def _read(self, stage: str, partition: int, *about: Any) -> tuple[list[Found], bool]:
        command, start, end, most, longest = about
        args = [command, start, end, most, READ_AT_ONCE, longest]
        found, more = await scripts.letters(self._wire, [self._keys.dead(stage, partition)], args)
        return [(letter, fields) for letter, fields in found], bool(more)


def _starts(places: Sequence[tuple[str, int]], after: JobId | None) -> list[str]:
    """From where on each place is read. Of letters with the same id those of the first places come first."""
    if after is None:
        return ["+"] * len(places)
    if after[:2] not in places or not after.entry.strip("0-"):  # nothing can come before 0-0
        raise BadInput(f"after = {str(after)!r} is no point in this list; take the `next` of the page before")
    come_to = places.index(after[:2])
    return [f"({after.entry}" if index <= come_to else after.entry for index in range(len(places))]


def _page(shelves: Sequence[Shelf], most: int) -> LetterPage:
    """The newest of what was read, as far as nothing newer can lie beyond the end of any shelf."""
    found = sorted(((_order(shelf, each), shelf, each) for shelf in shelves for each in shelf.found), reverse=True)
    horizon = max((_order(shelf, shelf.found[-1]) for shelf in shelves if shelf.more), default=None)
    near = [each for each in found if horizon is None or each[0] >= horizon]
    shown = near[:most]
    letters = [dead_letter(shelf.stage, shelf.partition, *each, whole=False) for _, shelf, each in shown]
    if horizon is None and len(shown) == len(found):
        return LetterPage(letters, None)
    _, shelf, (letter, _) = shown[-1]
    return LetterPage(letters, JobId(shelf.stage, shelf.partition, letter.decode()))


def _order(shelf: Shelf, found: Found) -> tuple[int, int, int]:
    """Sorts letters by age, those of the first places being newer."""
    ms, _, sequence = found[0].partition(b"-")
    return int(ms), int(sequence), -shelf.number
