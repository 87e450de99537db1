"""All of Redis, behind one object: every queue command and every transition of a job is here."""

import random
import zlib
from collections.abc import AsyncIterator, Iterable, Sequence
from itertools import repeat
from typing import Any, Self, TypeVar

import msgspec
from redis.exceptions import RedisError, ResponseError

from pipeline import scripts, telemetry
from pipeline.errors import ServerUnsuitable
from pipeline.keys import GROUP, RELEASED, RETRYING, Keys
from pipeline.message import (
    Added,
    Delivery,
    Job,
    JobId,
    Record,
    decode_record,
    encode_record,
    now_ms,
    seal,
)
from pipeline.outcome import Bury, Settled
from pipeline.outcome import Retry as RetryOutcome
from pipeline.stage import Pipeline, Stage
from pipeline.views import (
    DeadLetter,
    JobView,
    ServerInfo,
    StageStatus,
    add_up,
    dead_letter,
    of_finished,
    of_unfinished,
    warnings_of,
)
from pipeline.wire import Wire, missing_group

# One script call blocks the server while it runs: 500 entries are about 2 ms.
MOST_PER_CALL = 500
# How long failures and burials stay visible in a job look-up, where the stage keeps no results itself.
FAILURE_TTL = 7 * 86_400.0

T = TypeVar("T")


class Broker:
    """The stages' streams on one Redis. Raises ServerUnavailable wherever the server cannot be reached."""

    def __init__(self, url: str, pipeline: Pipeline, *, namespace: str = "riacho", partitions: int = 1) -> None:
        self.pipeline = pipeline
        self.partitions = partitions
        self._keys = Keys(namespace)
        self._wire = Wire(url)
        self.address = self._wire.address
        self._traced = telemetry.enabled()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        await self._wire.close()

    # ── producing ────────────────────────────────────────────────────────────────────────────────

    async def add(self, jobs: Sequence[Job]) -> list[Added]:
        """Make jobs durable; one answer for each, in their order.

        Jobs for one stage and partition share a script call. Raises UnknownStage or BadPayload
        before anything is added.
        """
        places: dict[tuple[str, int], list[int]] = {}
        for index, job in enumerate(jobs):
            stage = self.pipeline.check(job)
            places.setdefault((stage.name, self._partition(job)), []).append(index)
        answers: list[Added] = [Added(None)] * len(jobs)
        for (name, partition), indexes in places.items():
            for chunk in _chunks(indexes):
                batch = [jobs[index] for index in chunk]
                for index, answer in zip(chunk, await self._add(name, partition, batch), strict=True):
                    answers[index] = answer
        return answers

    async def _add(self, name: str, partition: int, batch: list[Job]) -> list[Added]:
        stage = self.pipeline.stage(name)
        spans = [telemetry.send(stage, job) for job in batch] if self._traced else []
        args: list[Any] = [stage.high_water, int(stage.dedup_ttl * 1000)]
        traces = [telemetry.traceparent(span) for span in spans] or repeat("")
        for job, trace in zip(batch, traces, strict=False):
            args.append(seal(job, trace=trace))
            args.append(self._keys.dedup(name, partition, job.dedup) if job.dedup else b"")
        try:
            replies: list[bytes] = await scripts.add(self._wire, [self._keys.stream(name, partition)], args)
        finally:
            for span in spans:
                span.end()
        return [_added(name, partition, reply) for reply in replies]

    def _places(self, stages: Iterable[Stage]) -> list[tuple[Stage, int]]:
        """Every partition of these stages."""
        return [(stage, partition) for stage in stages for partition in range(self.partitions)]

    def _partition(self, job: Job) -> int:
        if self.partitions == 1:
            return 0
        place = job.key or job.dedup
        return (zlib.crc32(place.encode()) if place else random.getrandbits(32)) % self.partitions

    # ── consuming ────────────────────────────────────────────────────────────────────────────────

    async def ensure_groups(self) -> None:
        """Create streams and groups that are missing, from 0: what came before the group is not lost."""
        for stage, partition in self._places(self.pipeline):
            try:
                key = self._keys.stream(stage.name, partition)
                await self._wire.command("XGROUP", "CREATE", key, GROUP, "0", "MKSTREAM")
            except ResponseError as error:
                if "BUSYGROUP" not in str(error):
                    raise

    async def fetch(self, stage: str, partition: int, consumer: str, count: int, block_ms: int) -> list[Delivery]:
        """New entries for this consumer; waits up to `block_ms` for the first."""
        key = self._keys.stream(stage, partition)
        group = ("GROUP", GROUP, consumer, "COUNT", count, "BLOCK", block_ms)
        # The margin is for the server to answer after the block time; a reader must outlast it.
        reply = await self._wire.command("XREADGROUP", *group, "STREAMS", key, ">", timeout=block_ms / 1000 + 3)
        entries = reply[0][1] if reply else []
        return [Delivery(stage, partition, entry, _body(fields), 1) for entry, fields in entries]

    async def reclaim(self, stage: str, partition: int, consumer: str, lease: float, count: int) -> list[Delivery]:
        """Take over entries that are due again or whose consumer was silent for `lease` seconds."""
        keys = [self._keys.stream(stage, partition), self._keys.due(stage, partition)]
        args = [GROUP, consumer, int(lease * 1000), min(count, MOST_PER_CALL)]
        reply = await scripts.reclaim(self._wire, keys, args)
        return [Delivery(stage, partition, entry, _body(fields), n) for entry, fields, n in reply]

    async def renew(self, stage: str, partition: int, consumer: str, entries: Sequence[bytes]) -> list[bytes]:
        """Reset the idle time of entries held; returns those that are no longer this consumer's."""
        lost: list[bytes] = []
        for chunk in _chunks(entries):
            key = self._keys.stream(stage, partition)
            lost += await scripts.renew(self._wire, [key], [GROUP, consumer, *chunk])
        return lost

    async def leave(self, consumer: str) -> None:
        """Forget a consumer wherever it holds nothing."""
        for stage, partition in self._places(self.pipeline):
            key = self._keys.stream(stage.name, partition)
            await scripts.leave(self._wire, [key], [GROUP, consumer])

    # ── finishing; entries of one call lie in one stage and partition ────────────────────────────

    async def settle(self, stage: Stage, partition: int, done: Sequence[tuple[Delivery, Settled]]) -> int:
        """Finish entries and add their forwards; returns how many nobody else had settled before."""
        plain: list[bytes] = []
        rest: list[tuple[Delivery, Settled]] = []
        for delivery, settled in done:
            if settled.forwards or _is_remembered(stage, delivery):
                rest.append((delivery, settled))
            else:
                plain.append(delivery.entry)
        count = await self._settle_plain(stage, partition, plain) if plain else 0
        return count + (await self._settle_rest(stage, partition, rest) if rest else 0)

    async def _settle_plain(self, stage: Stage, partition: int, entries: list[bytes]) -> int:
        # Two commands for all of them, where the script takes five arguments and two calls for each.
        stream = self._keys.stream(stage.name, partition)
        acked, _ = await self._together([("XACK", stream, GROUP, *entries), ("XDEL", stream, *entries)])
        count: int = acked
        return count

    async def _settle_rest(self, stage: Stage, partition: int, done: list[tuple[Delivery, Settled]]) -> int:
        targets = list(dict.fromkeys(name for _, settled in done for name, _ in settled.forwards))
        place = {name: index for index, name in enumerate(targets, 1)}
        args: list[Any] = [GROUP, len(targets), *(str(JobId(name, partition, "")) for name in targets)]
        for delivery, settled in done:
            args += delivery.entry, *self._record(stage, delivery, settled), len(settled.forwards)
            for name, envelope in settled.forwards:
                args += place[name], envelope
        keys = [self._keys.stream(name, partition) for name in (stage.name, *targets)]
        replies: list[int] = await scripts.settle(self._wire, keys, args)
        return sum(replies)

    def _record(self, stage: Stage, delivery: Delivery, settled: Settled) -> tuple[str, bytes, int]:
        if not _is_remembered(stage, delivery):
            return "", b"", 0
        record = Record(state="completed", attempt=delivery.attempt, at_ms=now_ms(), result=settled.result)
        ttl = stage.keep_results or FAILURE_TTL
        return self._keys.job(delivery.id), encode_record(record), int(ttl * 1000)

    async def retry(
        self, stage: Stage, partition: int, consumer: str, failed: Sequence[tuple[Delivery, RetryOutcome]]
    ) -> list[bool]:
        """Park failed entries until their backoff is over; False where one is no longer ours."""
        args: list[Any] = []
        for delivery, outcome in failed:
            record = Record(state="retrying", attempt=delivery.attempt, at_ms=now_ms(), error=outcome.error)
            count: Any = b"" if outcome.counts else delivery.attempt - 1
            args += delivery.entry, int(outcome.after * 1000), count
            args += self._keys.job(delivery.id), encode_record(record), int(FAILURE_TTL * 1000)
        return await self._park(stage.name, partition, consumer, RETRYING, args)

    async def release(
        self, stage: str, partition: int, consumer: str, deliveries: Sequence[Delivery]
    ) -> list[bool]:
        """Hand back entries that were never started: due at once, as if not delivered."""
        args: list[Any] = []
        for delivery in deliveries:
            args += delivery.entry, 0, delivery.attempt - 1, b"", b"", 0
        return await self._park(stage, partition, consumer, RELEASED, args)

    async def _park(self, stage: str, partition: int, consumer: str, lot: bytes, args: list[Any]) -> list[bool]:
        keys = [self._keys.stream(stage, partition), self._keys.due(stage, partition)]
        replies = await scripts.park(self._wire, keys, [GROUP, consumer, lot, *args])
        return [reply == 1 for reply in replies]

    async def bury(
        self, stage: Stage, partition: int, consumer: str, dead: Sequence[tuple[Delivery, Bury]]
    ) -> list[bool]:
        """Move entries to the dead letters; False where one is no longer ours."""
        args: list[Any] = [GROUP, consumer, int(FAILURE_TTL * 1000)]
        for delivery, outcome in dead:
            record = Record(
                state="failed",
                attempt=delivery.attempt,
                at_ms=now_ms(),
                reason=outcome.reason,
                error=outcome.error,
            )
            args += delivery.entry, delivery.body, self._keys.job(delivery.id), encode_record(record)
        keys = [self._keys.stream(stage.name, partition), self._keys.dead(stage.name, partition)]
        return [reply == 1 for reply in await scripts.bury(self._wire, keys, args)]

    # ── dead letters ─────────────────────────────────────────────────────────────────────────────

    async def dead_letters(self, stages: Iterable[Stage]) -> AsyncIterator[DeadLetter]:
        """The dead letters of some stages, oldest first within each partition."""
        for stage, partition in self._places(stages):
            key, start = self._keys.dead(stage.name, partition), "-"
            while page := await self._wire.command("XRANGE", key, start, "+", "COUNT", MOST_PER_CALL):
                for letter, fields in page:
                    yield dead_letter(stage.name, partition, letter, fields)
                start = f"({page[-1][0].decode()}"

    async def replay(self, letter: DeadLetter) -> JobId | None:
        """Put a dead letter back with all its tries before it; the new job's id, None where it was gone."""
        buried = JobId.parse(letter.job_id)
        name, partition, _ = buried
        keys = [self._keys.dead(name, partition), self._keys.stream(name, partition)]
        args = [str(JobId(name, partition, "")), letter.letter, self._keys.job(buried)]
        entry: bytes = await scripts.replay(self._wire, keys, args)
        return JobId(name, partition, entry.decode()) if entry else None

    async def purge(self, stages: Iterable[Stage]) -> int:
        """Delete the dead letters of some stages for good; returns how many there were."""
        keys = [self._keys.dead(stage.name, partition) for stage, partition in self._places(stages)]
        replies = [await self._together([("XLEN", key), ("DEL", key)]) for key in keys]
        return sum(length for length, _ in replies)

    # ── looking ──────────────────────────────────────────────────────────────────────────────────

    async def status(self) -> list[StageStatus]:
        """Depths of every stage, summed over its partitions; read at one moment."""
        places = self._places(self.pipeline)
        commands: list[tuple[Any, ...]] = []
        for stage, partition in places:
            stream = self._keys.stream(stage.name, partition)
            commands += ("XLEN", stream), ("XPENDING", stream, GROUP)
            commands.append(("XLEN", self._keys.dead(stage.name, partition)))
        replies = await self._together(commands)
        totals = {stage.name: StageStatus(stage.queue, stage.name) for stage in self.pipeline}
        for index, (stage, _) in enumerate(places):
            totals[stage.name] = add_up(totals[stage.name], *replies[3 * index : 3 * index + 3])
        return list(totals.values())

    async def look(self, job: JobId) -> JobView | None:
        """A job's state, or None where it is unknown or finished and no longer remembered."""
        stage = self.pipeline.stage(job.stage)
        stream = self._keys.stream(job.stage, job.partition)
        found, pending, remembered = await self._together(
            [
                ("XRANGE", stream, job.entry, job.entry),
                ("XPENDING", stream, GROUP, job.entry, job.entry, 1),
                ("HMGET", self._keys.job(job), "record", "next"),
            ]
        )
        record = decode_record(remembered[0]) if remembered[0] else None
        view = JobView(job_id=str(job), queue=stage.queue, stage=stage.name, state="waiting")
        if found:
            return of_unfinished(view, _body(found[0][1]), pending, record)
        return of_finished(view, record, remembered[1]) if record else None

    async def check(self) -> ServerInfo:
        """Ask the server what it is. Raises ServerUnavailable or ServerUnsuitable (too old)."""
        text = await self._wire.command("INFO")
        info = dict(line.split(":", 1) for line in text.decode().splitlines() if ":" in line)
        version = info.get("valkey_version") or info["redis_version"]
        if int(info["redis_version"].split(".")[0]) < 7:
            raise ServerUnsuitable(f"Redis {version} at {self.address} is too old; Riacho needs 7.0 or newer")
        return ServerInfo(version, warnings_of(info))

    async def ping(self) -> None:
        """Raise ServerUnavailable unless the server answers."""
        await self._wire.command("PING")

    async def _together(self, commands: Iterable[tuple[Any, ...]]) -> list[Any]:
        """Commands in one transaction. A missing group answers None."""
        replies = await self._wire.transaction(commands)
        for reply in replies:
            if isinstance(reply, RedisError) and not missing_group(reply):
                raise reply
        return [None if isinstance(reply, RedisError) else reply for reply in replies]


def _is_remembered(stage: Stage, delivery: Delivery) -> bool:
    # A job that failed before has a record saying so, which must not outlive the success.
    return stage.keep_results > 0 or delivery.attempt > 1


def _chunks(items: Sequence[T]) -> Iterable[Sequence[T]]:
    return (items[start : start + MOST_PER_CALL] for start in range(0, len(items), MOST_PER_CALL))


def _body(fields: list[bytes]) -> bytes:
    """The envelope's bytes. What others put into the stream stays whole, and fails to decode later."""
    return fields[1] if len(fields) == 2 and fields[0] == b"e" else msgspec.msgpack.encode(fields)


def _added(stage: str, partition: int, reply: bytes) -> Added:
    if reply == b"!":
        return Added(None)
    return Added(JobId(stage, partition, reply.lstrip(b"=").decode()), reply.startswith(b"="))
