"""The broker against a model of it: workers that crash, come too late or say everything twice, people who cancel,
pause and clear, and a clock that jumps. After every step the server holds what the model says, no job more, none
less; in the end honest workers finish whatever is left."""

import asyncio
import secrets
from collections import Counter
from collections.abc import Callable, Coroutine, Iterator, Sequence
from functools import partial
from typing import Any, Literal, NamedTuple, TypeVar

import msgspec
import pytest
import uvloop
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from redis.exceptions import ResponseError

from pipeline import Broker, Bury, Job, JobId, Pipeline, Retry, Stage
from pipeline.errors import JobUnknown
from pipeline.executor import CANCELLED, NIL
from pipeline.keys import GROUP, RETRYING, Keys
from pipeline.message import Added, Delivery, State, seal, unseal
from pipeline.outcome import Settled, Throttled
from pipeline.stage import Handler
from pipeline.views import DeadLetter
from pipeline.wire import Wire, missing_group
from tests.faults.model import ASIDE, LEASE, UNFINISHED, Model, ModelJob
from tests.support import Number, unused

pytestmark = pytest.mark.faults

# A unit of the model's time, in seconds: what an example takes itself is nothing to it.
UNIT = 1000
LITTLE = 1000  # ms by which a jump is longer, so that nothing hangs on the server's clock being exact
PLENTY = 100


class Brief(Stage, frozen=True, kw_only=True):
    """A stage that a failing example shows by its name."""

    queue: str = "test"
    payload: type = Number
    handler: Handler = unused

    def __repr__(self) -> str:
        return self.name


STAGES: list[Stage] = [
    Brief(name="open"),
    Brief(name="fair", keep_results=3600.0, tenant_limit=2),
    Brief(name="shared", shared_limit=2),
    Brief(name="low", keep_results=3600.0, high_water=3),
]
PIPELINE = Pipeline(STAGES)
DONE = Settled(NIL)

# The server's clock cannot be set, but all it compares with it can: times due, and how long entries lie idle.
JUMP = """
local dt, group = tonumber(ARGV[1]), ARGV[2]
for n = 1, #KEYS, 3 do
  for _, times in ipairs({KEYS[n + 1], KEYS[n + 2]}) do
    for _, id in ipairs(redis.call('ZRANGE', times, 0, -1)) do redis.call('ZINCRBY', times, -dt, id) end
  end
  local pending = redis.pcall('XPENDING', KEYS[n], group, '-', '+', 1000)
  if not pending.err then
    for _, entry in ipairs(pending) do
      local id, owner, idle = entry[1], entry[2], entry[3]
      if string.sub(owner, 1, 1) ~= '~' then
        redis.call('XCLAIM', KEYS[n], group, owner, 0, id, 'IDLE', idle + dt, 'JUSTID')
      end
    end
  end
end
"""

T = TypeVar("T")
Way = Literal["retrying", "limited", "released", "buried"]

stages = st.sampled_from(STAGES)
some_stages = st.lists(stages, min_size=1, unique=True)
few_stages = st.lists(stages, min_size=1, max_size=2, unique=True)
consumers = st.sampled_from(["a", "b"])
some_consumers = st.lists(consumers, unique=True)
tenants = st.sampled_from(["", "x", "y"])
dedups = st.sampled_from(["", "", "d", "e"])
delays = st.sampled_from([0, 0, 1, 3])
rooms = st.sampled_from([1, 2, 3, PLENTY])
indexes = st.integers(0, 30)  # taken modulo however many there are
picks = st.lists(indexes, min_size=1, max_size=4)
new_jobs = st.lists(st.tuples(stages, tenants, dedups, delays), min_size=1, max_size=6)
ways: st.SearchStrategy[Way] = st.sampled_from(["retrying", "limited", "released", "buried"])
steering = st.sampled_from(["resume", "pause", "pause", "drain", "clear", "clear all"])
mishaps = st.sampled_from(["crash", "group", "group", "scripts", "leave"])
forwards = st.lists(st.tuples(stages, delays), max_size=3)


class Held(NamedTuple):
    """What a consumer believes to hold, and may be wrong about."""

    consumer: str
    delivery: Delivery
    job: ModelJob


class End(NamedTuple):
    """What a handler returned, its forwards still to be sealed: stage, payload, delay."""

    settled: Settled
    forwards: list[tuple[Stage, int, int]]


class Content(NamedTuple):
    """All that the server has of one stage's unfinished jobs."""

    entries: dict[str, dict[bytes, bytes]]  # by id, first come first
    later: dict[str, bytes]
    delays: dict[str, bool]  # by id, first due first, whether the time has come
    due: dict[str, bool]
    tenants: dict[str, int]


def content_of(now: int, entries: Any, later: Any, delays: Any, due: Any, tenants: Any) -> Content:
    """What the server answered, easier to compare."""
    return Content(
        {entry.decode(): dict(in_pairs(fields)) for entry, fields in entries},
        {entry.decode(): kept for entry, kept in in_pairs(later)},
        {entry.decode(): float(score) < now + 1 for entry, score in in_pairs(delays)},
        {entry.decode(): float(score) < now + 1 for entry, score in in_pairs(due)},
        {tenant.decode(): int(held) for tenant, held in in_pairs(tenants)},
    )


def in_pairs(flat: list[bytes]) -> Iterator[tuple[bytes, bytes]]:
    return zip(flat[::2], flat[1::2], strict=True)


def number_of(body: bytes) -> int:
    """The payload of an envelope."""
    return msgspec.msgpack.decode(unseal(body).payload, type=Number).n


def unwrap(kept: bytes) -> bytes:
    """The envelope of a job that was set aside."""
    length, _, rest = kept.partition(b":")
    return rest[int(length) :]


def inner(job: ModelJob) -> str:
    """The job's id within its stage's partition."""
    return JobId.parse(job.id).entry


def ready(times: dict[str, bool]) -> list[str]:
    """The ids whose time has come."""
    return [entry for entry, come in times.items() if come]


def names(chosen: list[Stage]) -> set[str]:
    return {stage.name for stage in chosen}


def remembered(held: Held, end: End) -> bool:
    """Whether there is to be a record of a job that ended so."""
    failed_before = held.delivery.attempt > 1 or held.delivery.since == RETRYING
    return bool(held.job.stage.keep_results) or failed_before or end.settled.cancelled


def leaves_nothing(held: Held, end: End) -> bool:
    """Whether a job that ended so is settled in the short way."""
    return not (remembered(held, end) or held.job.stage.account_limit or end.forwards)


class BrokerMachine(RuleBasedStateMachine):
    """Plays all workers and all people itself, one step after the other."""

    def __init__(self, url: str, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__()
        self.loop = loop
        namespace = f"test-{secrets.token_hex(6)}"
        self.keys = Keys(namespace)
        self.pattern = f"{{{namespace}*"
        self.broker = Broker(url, PIPELINE, namespace=namespace)
        self.wire = Wire(url)
        self.model = Model(STAGES)
        self.hands: list[Held] = []
        self.seen: dict[str, Content] = {}  # by stage, after the last step
        self.numbers = 0
        self.steps = 0
        self.sound = False  # the last step was looked at, and well

    def run(self, talk: Coroutine[Any, Any, T]) -> T:
        self.sound = False
        return self.loop.run_until_complete(talk)

    @initialize(group=st.booleans(), wanted=new_jobs)
    def begin(self, group: bool, wanted: list[tuple[Stage, str, str, int]]) -> None:
        """Producers may well be there before any worker made a group."""
        if group:
            self.ensure()
        self.add(wanted)

    def ensure(self) -> None:
        self.run(self.broker.ensure_groups())
        self.model.groupless.clear()

    # ── jobs come in ─────────────────────────────────────────────────────────────────────────────

    @rule(wanted=new_jobs)
    def add(self, wanted: list[tuple[Stage, str, str, int]]) -> None:
        jobs = [
            Job(stage=stage.name, payload=Number(self.number()), tenant=tenant, dedup=dedup, delay=delay * UNIT)
            for stage, tenant, dedup, delay in wanted
        ]
        answers = self.run(self.broker.add(jobs))
        # They are taken in stage by stage.
        self.model.look_for_low_tide()
        for job, answer in sorted(zip(jobs, answers, strict=True), key=lambda pair: pair[0].stage):
            self.check_added(job, answer)
        for name in {job.stage for job in jobs}:
            self.model.fill(PIPELINE.stage(name))

    def check_added(self, job: Job, answer: Added) -> None:
        model, stage, before = self.model, PIPELINE.stage(job.stage), len(self.model.jobs)
        expected = model.add(stage, job.payload.n, job.tenant, job.dedup, int(job.delay / UNIT))
        if expected is None:
            assert answer.id is None
            assert answer.refusal
            assert answer.refusal.reason == ("draining" if stage.name in model.draining else "full")
            return
        assert answer.duplicate == (len(model.jobs) == before)
        expected.id = expected.id or str(answer.id)
        assert str(answer.id) == expected.id

    def number(self) -> int:
        self.numbers += 1
        return self.numbers

    # ── workers take them ────────────────────────────────────────────────────────────────────────

    @rule(chosen=some_stages, consumer=consumers, room=rooms, how=st.sampled_from(["fetch", "reclaim", "both"]))
    def take_in(self, chosen: list[Stage], consumer: str, room: int, how: str) -> None:
        for stage in chosen:
            if how != "fetch":
                self.reclaim_from(stage, consumer, room)
            if how != "reclaim":
                self.fetch_from(stage, consumer, room)

    def fetch_from(self, stage: Stage, consumer: str, room: int) -> None:
        expected = self.model.fetch(stage, consumer, room)

        async def read() -> list[Delivery]:
            if expected or stage.name in self.model.groupless:
                return await self.broker.fetch(stage.name, 0, consumer, room, 1)
            # The server looks at the time-outs of readers ten times a second, which is too slow for us.
            stream = self.keys.stream(stage.name, 0)
            command = ("XREADGROUP", "GROUP", GROUP, consumer, "COUNT", room, "STREAMS", stream, ">")
            assert await self.wire.command(*command) is None, "something for nobody"
            return []

        self.take(consumer, self.heal(stage, read), [(job, "") for job in expected])

    def reclaim_from(self, stage: Stage, consumer: str, room: int) -> None:
        model, expected = self.model, list[tuple[ModelJob, str]]()
        if stage.name not in model.paused:
            # Of what is due at the same time the server says who is first.
            seen, jobs = self.seen[stage.name], self.by_id(stage)
            model.promote([jobs[entry] for entry in ready(seen.delays)[:room]])
            expected = model.reclaim(stage, consumer, room, [jobs[entry] for entry in ready(seen.due)[:room]])

        async def take_over() -> list[Delivery]:
            return (await self.broker.reclaim(stage.name, 0, consumer, LEASE * UNIT, room)).deliveries

        self.take(consumer, self.heal(stage, take_over), expected)

    def heal(self, stage: Stage, read: Callable[[], Coroutine[Any, Any, list[Delivery]]]) -> list[Delivery]:
        """Whoever reads where the group is missing is told so, and makes it."""
        try:
            return self.run(read())
        except ResponseError as error:
            if not (missing_group(error) and stage.name in self.model.groupless):
                raise
            self.ensure()
            return []

    def take(self, consumer: str, found: list[Delivery], expected: list[tuple[ModelJob, str]]) -> None:
        """Into this consumer's hands, if it is what the model gave it."""
        assert [number_of(delivery.body) for delivery in found] == [job.n for job, _ in expected]
        for delivery, (job, since) in zip(found, expected, strict=True):
            assert str(delivery.id) == job.id
            assert (delivery.attempt, delivery.since.decode()) == (job.attempt, since)
            self.hands.append(Held(consumer, delivery, job))

    # ── and finish them, or not: with a lease or without ─────────────────────────────────────────

    def some(self, picks: Sequence[int]) -> list[Held]:
        """Some of what one consumer believes to hold of one stage, who takes something first if nobody has."""
        if not self.hands:
            self.take_in(STAGES, "a", PLENTY, "both")
        if not self.hands:
            return []
        first = self.hands[picks[0] % len(self.hands)]
        alike = [h for h in self.hands if (h.consumer, h.job.stage) == (first.consumer, first.job.stage)]
        return list({id(held): held for held in (alike[pick % len(alike)] for pick in picks)}.values())

    def let_go(self, chosen: list[Held], unheard: bool) -> None:
        """Who did not hear the answer is going to say it again."""
        if not unheard:
            self.hands = [held for held in self.hands if not any(held is other for other in chosen)]

    @rule(picks=picks, forwards=forwards, obeys=st.booleans(), unheard=st.booleans())
    def settle(self, picks: list[int], forwards: list[tuple[Stage, int]], obeys: bool, unheard: bool) -> None:
        if not (chosen := self.some(picks)):
            return
        ends = [self.end(forwards, cancelled=obeys and held.job.marked) for held in chosen]
        done = [(held.delivery, self.seal(held.job, end)) for held, end in zip(chosen, ends, strict=True)]
        count = self.run(self.broker.settle(chosen[0].job.stage, 0, done))
        # Those that leave nothing are settled first, in a shorter way.
        pairs = sorted(zip(chosen, ends, strict=True), key=lambda pair: not leaves_nothing(*pair))
        assert count == sum([self.settled(held, end) for held, end in pairs])
        self.let_go(chosen, unheard)

    def end(self, forwards: list[tuple[Stage, int]], *, cancelled: bool) -> End:
        if cancelled:
            return End(CANCELLED, [])
        return End(DONE, [(stage, self.number(), delay) for stage, delay in forwards])

    def seal(self, job: ModelJob, end: "End") -> Settled:
        """What the executor makes of an outcome."""
        sealed = [
            (target, Job(stage=target.name, payload=Number(n), tenant=job.tenant), delay * UNIT * 1000)
            for target, n, delay in end.forwards
        ]
        forwards = tuple((to.name, seal(new), to.account(new.tenant), delay) for to, new, delay in sealed)
        return msgspec.structs.replace(end.settled, forwards=forwards)

    def settled(self, held: Held, end: "End") -> bool:
        """Whether the model settles it."""
        job, attempt = held.job, held.delivery.attempt
        if leaves_nothing(held, end):
            return self.model.settle_plain(job)
        state: State = "cancelled" if end.settled.cancelled else "completed"
        return self.model.settle(
            job,
            (state, attempt) if remembered(held, end) else None,
            lambda: [self.model.put(stage, n, job.tenant, delay) for stage, n, delay in end.forwards],
        )

    @rule(picks=picks, how=ways, after=delays, counts=st.booleans(), unheard=st.booleans())
    def hand_back(self, picks: list[int], how: Way, after: int, counts: bool, unheard: bool) -> None:
        if chosen := self.some(picks):
            after, counts = after if how != "released" else 0, counts and how == "retrying"
            answers = self.run(self.handed_back(chosen, how, after, counts))
            assert answers == [self.may_hand_back(held, how, after, counts) for held in chosen]
            self.let_go(chosen, unheard)

    async def handed_back(self, chosen: list[Held], how: Way, after: int, counts: bool) -> list[bool]:
        broker, consumer, stage = self.broker, chosen[0].consumer, chosen[0].job.stage
        deliveries = [held.delivery for held in chosen]
        match how:
            case "retrying":
                retry = Retry(after * UNIT, "boom", counts)
                return await broker.retry(stage, 0, consumer, [(each, retry) for each in deliveries])
            case "limited":
                early = Throttled(after * UNIT)
                return await broker.throttled(stage, 0, consumer, [(each, early) for each in deliveries])
            case "released":
                return await broker.release(stage.name, 0, consumer, deliveries)
            case "buried":
                return await broker.bury(stage, 0, consumer, [(each, Bury("no")) for each in deliveries])

    def may_hand_back(self, held: Held, how: Way, after: int, counts: bool) -> bool:
        """Whether the model takes it back."""
        consumer, attempt, job = held.consumer, held.delivery.attempt, held.job
        if how == "buried":
            return self.model.bury(job, consumer, attempt)
        return self.model.park(job, consumer, attempt, how, after, attempt - (not counts))

    # ── people ───────────────────────────────────────────────────────────────────────────────────

    @precondition(lambda self: any(job.letter for job in self.model.jobs))
    @rule(pick=indexes, again=st.booleans())
    def replay(self, pick: int, again: bool) -> None:
        async def letters() -> list[DeadLetter]:
            return [letter async for letter in self.broker.dead_letters(STAGES)]

        found = self.run(letters())
        buried = {job.id: job for job in self.model.jobs if job.letter}
        assert sorted(letter.job_id for letter in found) == sorted(buried)
        letter = found[pick % len(found)]
        replayed = self.model.replay(buried[letter.job_id])
        replayed.id = str(self.run(self.broker.replay(letter)))
        if again:
            assert self.run(self.broker.replay(letter)) is None

    @precondition(lambda self: self.model.jobs)
    @rule(pick=indexes, late=st.booleans())
    def cancel(self, pick: int, late: bool) -> None:
        unfinished = [job for job in self.model.jobs if job.where in UNFINISHED]
        jobs = self.model.jobs if late else unfinished or self.model.jobs
        job = jobs[-1 - pick % len(jobs)]
        assert self.run(self.cancelled(job)) == self.model.cancel(job)

    async def cancelled(self, job: ModelJob) -> str:
        try:
            return await self.broker.cancel(JobId.parse(job.id))
        except JobUnknown:
            return "unknown"

    @rule(chosen=few_stages, what=steering)
    def steer(self, chosen: list[Stage], what: str) -> None:
        model, broker = self.model, self.broker
        match what:
            case "resume":
                self.run(broker.resume(chosen))
                model.paused -= names(chosen)
                model.draining -= names(chosen)
            case "pause":
                self.run(broker.pause(chosen))
                model.paused |= names(chosen)
            case "drain":
                self.run(broker.drain(chosen))
                model.draining |= names(chosen)
            case _:
                self.clear(chosen, active=what == "clear all")
        if what in ("resume", "pause", "drain"):
            model.groupless -= names(chosen)

    def clear(self, chosen: list[Stage], *, active: bool) -> None:
        cleared = self.run(self.broker.clear(chosen, active=active))
        assert cleared == sum([self.model.clear(stage, active=active) for stage in chosen])

    # ── and what just happens ────────────────────────────────────────────────────────────────────

    @rule(units=st.integers(1, 4), alive=some_consumers, consumer=consumers, room=rooms, looks=st.booleans())
    def wait(self, units: int, alive: list[str], consumer: str, room: int, looks: bool) -> None:
        """Time passes. Who is alive says so meanwhile, and who looks first finds what is due."""
        for _ in range(units):
            self.jump(1)
            for name in alive:
                self.renew(name)
        if looks:
            self.seen = self.run(self.contents())
            self.take_in(STAGES, consumer, room, "reclaim")

    def renew(self, consumer: str) -> None:
        for stage in STAGES:
            if held := [held for held in self.hands if (held.consumer, held.job.stage) == (consumer, stage)]:
                self.renew_all(stage, consumer, held)

    def renew_all(self, stage: Stage, consumer: str, held: list[Held]) -> None:
        renewal = self.run(self.broker.renew(stage.name, 0, consumer, [each.delivery for each in held]))
        lost = [each for each in held if not self.model.renew(each.job, consumer, each.delivery.attempt)]
        assert renewal.lost == [each.delivery.entry for each in lost]
        assert renewal.unwanted == [each.delivery.entry for each in held if each.job.marked]
        noted = self.run(self.broker.progress(consumer, held[0].delivery, 50))
        assert noted == (not stage.keep_results or held[0] not in lost)

    def jump(self, units: int) -> None:
        places = [self.keys.place(stage.name, 0) for stage in STAGES]
        keys = [key for place in places for key in (place.stream, place.due, place.delays)]
        self.run(self.wire.command("EVAL", JUMP, len(keys), *keys, units * UNIT * 1000 + LITTLE, GROUP))
        self.model.time += units

    @rule(stage=stages, consumer=consumers, what=mishaps)
    def suffer(self, stage: Stage, consumer: str, what: str) -> None:
        match what:
            case "scripts":
                self.run(self.wire.command("SCRIPT", "FLUSH"))
            case "group" if stage.name not in self.model.groupless:
                self.run(self.wire.command("XGROUP", "DESTROY", self.keys.stream(stage.name, 0), GROUP))
                self.model.lose_group(stage)
            case "crash":  # whoever comes in its place knows nothing
                self.hands = [held for held in self.hands if held.consumer != consumer]
            case "leave" if not self.model.groupless:
                self.run(self.broker.leave(consumer))

    # ── what has to be true ──────────────────────────────────────────────────────────────────────

    @invariant()
    def the_server_holds_what_the_model_says(self) -> None:
        self.seen = self.run(self.contents())
        statuses = {status.stage: msgspec.structs.asdict(status) for status in self.run(self.broker.status())}
        for stage, content in zip(STAGES, self.seen.values(), strict=True):
            self.learn(stage, content)
            self.check_content(stage, content)
            control = {"paused": stage.name in self.model.paused, "draining": stage.name in self.model.draining}
            about = {"queue": "test", "stage": stage.name}
            assert statuses[stage.name] == about | control | self.model.counts(stage)
        self.check_flow()
        self.steps += 1
        if jobs := self.model.jobs:
            self.look(jobs[self.steps % len(jobs)])
        self.sound = True

    def check_flow(self) -> None:
        """Every job is counted once as it comes in, wherever it waited, and which stages are full."""
        self.model.look_for_low_tide()
        for stage, found in zip(STAGES, self.run(self.broker.flow()).values(), strict=True):
            jobs = [job for job in self.model.jobs if job.stage is stage]
            assert (found.added, found.unfinished) == (len(jobs), len(self.model.unfinished(stage)))
            is_full = stage.name in self.model.full or found.unfinished >= stage.high_water
            assert (found.pressure(stage) == "shedding") == is_full

    async def contents(self) -> dict[str, Content]:
        """Everything of all stages, at one moment."""
        commands: list[tuple[Any, ...]] = [("TIME",)]
        for place in (self.keys.place(stage.name, 0) for stage in STAGES):
            commands += ("XRANGE", place.stream, "-", "+"), ("HGETALL", place.later)
            commands += (("ZRANGE", times, 0, -1, "WITHSCORES") for times in (place.delays, place.due))
            commands.append(("HGETALL", place.tenants))
        (seconds, micros), *rest = await self.wire.transaction(commands)
        now = int(seconds) * 1000 + int(micros) // 1000
        return {each.name: content_of(now, *rest[5 * n : 5 * n + 5]) for n, each in enumerate(STAGES)}

    def learn(self, stage: Stage, content: Content) -> None:
        """The ids of jobs that were handed on, and the entries of all; each job is there once."""
        jobs = {job.n: job for job in self.model.unfinished(stage)}
        bodies = [found[b"e"] for found in content.entries.values()] + [*map(unwrap, content.later.values())]
        assert sorted(map(number_of, bodies)) == sorted(jobs)
        for entry, fields in content.entries.items():
            job = jobs[number_of(fields[b"e"])]
            job.entry = entry
            origin = fields.get(b"i", entry.encode()).decode()
            job.id = job.id or str(JobId(stage.name, 0, origin))
            assert origin == inner(job)
        for entry, kept in content.later.items():
            job = jobs[number_of(unwrap(kept))]
            job.id = job.id or str(JobId(stage.name, 0, entry))

    def check_content(self, stage: Stage, content: Content) -> None:
        model = self.model
        entries = [(number_of(found[b"e"]), entry) for entry, found in content.entries.items()]
        assert entries == [(job.n, job.entry) for job in model.in_stream(stage)]
        aside = {inner(job): job.n for job in model.having(stage, ASIDE)}
        assert {entry: number_of(unwrap(kept)) for entry, kept in content.later.items()} == aside
        assert content.delays == {inner(job): job.due <= model.time for job in model.having(stage, {"delayed"})}
        timed = [job for job in model.jobs if job.stage is stage and job.timed]
        assert content.due == {job.entry: job.due <= model.time for job in timed}
        accounts = Counter(found[b"t"].decode() for found in content.entries.values() if b"t" in found)
        assert accounts == content.tenants == model.accounts(stage)
        assert all(entries <= stage.account_limit for entries in accounts.values())

    def look(self, job: ModelJob) -> None:
        view = self.run(self.broker.look(JobId.parse(job.id)))
        assert (view and (view.state, view.attempt)) == job.view()
        if view:
            assert view.next == [following.id for following in job.next]
            assert view.tenant == (job.tenant if job.where in UNFINISHED else "")

    def by_id(self, stage: Stage) -> dict[str, ModelJob]:
        """The stage's jobs by their own ids and by those of their entries."""
        jobs = [job for job in self.model.jobs if job.stage is stage]
        return {inner(job): job for job in jobs} | {job.entry: job for job in jobs if job.entry}

    # ── the end ──────────────────────────────────────────────────────────────────────────────────

    def teardown(self) -> None:
        try:
            if self.sound:
                self.finish()
        finally:
            self.loop.run_until_complete(self.close())

    def finish(self) -> None:
        """Honest workers do whatever is left; then nothing is."""
        self.hands.clear()
        self.steer(STAGES, "resume")
        for _ in range(PLENTY):
            self.jump(PLENTY)
            self.the_server_holds_what_the_model_says()
            for stage in STAGES:
                self.work_off(stage)
            if not any(self.model.unfinished(stage) for stage in STAGES):
                break
        self.the_server_holds_what_the_model_says()
        for stage in STAGES:
            self.reclaim_from(stage, "honest", PLENTY)  # as each second: what was full is open again
        for job in self.model.jobs:
            assert job.where not in UNFINISHED, "it is stuck"
            self.look(job)
        self.run(self.check_leftovers())

    def work_off(self, stage: Stage) -> None:
        self.reclaim_from(stage, "honest", PLENTY)
        self.fetch_from(stage, "honest", PLENTY)
        if self.hands:
            self.settle([*range(len(self.hands))], [], obeys=True, unheard=False)

    async def check_leftovers(self) -> None:
        kinds = {key.decode().split(":")[2] for key in await self.wire.command("KEYS", self.pattern)}
        assert not kinds & {"due", "delays", "later", "held", "tenants"}
        controls = [await self.wire.command("HKEYS", self.keys.place(stage.name, 0).control) for stage in STAGES]
        assert {field for fields in controls for field in fields} <= {b"again"}

    async def close(self) -> None:
        if keys := await self.wire.command("KEYS", self.pattern):
            await self.wire.command("UNLINK", *keys)
        await self.wire.close()
        await self.broker.close()


@pytest.mark.timeout(600)  # making a failing example short takes up to five minutes
def test_the_broker_does_what_the_model_says(server: str) -> None:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        # Not by the runner: it guards each call against Ctrl-C, which takes longer than most calls do.
        machine: Any = partial(BrokerMachine, server, runner.get_loop())
        run_state_machine_as_test(
            machine,
            settings=settings(max_examples=90, stateful_step_count=50, suppress_health_check=list(HealthCheck)),
        )
