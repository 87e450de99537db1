"""Entries out to workers, and their outcomes back."""

import asyncio
import contextlib
import functools
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any, NamedTuple

from redis.exceptions import RedisError

from pipeline import scripts
from pipeline.broker.access import MOST_PER_CALL, Access, body_of, chunks
from pipeline.errors import ServerUnavailable
from pipeline.keys import GROUP, RELEASED, RETRYING, limited
from pipeline.message import (
    Delivery,
    JobId,
    Record,
    State,
    encode_record,
    now_ms,
    trace_id_of,
)
from pipeline.outcome import Bury, Forward, Settled, Throttled
from pipeline.outcome import Retry as RetryOutcome
from pipeline.signals import Inbox
from pipeline.stage import RateLimit, Stage

# How long failures and burials stay visible in a job look-up, where the stage keeps no results itself.
FAILURE_TTL = 7 * 86_400.0
WORTH_NOTING = 500  # ms that a job runs


class Reclaimed(NamedTuple):
    """Entries taken over, and in how many seconds more will be due (None: nothing is known of)."""

    deliveries: list[Delivery]
    due_in: float | None


class Tokens(NamedTuple):
    """How many tokens were taken, and in how many seconds the last of them will be there."""

    wait: float
    taken: int


class Renewal(NamedTuple):
    """Entries that are no longer this consumer's, and those that somebody wants cancelled."""

    lost: list[bytes]
    unwanted: list[bytes]


class Consuming(Access):
    """For workers."""

    async def ensure_groups(self) -> None:
        """Create streams and groups that are missing, from 0: what came before the group is not lost."""
        await self._steer(self.pipeline, "ensure")

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
        listened_to = ("EXISTS", self._keys.events(partition))
        reply, listened = await self._wire.blocking(
            command, listened_to, timeout=block_ms / 1000 + 3, started=started
        )
        if not reply:
            return []
        found = [
            Delivery(stage, partition, entry, fields[1], 1)
            if len(fields) == 2 and fields[0] == b"e"  # nearly always
            else _delivery(stage, partition, entry, fields, 1)
            for entry, fields in reply[0][1]
        ]
        if listened:
            self._tell_soon("active", found)
        return found

    @functools.cached_property
    def _telling(self) -> set[asyncio.Task[None]]:
        return set()

    def _tell_soon(self, state: State, jobs: Sequence[Delivery]) -> None:
        """Tell those who listen, without waiting for it: before whatever is asked of the server from here on, and
        again never, should it go away."""
        telling = asyncio.create_task(self._tell(state, jobs))
        self._telling.add(telling)
        telling.add_done_callback(self._telling.discard)

    async def _tell(self, state: State, jobs: Sequence[Delivery]) -> None:
        args = [arg for delivery in jobs for arg in (delivery.job, delivery.attempt)]
        keys = [*self._keys.place(jobs[0].stage, jobs[0].partition)]
        with contextlib.suppress(ServerUnavailable, RedisError):
            await scripts.tell(self._wire, keys, [state, *args])

    async def unblock(self, reader: int) -> bool:
        """End a waiting fetch early; False where it is not waiting."""
        return await self._wire.unblock(reader)

    async def reclaim(self, stage: str, partition: int, consumer: str, lease: float, count: int) -> Reclaimed:
        """Take over entries that are due again or whose consumer was silent for `lease` seconds."""
        limit = self.pipeline.stage(stage).account_limit
        args = [GROUP, consumer, int(lease * 1000), min(count, MOST_PER_CALL), limit]
        keys = [*self._keys.place(stage, partition), self._keys.held_longest(stage, partition)]
        due_in, found = await scripts.reclaim(self._wire, keys, args)
        deliveries = [_delivery(stage, partition, *entry) for entry in found]
        return Reclaimed(deliveries, due_in / 1000 if due_in >= 0 else None)

    async def renew(self, stage: str, partition: int, consumer: str, held: Sequence[Delivery]) -> Renewal:
        """Reset the idle time of entries held; note for how long the oldest has been, and when those began that
        run for half a second."""
        renewal = Renewal([], [])
        keys = [*self._keys.place(stage, partition), self._keys.held_longest(stage, partition)]
        oldest_first = sorted(held, key=lambda delivery: delivery.taken)
        age = _held_for(oldest_first[0]) if held else -1
        for chunk in chunks(oldest_first):
            args = [arg for delivery in chunk for arg in _running(delivery)]
            lost, unwanted = await scripts.renew(self._wire, keys, [GROUP, consumer, age, *args])
            age = -1
            renewal.lost.extend(lost)
            renewal.unwanted.extend(unwanted)
        return renewal

    async def progress(self, consumer: str, delivery: Delivery, percent: int, doing: str = "") -> bool:
        """Note how far a job has come, where its stage keeps results; False if it is no longer this consumer's."""
        keep = self.pipeline.stage(delivery.stage).keep_results
        if not keep:
            return True
        keys = [*self._keys.place(delivery.stage, delivery.partition)]
        about = [delivery.entry, delivery.attempt, delivery.job, f"{percent} {doing}", int(keep * 1000)]
        return bool(await scripts.progress(self._wire, keys, [GROUP, consumer, *about]))

    async def throttle(self, limits: Sequence[RateLimit]) -> Tokens:
        """Take a token from each of these buckets in turn, up to the first that has none yet."""
        keys = [self._keys.bucket(limit.key) for limit in limits]
        args = [arg for limit in limits for arg in (1000 / limit.per_second, limit.burst)]
        wait, count = await scripts.throttle(self._wire, keys, args)
        return Tokens(wait / 1000, count)

    def signals(self) -> AbstractAsyncContextManager[Inbox]:
        """What workers are told: `wake <stage>`, `pause <stage>`, `cancel <stage> <partition> <entry>`."""
        return self._signals.listen(self._keys.signals)

    async def leave(self, consumer: str) -> None:
        """Forget a consumer wherever it holds nothing."""
        for stage, partition in self._places(self.pipeline):
            keys = [self._keys.stream(stage.name, partition), self._keys.held_longest(stage.name, partition)]
            await scripts.leave(self._wire, keys, [GROUP, consumer])

    # Entries of one call lie in one stage and partition.

    async def settle(self, stage: Stage, partition: int, done: Sequence[tuple[Delivery, Settled]]) -> int:
        """Finish entries and add their forwards; returns how many nobody else had settled before."""
        plain: list[Delivery] = []
        rest: list[tuple[Delivery, Settled]] = []
        leaves_traces = bool(stage.keep_results or stage.account_limit)
        for delivery, settled in done:
            # A job that failed before has a record saying so, which must not outlive the success.
            if leaves_traces or delivery.since or settled.forwards or settled.cancelled or settled.keep:
                rest.append((delivery, settled))
            else:
                plain.append(delivery)
        count = await self._settle_plain(stage, partition, plain) if plain else 0
        return count + (await self._settle_rest(stage, partition, rest) if rest else 0)

    async def _settle_plain(self, stage: Stage, partition: int, done: list[Delivery]) -> int:
        # Two commands for all of them, where the script takes six arguments and two calls for each.
        place = self._keys.place(stage.name, partition)
        entries = [delivery.entry for delivery in done]
        commands = [("XACK", place.stream, GROUP, *entries), ("XDEL", place.stream, *entries)]
        acked, _, listened_to = await self._together([*commands, ("EXISTS", place.events)])
        if listened_to:  # all have ended, whoever settled them
            self._tell_soon("completed", done)
        count: int = acked
        return count

    async def _settle_rest(self, stage: Stage, partition: int, done: list[tuple[Delivery, Settled]]) -> int:
        targets = _targets(settled.forwards for _, settled in done)
        args: list[Any] = [GROUP, self._keys.signals, stage.account_limit, *self._about(targets, partition)]
        for delivery, settled in done:
            args += delivery.entry, delivery.job, _state(settled), *_record(stage, delivery, settled)
            args += _forwarded(settled.forwards, targets)
        keys = [key for name in (stage.name, *targets) for key in self._keys.place(name, partition)]
        replies: list[int] = await scripts.settle(self._wire, keys, args)
        self._count_forwards(settled.forwards for (_, settled), mine in zip(done, replies, strict=True) if mine)
        return sum(replies)

    def _count_forwards(self, handed_on: Iterable[Sequence[Forward]]) -> None:
        if self._figures:
            for name, count in Counter(name for forwards in handed_on for name, *_ in forwards).items():
                self._figures.sent(self.pipeline.stage(name), count)

    def _about(self, targets: Iterable[str], partition: int) -> Iterator[str | int]:
        """What scripts are told of the stages that jobs are handed on to."""
        for name in targets:
            yield from (name, self.pipeline.stage(name).account_limit, str(JobId(name, partition, "")))

    async def retry(
        self, stage: Stage, partition: int, consumer: str, failed: Sequence[tuple[Delivery, RetryOutcome]]
    ) -> list[bool]:
        """Park failed entries until their backoff is over; False where one is no longer ours."""
        args: list[Any] = []
        for delivery, outcome in failed:
            record = _record_of(delivery, "retrying", error=outcome.error)
            attempts = delivery.attempt - (not outcome.counts)
            args += delivery.entry, delivery.attempt, int(outcome.after * 1000), attempts
            args += delivery.job, encode_record(record), int(FAILURE_TTL * 1000)
        return await self._park(stage.name, partition, consumer, RETRYING, args)

    async def throttled(
        self, stage: Stage, partition: int, consumer: str, early: Sequence[tuple[Delivery, Throttled]]
    ) -> list[bool]:
        """Park entries whose token is not there yet until it is; one False for each that is no longer ours."""
        args: dict[bytes, list[Any]] = defaultdict(list)
        for delivery, outcome in early:
            lot, due = limited(outcome.tokens), int(outcome.after * 1000)
            args[lot] += delivery.entry, delivery.attempt, due, delivery.attempt - 1, delivery.job, b"", 0
        parked = [await self._park(stage.name, partition, consumer, lot, some) for lot, some in args.items()]
        return [mine for some in parked for mine in some]

    async def release(
        self, stage: str, partition: int, consumer: str, deliveries: Sequence[Delivery]
    ) -> list[bool]:
        """Hand back entries that were never started, or were cut off: due at once, as if not delivered."""
        args: list[Any] = []
        for delivery in deliveries:
            args += delivery.entry, delivery.attempt, 0, delivery.attempt - 1, delivery.job, b"", 0
        return await self._park(stage, partition, consumer, RELEASED, args)

    async def _park(self, stage: str, partition: int, consumer: str, lot: bytes, args: list[Any]) -> list[bool]:
        keys = [*self._keys.place(stage, partition)]
        replies = await scripts.park(self._wire, keys, [GROUP, consumer, lot, self._keys.signals, stage, *args])
        return [reply == 1 for reply in replies]

    async def bury(
        self, stage: Stage, partition: int, consumer: str, dead: Sequence[tuple[Delivery, Bury]]
    ) -> list[bool]:
        """Move entries to the dead letters; False where one is no longer ours."""
        targets = _targets(outcome.forwards for _, outcome in dead)
        args: list[Any] = [GROUP, consumer, stage.account_limit, int(FAILURE_TTL * 1000), self._keys.signals]
        args += self._about(targets, partition)
        for delivery, outcome in dead:
            record = _record_of(delivery, "failed", reason=outcome.reason, error=outcome.error)
            args += delivery.entry, delivery.attempt, delivery.job, delivery.body, encode_record(record)
            args += _forwarded(outcome.forwards, targets)
        places = [key for name in (stage.name, *targets) for key in self._keys.place(name, partition)]
        keys = [*places, self._keys.dead(stage.name, partition), self._keys.letters(stage.name, partition)]
        mine = [reply == 1 for reply in await scripts.bury(self._wire, keys, args)]
        self._count_forwards(outcome.forwards for (_, outcome), ours in zip(dead, mine, strict=True) if ours)
        return mine


def _held_for(delivery: Delivery) -> int:
    """Milliseconds; -1 where that is not known."""
    return int((time.monotonic() - delivery.taken) * 1000) if delivery.taken else -1


def _running(delivery: Delivery) -> tuple[bytes, int, bytes, int]:
    """What a renewal says of an entry: for how long it runs where it is worth noting, as most do not for long."""
    runs = int((time.monotonic() - delivery.started) * 1000) if delivery.started else -1
    return delivery.entry, delivery.attempt, delivery.job, runs if runs >= WORTH_NOTING else -1


def _targets(all_forwards: Iterable[Sequence[Forward]]) -> dict[str, int]:
    """The stages that jobs are handed on to, numbered from 1."""
    names = dict.fromkeys(name for forwards in all_forwards for name, *_ in forwards)
    return {name: index for index, name in enumerate(names, 1)}


def _forwarded(forwards: Sequence[Forward], targets: Mapping[str, int]) -> Iterator[Any]:
    yield len(forwards)
    for name, *rest in forwards:
        yield from (targets[name], *rest)


def _state(settled: Settled) -> State:
    return "cancelled" if settled.cancelled else "completed"


def _record(stage: Stage, delivery: Delivery, settled: Settled) -> tuple[bytes, int]:
    """What to remember of a finished job, and for how many ms."""
    failed_before = delivery.attempt > 1 or delivery.since == RETRYING  # the try may not have counted
    if not (stage.keep_results or failed_before or settled.cancelled or settled.keep):
        return b"", 0
    record = _record_of(delivery, _state(settled), result=settled.result)
    return encode_record(record), int((settled.keep or stage.keep_results or FAILURE_TTL) * 1000)


def _record_of(delivery: Delivery, state: State, **about: Any) -> Record:
    """What to remember of a try that is over."""
    now = now_ms()
    began = now - int((time.monotonic() - delivery.started) * 1000) if delivery.started else 0
    trace_id = trace_id_of(delivery.trace) if delivery.trace else ""
    return Record(state=state, attempt=delivery.attempt, at_ms=now, started_ms=began, trace_id=trace_id, **about)


def _delivery(
    stage: str,
    partition: int,
    entry: bytes,
    fields: list[bytes],
    attempt: int,
    since: bytes = b"",
    late_ms: int = 0,
) -> Delivery:
    origin = dict(zip(fields[::2], fields[1::2], strict=True)).get(b"i", b"")
    return Delivery(stage, partition, entry, body_of(fields), attempt, origin, since, late_ms)
