"""How stages, jobs and the server are."""

import asyncio
import time
from collections import Counter
from collections.abc import Iterable
from contextlib import suppress
from typing import Any

import msgspec
from redis.exceptions import RedisError

from pipeline import scripts
from pipeline.backpressure import Memory
from pipeline.broker.access import LOOK_AGAIN, Access, body_of
from pipeline.errors import (
    BadInput,
    JobUnknown,
    ServerUnsuitable,
)
from pipeline.flow import Count, Place
from pipeline.keys import GROUP
from pipeline.message import (
    JobId,
    decode_record,
)
from pipeline.views import (
    FINISHED,
    Consumer,
    Depths,
    JobView,
    ServerFacts,
    ServerInfo,
    StageAges,
    StageStatus,
    WorkerView,
    add_up,
    consumers_of,
    facts_of,
    of_finished,
    of_set_aside,
    of_unfinished,
    tenant_of,
    workers_of,
)

PINGS = 5
MOST_WORKERS = 1000  # shown
MOST_BEFORE = 1000  # jobs that are counted before one: a millisecond of the server's
LETTERS = 100  # at a time: an envelope may have megabytes


class Looking(Access):
    """For whoever wants to know."""

    async def status(self) -> list[StageStatus]:
        """Depths of every stage, summed over its partitions; read at one moment."""
        places = self._places(self.pipeline)
        commands: list[tuple[Any, ...]] = []
        for stage, partition in places:
            place = self._keys.place(stage.name, partition)
            commands += ("XLEN", place.stream), ("XPENDING", place.stream, GROUP), ("HLEN", place.later)
            commands += ("ZCARD", place.delays), ("HMGET", place.control, "paused", "draining")
            commands.append(("XLEN", self._keys.dead(stage.name, partition)))
        replies = await self._together(commands)
        totals = {stage.name: StageStatus(stage.queue, stage.name) for stage in self.pipeline}
        for index, (stage, _) in enumerate(places):
            totals[stage.name] = add_up(totals[stage.name], Depths(*replies[6 * index : 6 * index + 6]))
        return list(totals.values())

    async def flow(self) -> dict[Place, Count]:
        """What each partition of a stage has taken in and still holds: one call for all stages of a partition."""
        names = [stage.name for stage in self.pipeline]
        partitions = range(self.partitions)
        replies = await asyncio.gather(*(self._count(names, partition) for partition in partitions))
        return {
            (name, partition): Count(*count)
            for partition, counts in zip(partitions, replies, strict=True)
            for name, count in zip(names, counts, strict=True)
        }

    async def _count(self, stages: list[str], partition: int) -> list[list[int]]:
        keys = [key for stage in stages for key in self._keys.place(stage, partition)]
        counts: list[list[int]] = await scripts.count(self._wire, keys, [])
        return counts

    async def memory(self) -> Memory:
        """The server's memory, and whether it is too full to take anything in."""
        return await self._memory.look()

    async def look(self, job: JobId) -> JobView | None:
        """A job's state, or None where it is unknown or finished and no longer remembered."""
        view, entry = await self._state(job)
        if view and view.state == "waiting":
            return await self._with_position(view, job, entry)
        return view

    async def _with_position(self, view: JobView, job: JobId, entry: str) -> JobView:
        args = [GROUP, entry, job.entry, MOST_BEFORE]
        found = await scripts.position(self._wire, [*self._keys.place(job.stage, job.partition)], args)
        if not found:
            return view  # somebody was given it meanwhile
        count, more = found
        return msgspec.structs.replace(view, position=count, position_at_least=bool(more))

    async def _state(self, job: JobId) -> tuple[JobView | None, str]:
        """A job without its position, and where its entry is, if it has one."""
        stage = self.pipeline.stage(job.stage)
        view = JobView(job_id=str(job), queue=stage.queue, stage=stage.name, state="waiting")
        place = self._keys.place(job.stage, job.partition)
        entry = job.entry
        while True:
            found, pending, remembered, later, due = await self._together(
                [
                    ("XRANGE", place.stream, entry, entry),
                    ("XPENDING", place.stream, GROUP, entry, entry, 1),
                    ("HMGET", place.job + job.entry, "record", "next", "progress", "at", "started"),
                    ("HGET", place.later, job.entry),
                    ("ZSCORE", place.delays, job.entry),
                ]
            )
            written, following, progress, at, started = remembered
            record = decode_record(written) if written else None
            percent, _, doing = (progress or b"0").decode().partition(" ")
            view = msgspec.structs.replace(view, progress=int(percent))
            if found:
                view = of_unfinished(view, body_of(found[0][1]), pending, record, started)
                return (msgspec.structs.replace(view, doing=doing) if view.state == "active" else view), entry
            if later:
                return of_set_aside(view, later, due), entry
            if at and at.decode() != entry:
                entry = at.decode()  # it was not in the stream yet when it got its id
                continue
            return (of_finished(view, record, following) if record else None), entry

    async def check(self) -> ServerInfo:
        """Ask the server what it is. Raises ServerUnavailable or ServerUnsuitable (too old)."""
        server = await self._server()
        return ServerInfo(server.version, server.warnings)

    async def server(self) -> ServerFacts:
        """How the server is. Raises as `check` does."""
        latency = min([await self._ping_time() for _ in range(PINGS)])  # the first one connects
        return await self._server(latency)

    async def _server(self, latency: float = 0.0) -> ServerFacts:
        info = await self._wire.info()
        facts = facts_of(info, latency)
        if int(info["redis_version"].split(".")[0]) < 7:
            what = f"Redis {facts.version} at {self.address}"
            raise ServerUnsuitable(f"{what} is too old; Riacho needs 7.0 or newer")
        return facts

    async def _ping_time(self) -> float:
        began = time.perf_counter()
        await self.ping()
        return time.perf_counter() - began

    async def ages(self) -> dict[str, StageAges]:
        """How old the oldest work of each stage is: a few commands for each of its partitions and workers."""
        places = self._places(self.pipeline)
        replies = await asyncio.gather(*(self._ages(stage.name, partition) for stage, partition in places))
        found: dict[str, list[list[int]]] = {stage.name: [] for stage in self.pipeline}
        for (stage, _), reply in zip(places, replies, strict=True):
            found[stage.name].append(reply)
        return {name: StageAges(*map(_oldest, zip(*some, strict=True))) for name, some in found.items()}

    async def _ages(self, stage: str, partition: int) -> list[int]:
        keys = [*self._keys.place(stage, partition), self._keys.held_longest(stage, partition)]
        ages: list[int] = await scripts.ages(self._wire, keys, [GROUP])
        return ages

    async def buried_between(self, since_ms: int, until_ms: int) -> dict[str, int]:
        """How many jobs of each tenant were buried from `since_ms` on, before `until_ms`, of those that are dead
        letters still: a replayed one is none. What cannot be read counts for the tenant ''."""
        counts: Counter[str] = Counter()
        for stage, partition in self._places(self.pipeline):
            key, start, end = self._keys.dead(stage.name, partition), str(since_ms), f"({until_ms}-0"
            while page := await self._wire.command("XRANGE", key, start, end, "COUNT", LETTERS):
                counts.update(tenant_of(fields) for _, fields in page)
                start = f"({page[-1][0].decode()}"
        return dict(counts)

    async def workers(self, silent: float) -> dict[str, int]:
        """How many workers each stage has: those that were heard of within `silent` seconds.

        A worker counts once it reads, so its stages have been prepared.
        """
        found: dict[str, set[str]] = {stage.name: set() for stage in self.pipeline}
        for stage, consumer in await self._consumers():
            if consumer.silent <= silent:
                found[stage].add(consumer.name)
        return {stage: len(names) for stage, names in found.items()}

    async def every_worker(self) -> list[WorkerView]:
        """All workers that left a trace, whoever was heard of last first; no more than 1,000."""
        return workers_of(await self._consumers())[:MOST_WORKERS]

    async def _consumers(self) -> list[tuple[str, Consumer]]:
        """Every worker on every stage's partition."""
        places = self._places(self.pipeline)
        streams = [self._keys.place(stage.name, partition).stream for stage, partition in places]
        replies = await self._wire.transaction([("XINFO", "CONSUMERS", stream, GROUP) for stream in streams])
        answered = zip(places, replies, strict=True)  # with an error where nobody has made the group yet
        told = [(stage.name, reply) for (stage, _), reply in answered if not isinstance(reply, RedisError)]
        return [(stage, consumer) for stage, reply in told for consumer in consumers_of(reply)]

    async def ping(self) -> None:
        """Raise ServerUnavailable unless the server answers."""
        await self._wire.command("PING")

    async def result(self, job: JobId, *, timeout: float) -> JobView:
        """Wait until a job is completed, failed or cancelled.

        Raises BadInput where its stage keeps no results, JobUnknown, and TimeoutError after `timeout` seconds.
        """
        stage = self.pipeline.stage(job.stage)
        if not stage.keep_results:
            raise BadInput(f"{stage.full_name} keeps no results: its stage needs keep_results to be waited for")
        return await self._end_of(job, timeout)

    async def _end_of(self, job: JobId, timeout: float) -> JobView:
        loop = asyncio.get_running_loop()
        deadline = loop.time() + timeout
        async with self._signals.listen(self._keys.job(job)) as inbox:
            while (left := deadline - loop.time()) > 0:
                view, _ = await self._state(job)
                if view is None:
                    raise JobUnknown(f"no job {job}: it never was, or it is finished and no longer remembered")
                if view.state in FINISHED:
                    return view
                with suppress(TimeoutError):
                    await asyncio.wait_for(inbox.get(), min(left, LOOK_AGAIN))
        raise TimeoutError(f"{job} was not finished within {timeout:g} s")


def _oldest(ages: Iterable[int]) -> float | None:
    """The greatest of some ages in ms, -1 being none, in seconds."""
    most = max(ages, default=-1)
    return most / 1000 if most >= 0 else None
