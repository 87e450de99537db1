"""What is told of jobs' transitions while somebody listens."""

from collections.abc import AsyncGenerator, Callable, Sequence

from pipeline import scripts
from pipeline.broker.access import MOST_PER_CALL, Access
from pipeline.events import Span, Told, order

FOLLOWED = 60.0  # seconds for which transitions are told, after each time somebody asks for it


class Following(Access):
    """For whoever wants to see jobs come and go."""

    async def follow(self) -> list[Span]:
        """Have transitions told for FOLLOWED seconds more; what there is of them, by partition."""
        keys = [self._keys.events(partition) for partition in range(self.partitions)]
        return [Span(*await scripts.follow(self._wire, [key], [int(FOLLOWED * 1000)])) for key in keys]

    async def events_after(
        self, position: Sequence[bytes], wait: float, started: Callable[[int], None]
    ) -> tuple[list[Told], bool]:
        """The next events of all partitions, MOST_PER_CALL of each at the most; waits so many seconds for one. And
        whether they are told of still: a server that was emptied knows of no listeners. `started` is told what
        `unblock` wants to know."""
        partitions = {self._keys.events(partition): partition for partition in range(self.partitions)}
        reading = ("XREAD", "COUNT", MOST_PER_CALL, "BLOCK", max(1, int(wait * 1000)), "STREAMS")
        reply, there = await self._wire.blocking(
            (*reading, *partitions, *position), ("EXISTS", *partitions), timeout=wait + 3, started=started
        )
        found = [
            _told(partitions[key.decode()], entry, fields)
            for key, entries in reply or ()
            for entry, fields in entries
        ]
        return found, there == self.partitions

    async def events_between(self, partition: int, after: bytes, until: bytes) -> AsyncGenerator[list[Told]]:
        """A partition's events after one, up to another that is included, page by page. What is trimmed meanwhile
        is an event in which nothing is said."""
        key, start = self._keys.events(partition), after
        while order(start) < order(until):
            page = await self._wire.command("XRANGE", key, start, until, "COUNT", MOST_PER_CALL + 1)
            # Where the one before is there still, so is all that came after it.
            there = bool(page) and order(page[0][0]) == order(start)
            found = [_told(partition, entry, fields) for entry, fields in page[there:]]
            yield found if there else [Told(partition, start, None), *found]
            if not found:
                return
            start = found[-1].id


def _told(partition: int, entry: bytes, fields: list[bytes]) -> Told:
    # The first entry of a stream says that it is new: what is told before it was lost with the one before.
    return Told(partition, entry, fields[1] if fields[0] == b"j" else None)
