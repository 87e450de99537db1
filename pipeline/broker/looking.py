"""How stages, jobs and the server are."""

import asyncio
from contextlib import suppress
from typing import Any

import msgspec
from redis.exceptions import RedisError

from pipeline.broker.access import LOOK_AGAIN, Access, body_of
from pipeline.errors import (
    BadInput,
    JobUnknown,
    ServerUnsuitable,
)
from pipeline.keys import GROUP
from pipeline.message import (
    JobId,
    decode_record,
)
from pipeline.views import (
    FINISHED,
    Depths,
    JobView,
    ServerInfo,
    StageStatus,
    add_up,
    live_consumers,
    of_finished,
    of_set_aside,
    of_unfinished,
    warnings_of,
)


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

    async def look(self, job: JobId) -> JobView | None:
        """A job's state, or None where it is unknown or finished and no longer remembered."""
        stage = self.pipeline.stage(job.stage)
        view = JobView(job_id=str(job), queue=stage.queue, stage=stage.name, state="waiting")
        place = self._keys.place(job.stage, job.partition)
        entry: Any = job.entry
        while True:
            found, pending, remembered, later, due = await self._together(
                [
                    ("XRANGE", place.stream, entry, entry),
                    ("XPENDING", place.stream, GROUP, entry, entry, 1),
                    ("HMGET", place.job + job.entry, "record", "next", "progress", "at"),
                    ("HGET", place.later, job.entry),
                    ("ZSCORE", place.delays, job.entry),
                ]
            )
            written, following, progress, at = remembered
            record = decode_record(written) if written else None
            percent, _, doing = (progress or b"0").decode().partition(" ")
            view = msgspec.structs.replace(view, progress=int(percent))
            if found:
                view = of_unfinished(view, body_of(found[0][1]), pending, record)
                return msgspec.structs.replace(view, doing=doing) if view.state == "active" else view
            if later:
                return of_set_aside(view, later, due)
            if at and at != entry:
                entry = at  # it was not in the stream yet when it got its id
                continue
            return of_finished(view, record, following) if record else None

    async def check(self) -> ServerInfo:
        """Ask the server what it is. Raises ServerUnavailable or ServerUnsuitable (too old)."""
        info = await self._wire.info()
        version = info.get("valkey_version") or info["redis_version"]
        if int(info["redis_version"].split(".")[0]) < 7:
            raise ServerUnsuitable(f"Redis {version} at {self.address} is too old; Riacho needs 7.0 or newer")
        return ServerInfo(version, warnings_of(info))

    async def workers(self, silent: float) -> dict[str, int]:
        """How many workers each stage has: those that were heard of within `silent` seconds.

        A worker counts once it reads, so its stages have been prepared.
        """
        places = self._places(self.pipeline)
        streams = [self._keys.place(stage.name, partition).stream for stage, partition in places]
        replies = await self._wire.transaction([("XINFO", "CONSUMERS", stream, GROUP) for stream in streams])
        found: dict[str, set[bytes]] = {stage.name: set() for stage in self.pipeline}
        for (stage, _), reply in zip(places, replies, strict=True):
            if not isinstance(reply, RedisError):  # else nobody has made the group yet
                found[stage.name].update(live_consumers(reply, silent))
        return {stage: len(names) for stage, names in found.items()}

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
        loop = asyncio.get_running_loop()
        deadline = loop.time() + timeout
        async with self._signals.listen(self._keys.job(job)) as inbox:
            while (left := deadline - loop.time()) > 0:
                view = await self.look(job)
                if view is None:
                    raise JobUnknown(f"no job {job}: it never was, or it is finished and no longer remembered")
                if view.state in FINISHED:
                    return view
                with suppress(TimeoutError):
                    await asyncio.wait_for(inbox.get(), min(left, LOOK_AGAIN))
        raise TimeoutError(f"{job} was not finished within {timeout:g} s")
