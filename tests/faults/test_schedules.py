"""Schedulers whose clocks are apart, and that die at any moment: each slot has one job. Time is simulated: a month
takes seconds."""

import random
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime
from typing import Any

import pytest
from croniter import croniter

from pipeline import Broker, Pipeline, Schedule
from pipeline.broker.scheduling import Advance
from pipeline.keys import Keys
from pipeline.message import unseal
from pipeline.schedule import ScheduleState
from pipeline.services.scheduler import Scheduler
from tests.support import Connect, Connector, stage, unused

pytestmark = pytest.mark.faults

START = round(datetime(2026, 5, 1, 0, 10, tzinfo=UTC).timestamp() * 1000)
MONTH = 30 * 86_400_000
SKEWS = (-3000, 0, 4000)  # ms
DEFAULTS = {
    "tts-cache": "0 2 * * *",
    "conversations": "0 3 * * *",
    "logs": "0 4 * * *",
    "stats": "0 5 * * *",
    "health": "*/30 * * * *",
}
SCHEDULES = [Schedule(name=name, cron=cron, stage=name, payload={"n": 1}) for name, cron in DEFAULTS.items()]


class Killed(BaseException):
    """Ends a scheduler as a SIGKILL would: nothing of ours handles it."""


class World:
    """The true time, which nobody knows, and the schedulers, each with a clock of its own."""

    def __init__(self, connect: Connect) -> None:
        self.time = START
        self.connect = connect
        self.fired = 0

    @asynccontextmanager
    async def replica(self, skew: int) -> AsyncIterator["Replica"]:
        async with self.connect() as broker:
            yield Replica(self, broker, skew)


class Replica:
    """A scheduler that may be killed and started again. `wakes` is when it wants to run next."""

    def __init__(self, world: World, broker: Broker, skew: int) -> None:
        self.world, self.broker, self.skew = world, broker, skew
        self.deaths: list[str] = []
        self.dies = ""
        self.start()

    def start(self) -> None:
        self.scheduler = Scheduler(self.broker, SCHEDULES, clock=lambda: self.world.time + self.skew)
        self.wakes = self.world.time

    async def run(self) -> None:
        try:
            self.world.fired += await self.scheduler.run_once()
            earliest = min(self.scheduler._next.values())
            self.wakes = earliest - self.skew
        except Killed:
            self.deaths.append(self.dies)
            self.dies = ""
            self.start()
            self.wakes += 20_000

    def mortal(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Have it die where `dies` says: before it adds, between adding and noting it, or after it."""
        add, advance = self.broker.add_slots, self.broker.advance_schedule

        async def adds(*args: Any) -> Any:
            if self.dies == "before":
                raise Killed
            answer = await add(*args)
            if self.dies == "between":
                raise Killed
            return answer

        async def advances(schedule: Schedule, state: ScheduleState, step: Advance) -> ScheduleState:
            assert step.slot <= step.fired <= step.slot + 60_000, "never early by the clock of who fires"
            answer = await advance(schedule, state, step)
            if self.dies == "after":
                raise Killed
            return answer

        monkeypatch.setattr(self.broker, "add_slots", adds)
        monkeypatch.setattr(self.broker, "advance_schedule", advances)


@pytest.fixture
def pipeline() -> Pipeline:
    return Pipeline([stage(name, unused) for name in DEFAULTS])


def expected(schedule: Schedule) -> int:
    """By croniter's own list."""
    times, count = croniter(schedule.cron, START / 1000), 0
    while times.get_next() * 1000 <= START + MONTH:
        count += 1
    return count


async def dedup_ids(redis: Any, namespace: str) -> set[str]:
    keys = [key.decode() async for key in redis.scan_iter(f"{{{namespace}:0}}:dedup:*", count=5000)]
    return {key.partition(":schedule:")[2] for key in keys}


def slots_of(schedule: Schedule) -> set[str]:
    times, found = croniter(schedule.cron, START / 1000), set()
    while (at := times.get_next() * 1000) <= START + MONTH:
        found.add(f"{schedule.name}:{at:.0f}")
    return found


async def check_each_slot_once(world: World, redis: Any, namespace: str) -> None:
    """One job for each slot of croniter's list, and no other."""
    wanted = set().union(*(slots_of(schedule) for schedule in SCHEDULES))
    assert await dedup_ids(redis, namespace) == wanted
    for schedule in SCHEDULES:
        entries = await redis.xrange(Keys(namespace).stream(schedule.stage, 0))
        assert len(entries) == expected(schedule)
        assert {unseal(fields[b"e"]).key for _, fields in entries} == {schedule.name}
    async with world.connect() as broker:
        states = await broker.schedule_states(list(DEFAULTS))
    assert [state.missed for state in states.values()] == [0] * len(DEFAULTS)
    last = {
        name: max(int(slot.partition(":")[2]) for slot in wanted if slot.startswith(name)) for name in DEFAULTS
    }
    assert {name: state.done for name, state in states.items()} == last


async def test_each_slot_of_a_month_is_fired_once_by_three_replicas_with_clocks_apart(
    connector: Connector, pipeline: Pipeline, redis: Any, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = World(connector(pipeline))
    async with AsyncExitStack() as stack:
        replicas = [await stack.enter_async_context(world.replica(skew)) for skew in SKEWS]
        for replica in replicas:
            replica.mortal(monkeypatch)
        while (first := min(replicas, key=lambda each: each.wakes)).wakes <= START + MONTH:
            world.time = max(world.time, first.wakes)
            await first.run()
    assert world.fired == sum(map(expected, SCHEDULES))
    await check_each_slot_once(world, redis, namespace)


async def test_replicas_killed_at_random_moments_change_nothing(
    connector: Connector,
    pipeline: Pipeline,
    redis: Any,
    namespace: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    dice, world = random.Random(6), World(connector(pipeline))
    async with AsyncExitStack() as stack:
        replicas = [await stack.enter_async_context(world.replica(skew)) for skew in SKEWS]
        for replica in replicas:
            replica.mortal(monkeypatch)
            await replica.run()
        while (first := min(replicas, key=lambda each: each.wakes)).wakes <= START + MONTH:
            world.time = max(world.time, first.wakes)
            if dice.random() < 0.2:
                first.dies = dice.choice(["before", "between", "after"])
            await first.run()
    for where in ("before", "between", "after"):
        assert sum(replica.deaths.count(where) for replica in replicas) > 20
    await check_each_slot_once(world, redis, namespace)
