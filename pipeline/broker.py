"""All of Redis, behind one object: every queue command and every transition of a job is here."""

import asyncio
import functools
import random
import zlib
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import AbstractAsyncContextManager, suppress
from itertools import repeat
from typing import Any, Literal, NamedTuple, Self, TypeVar

import msgspec
from redis.exceptions import OutOfMemoryError, RedisError

from pipeline import scripts, telemetry
from pipeline.backpressure import NO_MEMORY, MemoryGuard
from pipeline.errors import (
    BadInput,
    JobUnknown,
    Refused,
    ServerFull,
    ServerUnavailable,
    ServerUnsuitable,
    StageDraining,
    StageFull,
)
from pipeline.intake import Intake, Offer
from pipeline.keys import GROUP, LIMITED, RELEASED, RETRYING, Keys
from pipeline.message import (
    Added,
    Delivery,
    Job,
    JobId,
    Record,
    Refusal,
    decode_record,
    encode_record,
    now_ms,
    seal,
)
from pipeline.outcome import Bury, Settled, Throttled
from pipeline.outcome import Retry as RetryOutcome
from pipeline.signals import Inbox, Signals
from pipeline.stage import Pipeline, RateLimit, Stage
from pipeline.views import (
    FINISHED,
    DeadLetter,
    Depths,
    JobView,
    ServerInfo,
    StageStatus,
    add_up,
    dead_letter,
    of_finished,
    of_set_aside,
    of_unfinished,
    warnings_of,
)
from pipeline.wire import Wire, missing_group

# One script call blocks the server while it runs: 500 entries are about 2 ms.
MOST_PER_CALL = 500
# How long failures and burials stay visible in a job look-up, where the stage keeps no results itself.
FAILURE_TTL = 7 * 86_400.0
OURS = {b"e", b"i", b"t"}  # fields of an entry: envelope, job's id where it is another, account
LOOK_AGAIN = 1.0  # seconds after which whoever waits for something looks, signal or not

T = TypeVar("T")

Parked = tuple[Delivery, RetryOutcome | Throttled]


class Reclaimed(NamedTuple):
    """Entries taken over, and in how many seconds more will be due (None: nothing is known of)."""

    deliveries: list[Delivery]
    due_in: float | None


class Renewal(NamedTuple):
    """Entries that are no longer this consumer's, and those that somebody wants cancelled."""

    lost: list[bytes]
    unwanted: list[bytes]


class Broker:
    """The stages' streams on one Redis. Raises ServerUnavailable wherever the server cannot be reached."""

    def __init__(
        self,
        url: str,
        pipeline: Pipeline,
        *,
        namespace: str = "riacho",
        partitions: int = 1,
        memory_share: float = 0.9,
    ) -> None:
        self.pipeline = pipeline
        self.partitions = partitions
        self._keys = Keys(namespace)
        self._wire = Wire(url)
        self._signals = Signals(self._wire)
        self._memory = MemoryGuard(self._wire, memory_share)
        self._intakes = [
            Intake(functools.partial(self._add, partition), MOST_PER_CALL) for partition in range(partitions)
        ]
        self.address = self._wire.address
        self._traced = telemetry.enabled()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        await self._signals.close()
        await self._wire.close()

    # ── producing ────────────────────────────────────────────────────────────────────────────────

    async def add(self, jobs: Sequence[Job]) -> list[Added]:
        """Make jobs durable; one answer for each, in their order.

        Jobs for one partition (of one key, say) share a script call, whatever their stages: an event that two
        stages have to learn of is added in one step. Raises UnknownStage or BadInput before anything is added.
        """
        stages = [self.pipeline.check(job) for job in jobs]
        if refusal := await self._memory.refusal():
            return [Added(None, refusal=refusal)] * len(jobs)
        spans = (
            [telemetry.send(stage, job) for stage, job in zip(stages, jobs, strict=True)] if self._traced else []
        )
        traces = [telemetry.traceparent(span) for span in spans] or repeat("")
        places: dict[int, list[int]] = {}
        offers: list[Offer] = []
        for index, (stage, job, trace) in enumerate(zip(stages, jobs, traces, strict=False)):
            partition = self._partition(job)
            places.setdefault(partition, []).append(index)
            dedup = self._keys.dedup(stage.name, partition, job.dedup) if job.dedup else ""
            account = stage.account(job.tenant)
            offers.append((stage.name, seal(job, trace), dedup, account, int(job.delay * 1000)))
        try:
            if len(places) == 1 and len(offers) <= MOST_PER_CALL:
                return await self._intakes[next(iter(places))].add(offers)
            return await self._offer(places, offers)
        finally:
            for span in spans:
                span.end()

    async def _offer(self, places: dict[int, list[int]], offers: list[Offer]) -> list[Added]:
        answers: list[Added] = [Added(None)] * len(offers)
        for partition, indexes in places.items():
            for chunk in _chunks(indexes):
                found = await self._intakes[partition].add([offers[index] for index in chunk])
                for index, answer in zip(chunk, found, strict=True):
                    answers[index] = answer
        return answers

    async def enqueue(self, job: Job, *, patience: float = 0.0) -> JobId:
        """Make one job durable, waiting up to `patience` seconds for room.

        Raises StageFull, StageDraining or ServerFull, and what `add` raises.
        """
        loop = asyncio.get_running_loop()
        deadline = loop.time() + patience
        while True:
            (added,) = await self.add([job])
            if added.id:
                return added.id
            left = deadline - loop.time()
            if left <= 0 or added.refusal is None:
                raise _refused(self.pipeline.stage(job.stage), added.refusal)
            await asyncio.sleep(min(left, added.refusal.wait or LOOK_AGAIN, LOOK_AGAIN))

    async def _add(self, partition: int, offers: list[Offer]) -> list[Added]:
        """One script call for jobs of one partition, a section for each stage."""
        sections: dict[str, list[int]] = {}
        for index, (name, *_) in enumerate(offers):
            sections.setdefault(name, []).append(index)
        keys: list[str] = []
        args: list[Any] = [self._keys.signals]
        for name, indexes in sections.items():
            keys += self._keys.place(name, partition)
            args += _section(self.pipeline.stage(name), [offers[index] for index in indexes])
        answers: list[Added] = [Added(None, refusal=NO_MEMORY)] * len(offers)
        try:
            replies: list[list[bytes]] = await scripts.add(self._wire, keys, args)
        except ServerUnavailable as error:
            if isinstance(error.__cause__, OutOfMemoryError):  # the guard looks now and then only
                return answers
            raise
        for (name, indexes), reply in zip(sections.items(), replies, strict=True):
            for index, answer in zip(indexes, _added(name, partition, reply), strict=True):
                answers[index] = answer
        return answers

    async def cancel(self, job: JobId) -> Literal["cancelled", "cancelling"]:
        """Take a job out before it runs; one that is with a worker is told to stop ('cancelling'), and may still
        finish. Raises JobUnknown where there is no such unfinished job."""
        limit = self.pipeline.stage(job.stage).account_limit
        command = f"cancel {job.stage} {job.partition} "
        args = [GROUP, job.entry, self._keys.signals, command, limit]
        answer: bytes = await scripts.cancel(self._wire, [*self._keys.place(job.stage, job.partition)], args)
        if not answer:
            raise JobUnknown(f"no unfinished job {job}; nothing was cancelled")
        return "cancelled" if answer == b"cancelled" else "cancelling"

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
        await self._control(self.pipeline, "ensure")

    async def fetch(
        self,
        stage: str,
        partition: int,
        consumer: str,
        count: int,
        block_ms: int,
        *,
        started: Callable[[int], None] = lambda _: None,
    ) -> list[Delivery]:
        """New entries for this consumer; waits up to `block_ms` for the first. `started` is told what `unblock`
        wants to know."""
        key = self._keys.stream(stage, partition)
        command = ("XREADGROUP", "GROUP", GROUP, consumer, "COUNT", count, "BLOCK", block_ms, "STREAMS", key, ">")
        # The margin is for the server to answer after the block time; a reader must outlast it.
        reply = await self._wire.blocking(*command, timeout=block_ms / 1000 + 3, started=started)
        if not reply:
            return []
        return [
            Delivery(stage, partition, entry, fields[1], 1)
            if len(fields) == 2 and fields[0] == b"e"  # nearly always
            else _delivery(stage, partition, entry, fields, 1)
            for entry, fields in reply[0][1]
        ]

    async def unblock(self, reader: int) -> bool:
        """End a waiting fetch early; False where it is not waiting."""
        return await self._wire.unblock(reader)

    async def reclaim(self, stage: str, partition: int, consumer: str, lease: float, count: int) -> Reclaimed:
        """Take over entries that are due again or whose consumer was silent for `lease` seconds."""
        limit = self.pipeline.stage(stage).account_limit
        args = [GROUP, consumer, int(lease * 1000), min(count, MOST_PER_CALL), limit]
        due_in, found = await scripts.reclaim(self._wire, [*self._keys.place(stage, partition)], args)
        deliveries = [_delivery(stage, partition, *entry) for entry in found]
        return Reclaimed(deliveries, due_in / 1000 if due_in >= 0 else None)

    async def renew(self, stage: str, partition: int, consumer: str, held: Sequence[Delivery]) -> Renewal:
        """Reset the idle time of entries held."""
        renewal = Renewal([], [])
        for chunk in _chunks(held):
            args = [arg for delivery in chunk for arg in (delivery.entry, delivery.attempt)]
            keys = [*self._keys.place(stage, partition)]
            lost, unwanted = await scripts.renew(self._wire, keys, [GROUP, consumer, *args])
            renewal.lost.extend(lost)
            renewal.unwanted.extend(unwanted)
        return renewal

    async def progress(self, consumer: str, delivery: Delivery, percent: int) -> bool:
        """Note how far a job has come, where its stage keeps results; False if it is no longer this consumer's."""
        keep = self.pipeline.stage(delivery.stage).keep_results
        if not keep:
            return True
        keys = [*self._keys.place(delivery.stage, delivery.partition)]
        about = [delivery.entry, delivery.attempt, delivery.job, percent, int(keep * 1000)]
        return bool(await scripts.progress(self._wire, keys, [GROUP, consumer, *about]))

    async def throttle(self, limits: Sequence[RateLimit]) -> float:
        """Take a token from each of these buckets; returns the seconds to wait until all of them are there."""
        keys = [self._keys.bucket(limit.key) for limit in limits]
        args = [arg for limit in limits for arg in (1000 / limit.per_second, limit.burst)]
        wait: int = await scripts.throttle(self._wire, keys, args)
        return wait / 1000

    def signals(self) -> AbstractAsyncContextManager[Inbox]:
        """What workers are told: `wake <stage>`, `pause <stage>`, `cancel <stage> <partition> <entry>`."""
        return self._signals.listen(self._keys.signals)

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
        leaves_traces = bool(stage.keep_results or stage.account_limit)
        for delivery, settled in done:
            # A job that failed before has a record saying so, which must not outlive the success.
            if leaves_traces or delivery.since or settled.forwards or settled.cancelled:
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
        targets = list(dict.fromkeys(name for _, settled in done for name, *_ in settled.forwards))
        place = {name: index for index, name in enumerate(targets, 1)}
        args: list[Any] = [GROUP, self._keys.signals, stage.account_limit]
        for name in targets:
            args += name, self.pipeline.stage(name).account_limit, str(JobId(name, partition, ""))
        for delivery, settled in done:
            args += delivery.entry, delivery.job, *_record(stage, delivery, settled), len(settled.forwards)
            for name, envelope, account, delay in settled.forwards:
                args += place[name], envelope, account, delay
        keys = [key for name in (stage.name, *targets) for key in self._keys.place(name, partition)]
        replies: list[int] = await scripts.settle(self._wire, keys, args)
        return sum(replies)

    async def retry(self, stage: Stage, partition: int, consumer: str, failed: Sequence[Parked]) -> list[bool]:
        """Park failed entries until their backoff is over; False where one is no longer ours."""
        args: list[Any] = []
        for delivery, outcome in failed:
            match outcome:
                case RetryOutcome(after, error, counts):
                    record = Record(state="retrying", attempt=delivery.attempt, at_ms=now_ms(), error=error)
                    attempts, kept = delivery.attempt - (not counts), encode_record(record)
                case Throttled(after):
                    attempts, kept = delivery.attempt - 1, b""
            args += delivery.entry, delivery.attempt, int(after * 1000), attempts
            args += delivery.job, kept, int(FAILURE_TTL * 1000)
        return await self._park(stage.name, partition, consumer, RETRYING, args)

    async def throttled(self, stage: Stage, partition: int, consumer: str, early: Sequence[Parked]) -> list[bool]:
        """Park entries whose token is not there yet until it is; False where one is no longer ours."""
        args: list[Any] = []
        for delivery, outcome in early:
            args += delivery.entry, delivery.attempt, int(outcome.after * 1000), delivery.attempt - 1, b"", b"", 0
        return await self._park(stage.name, partition, consumer, LIMITED, args)

    async def release(
        self, stage: str, partition: int, consumer: str, deliveries: Sequence[Delivery]
    ) -> list[bool]:
        """Hand back entries that were never started: due at once, as if not delivered."""
        args: list[Any] = []
        for delivery in deliveries:
            args += delivery.entry, delivery.attempt, 0, delivery.attempt - 1, b"", b"", 0
        return await self._park(stage, partition, consumer, RELEASED, args)

    async def _park(self, stage: str, partition: int, consumer: str, lot: bytes, args: list[Any]) -> list[bool]:
        keys = [*self._keys.place(stage, partition)]
        replies = await scripts.park(self._wire, keys, [GROUP, consumer, lot, self._keys.signals, stage, *args])
        return [reply == 1 for reply in replies]

    async def bury(
        self, stage: Stage, partition: int, consumer: str, dead: Sequence[tuple[Delivery, Bury]]
    ) -> list[bool]:
        """Move entries to the dead letters; False where one is no longer ours."""
        args: list[Any] = [GROUP, consumer, stage.account_limit, int(FAILURE_TTL * 1000)]
        for delivery, outcome in dead:
            record = Record(
                state="failed",
                attempt=delivery.attempt,
                at_ms=now_ms(),
                reason=outcome.reason,
                error=outcome.error,
            )
            args += delivery.entry, delivery.attempt, delivery.job, delivery.body, encode_record(record)
        keys = [*self._keys.place(stage.name, partition), self._keys.dead(stage.name, partition)]
        return [reply == 1 for reply in await scripts.bury(self._wire, keys, args)]

    # ── steering ─────────────────────────────────────────────────────────────────────────────────

    async def pause(self, stages: Iterable[Stage]) -> None:
        """Have no job of these stages start any more, from now on and until resumed; running ones go on."""
        await self._control(stages, "pause")

    async def drain(self, stages: Iterable[Stage]) -> None:
        """Take no new jobs in for these stages, until resumed; what they have goes on, and what other stages hand
        on to them is taken."""
        await self._control(stages, "drain")

    async def resume(self, stages: Iterable[Stage]) -> None:
        """Undo `pause` and `drain`."""
        await self._control(stages, "resume")

    async def _control(self, stages: Iterable[Stage], what: str) -> None:
        for stage, partition in self._places(stages):
            keys = [*self._keys.place(stage.name, partition)]
            await scripts.control(self._wire, keys, [GROUP, what, self._keys.signals, stage.name])

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
        stage = self.pipeline.stage(name)
        keys = [*self._keys.place(name, partition), self._keys.dead(name, partition)]
        prefix = str(JobId(name, partition, ""))
        args = [prefix, letter.letter, buried.entry, stage.account(letter.tenant), stage.account_limit]
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
            view = msgspec.structs.replace(view, progress=int(progress or 0))
            if found:
                return of_unfinished(view, _body(found[0][1]), pending, record)
            if later:
                return of_set_aside(view, later, due)
            if at and at != entry:
                entry = at  # it was not in the stream yet when it got its id
                continue
            return of_finished(view, record, following) if record else None

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


def _section(stage: Stage, offers: list[Offer]) -> list[Any]:
    """What the script is told of one stage's jobs; the envelope alone where that is all there is to say."""
    limit = stage.account_limit
    full = bool(limit) or any(dedup or delay for _, _, dedup, _, delay in offers)
    args: list[Any] = [stage.name, stage.high_water, int(stage.dedup_ttl * 1000), limit, int(full), len(offers)]
    for _, *told in offers:
        args += told if full else told[:1]
    return args


def _record(stage: Stage, delivery: Delivery, settled: Settled) -> tuple[bytes, int]:
    """What to remember of a finished job, and for how many ms."""
    failed_before = delivery.attempt > 1 or delivery.since == RETRYING  # the try may not have counted
    if not (stage.keep_results or failed_before or settled.cancelled):
        return b"", 0
    state: Literal["cancelled", "completed"] = "cancelled" if settled.cancelled else "completed"
    record = Record(state=state, attempt=delivery.attempt, at_ms=now_ms(), result=settled.result)
    return encode_record(record), int((stage.keep_results or FAILURE_TTL) * 1000)


def _chunks(items: Sequence[T]) -> Iterable[Sequence[T]]:
    return (items[start : start + MOST_PER_CALL] for start in range(0, len(items), MOST_PER_CALL))


def _delivery(
    stage: str, partition: int, entry: bytes, fields: list[bytes], attempt: int, since: bytes = b""
) -> Delivery:
    origin = dict(zip(fields[::2], fields[1::2], strict=True)).get(b"i", b"")
    return Delivery(stage, partition, entry, _body(fields), attempt, origin, since)


def _body(fields: list[bytes]) -> bytes:
    """The envelope's bytes. What others put into the stream stays whole, and fails to decode later."""
    named = dict(zip(fields[::2], fields[1::2], strict=True))
    return named[b"e"] if b"e" in named and named.keys() <= OURS else msgspec.msgpack.encode(fields)


def _added(stage: str, partition: int, replies: list[bytes]) -> list[Added]:
    refused = Added(None)
    if replies[-1].startswith(b"!") and len(replies[-1]) > 1:
        reason, depth, wait = replies.pop().decode()[1:].split(" ")
        why: Any = reason
        refused = Added(None, refusal=Refusal(why, int(depth), int(wait) / 1000))
    return [refused if reply == b"!" else _accepted(stage, partition, reply) for reply in replies]


def _accepted(stage: str, partition: int, reply: bytes) -> Added:
    duplicate = reply.startswith(b"=")
    return Added(JobId(stage, partition, reply[duplicate:].decode()), duplicate)


def _refused(stage: Stage, refusal: Refusal | None) -> Refused:
    match refusal:
        case Refusal("draining"):
            return StageDraining(f"{stage.full_name} is being drained and takes no new jobs", refusal)
        case Refusal("memory", _, wait):
            return ServerFull(f"the server's memory is nearly full; try again in {wait:g} s", refusal)
        case Refusal(_, depth, wait):
            holds = f"{stage.full_name} holds {depth} unfinished jobs, as many as it may"
            return StageFull(f"{holds}; try again in {wait:g} s", refusal)
        case None:
            raise AssertionError("a job was neither taken nor refused")
