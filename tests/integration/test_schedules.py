"""Schedules on a real server: what a scheduler does when things go differently, and what people may do to them."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import aclosing
from datetime import UTC, datetime
from functools import partial
from typing import Any

import msgspec
import pytest
from aiohttp.test_utils import TestClient, TestServer

from api.adapters import Adapters
from api.app import build_app
from api.root import connector as connector_of
from api.schedules import configured_schedules, views
from config import Secret, load, replaced
from config.settings import OwnSchedule
from pipeline import Broker, Pipeline, Schedule
from pipeline.broker import scheduling
from pipeline.broker.scheduling import GONE_AFTER, Advance
from pipeline.errors import BadInput, BadPayload, UnknownStage
from pipeline.schedule import next_slot
from pipeline.services.scheduler import Scheduler
from tests.commands import Command, call
from tests.support import Connector, Noted, depths, eventually, jobs, stage, unused, working

pytestmark = pytest.mark.integration

HOUR = 3_600_000
START = 1_790_000_000_000 // HOUR * HOUR + 60_000  # a minute past an hour
HOURLY = Schedule(name="hourly", cron="0 * * * *", stage="one", payload={"n": 1})
FIRST = START - 60_000 + HOUR


class Clock:
    """Stands until it is moved."""

    def __init__(self) -> None:
        self.now = START

    def __call__(self) -> int:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def broker(connector: Connector) -> AsyncIterator[Broker]:
    async with connector(Pipeline([stage("one", unused), stage("low", unused, high_water=1)]))() as broker:
        yield broker


async def started(broker: Broker, clock: Clock, *schedules: Schedule) -> Scheduler:
    """A scheduler that has seen these."""
    scheduler = Scheduler(broker, schedules, clock=clock)
    assert await scheduler.run_once() == 0
    return scheduler


async def state_of(broker: Broker, name: str = "hourly") -> Any:
    return (await broker.schedule_states([name]))[name]


@pytest.mark.parametrize(("misfire", "fired", "missed"), [("skip", 0, 5), ("once", 1, 4), ("all", 3, 2)])
async def test_what_a_downtime_missed_is_made_up_for_as_the_schedule_says(
    broker: Broker, clock: Clock, misfire: Any, fired: int, missed: int
) -> None:
    schedule = msgspec.structs.replace(HOURLY, misfire=misfire, grace=2.5 * 3600)
    await started(broker, clock, schedule)
    clock.now = FIRST + 4 * HOUR + 120_000
    assert await Scheduler(broker, [schedule], clock=clock).run_once() == fired
    found = await state_of(broker)
    assert (found.done, found.missed) == (FIRST + 4 * HOUR, missed)


async def test_a_clock_that_was_far_ahead_once_is_not_waited_for(broker: Broker, clock: Clock) -> None:
    clock.now = FIRST + 400 * 24 * HOUR
    await started(broker, clock, HOURLY)
    clock.now = FIRST - 1
    back = await started(broker, clock, HOURLY)
    clock.now = FIRST
    assert await back.run_once() == 1


async def test_nothing_before_its_first_sight_is_made_up_for(broker: Broker, clock: Clock) -> None:
    clock.now = FIRST + 1
    scheduler = await started(broker, clock, msgspec.structs.replace(HOURLY, misfire="all"))
    clock.now += HOUR - 2
    assert await scheduler.run_once() == 0
    clock.now += 1
    assert await scheduler.run_once() == 1


async def test_changed_times_count_from_the_change_on(broker: Broker, clock: Clock) -> None:
    old = await started(broker, clock, HOURLY)
    clock.now = FIRST - 60_000
    minutely = msgspec.structs.replace(HOURLY, cron="* * * * *", misfire="all")
    new = await started(broker, clock, minutely)
    clock.now = FIRST
    assert await new.run_once() == 1
    assert await old.run_once() == 0, "it is left to who started later"
    assert (await state_of(broker)).missed == 0


async def test_when_nobody_with_other_times_is_there_any_more_who_is_left_takes_over(
    broker: Broker, clock: Clock
) -> None:
    lasting = await started(broker, clock, HOURLY)
    await started(broker, clock, msgspec.structs.replace(HOURLY, cron="0 0 1 1 *"))  # and it ends
    clock.now = FIRST
    assert await lasting.run_once() == 0
    for clock.now in (FIRST + GONE_AFTER, FIRST + HOUR):
        fired = await lasting.run_once()
    assert fired == 1


async def test_a_slot_that_a_full_stage_refuses_stays_due_within_its_grace(
    broker: Broker, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    schedule = msgspec.structs.replace(HOURLY, stage="low", misfire="skip")
    scheduler = await started(broker, clock, schedule)
    await broker.add(jobs("low", 1))
    for clock.now in (FIRST, FIRST + 5_000, FIRST + 1000_000):
        assert await scheduler.run_once() == 0
        assert 0 < await scheduler.sleep() <= 5
    assert [record.message for record in caplog.records] == [
        "schedule 'hourly' waits: low takes no job now (full)"
    ]
    await broker.clear([broker.pipeline.stage("low")])
    assert await scheduler.run_once() == 1
    found = await state_of(broker)
    assert (found.slot, found.fired, found.missed) == (FIRST, clock.now, 0)


async def test_a_refused_slot_is_missed_when_its_grace_is_over(broker: Broker, clock: Clock) -> None:
    scheduler = await started(broker, clock, msgspec.structs.replace(HOURLY, stage="low", grace=600.0))
    await broker.drain([broker.pipeline.stage("low")])
    clock.now = FIRST
    assert await scheduler.run_once() == 0
    await broker.resume([broker.pipeline.stage("low")])
    clock.now = FIRST + 601_000
    assert await scheduler.run_once() == 0
    assert (await state_of(broker)).missed == 1


async def test_one_that_cannot_be_fired_holds_up_no_other(
    broker: Broker, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    wrong = msgspec.structs.replace(HOURLY, name="a-wrong-one", payload={"n": "one"})
    elsewhere = msgspec.structs.replace(HOURLY, name="elsewhere", stage="of-a-newer-version")
    scheduler = await started(broker, clock, elsewhere, wrong, HOURLY)
    for clock.now in (FIRST, FIRST + HOUR):
        assert await scheduler.run_once() == 1
    assert [record.message for record in caplog.records] == [
        "schedule 'elsewhere' is left out: there is no stage 'of-a-newer-version' here",
        "schedule 'a-wrong-one' cannot be fired: payload of test.one: Expected `int`, got `str` - at `$.n`",
    ]


async def test_run_time_schedules_come_and_go_without_a_restart(broker: Broker, clock: Clock) -> None:
    scheduler = await started(broker, clock)
    await broker.put_schedule(HOURLY, at_ms=START)
    clock.now = FIRST
    assert await scheduler.run_once() == 1
    await broker.pause_schedule("hourly")
    clock.now = FIRST + 3 * HOUR
    assert await scheduler.run_once() == 0
    await broker.resume_schedule("hourly", at_ms=clock.now + 60_000)
    clock.now += 120_000
    assert await scheduler.run_once() == 0, "what was due while it was paused is not made up for"
    clock.now = FIRST + 4 * HOUR
    assert await scheduler.run_once() == 1
    assert (await state_of(broker)).missed == 0
    await broker.remove_schedule("hourly")
    clock.now += HOUR
    assert await scheduler.run_once() == 0
    assert not (await state_of(broker)).fingerprint


async def test_a_configured_schedule_can_be_paused(broker: Broker, clock: Clock) -> None:
    scheduler = await started(broker, clock, HOURLY)
    await broker.pause_schedule("hourly", {"hourly"})
    clock.now = FIRST
    assert await scheduler.run_once() == 0
    assert await Scheduler(broker, [HOURLY], clock=clock).run_once() == 0, "a restart changes nothing"
    await broker.resume_schedule("hourly", {"hourly"}, at_ms=clock.now)
    clock.now += HOUR
    assert await scheduler.run_once() == 1


async def test_what_cannot_be_put_is_refused(broker: Broker, monkeypatch: pytest.MonkeyPatch) -> None:
    for changes, error, says in (
        ({"stage": "two"}, UnknownStage, "no stage 'two'"),
        ({"payload": {"n": "x"}}, BadPayload, "at `$.n`"),
        ({"name": "health"}, BadInput, "schedule 'health' is the configuration's"),
        ({"cron": "0 0 30 2 *"}, BadInput, "never comes"),
    ):
        with pytest.raises(error, match=says.replace("$", r"\$")):
            await broker.put_schedule(msgspec.structs.replace(HOURLY, **changes), {"health"})
    monkeypatch.setattr(scheduling, "MOST_SCHEDULES", 1)
    await broker.put_schedule(HOURLY)
    await broker.put_schedule(msgspec.structs.replace(HOURLY, cron="1 * * * *"))  # a change is no other one
    with pytest.raises(BadInput, match="there are 1 schedules, which are the most"):
        await broker.put_schedule(msgspec.structs.replace(HOURLY, name="another"))
    with pytest.raises(BadInput, match="no schedule 'hourli'; did you mean 'hourly'"):
        await broker.remove_schedule("hourli")


async def test_many_schedules_leave_others_their_turn(
    broker: Broker, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    for n in range(20):
        await broker.put_schedule(msgspec.structs.replace(HOURLY, name=f"s{n}"))
    turns, seen = 0, []

    def noting(schedule: Schedule, after_ms: int) -> int | None:
        seen.append(turns)
        return next_slot(schedule, after_ms)

    async def others() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    monkeypatch.setattr("pipeline.services.scheduler.next_slot", noting)
    monkeypatch.setattr("api.schedules.next_slot", noting)
    beside = asyncio.create_task(others())
    await started(broker, clock)
    await views(broker, [])
    beside.cancel()
    assert len(set(seen)) == 40


async def test_a_server_that_lost_everything_loses_no_slot_of_the_configurations(
    broker: Broker, clock: Clock, redis: Any, namespace: str
) -> None:
    scheduler = await started(broker, clock, HOURLY)
    for slot in (FIRST, FIRST + HOUR):
        await redis.delete(*[key async for key in redis.scan_iter(f"{{{namespace}*")])
        clock.now = slot
        assert [await scheduler.run_once() + await scheduler.run_once(), await scheduler.run_once()] == [1, 0]
        await broker.pause_schedule("hourly", ["hourly"])  # so that the version is another, too
        await broker.resume_schedule("hourly", ["hourly"], at_ms=clock.now)
        assert await scheduler.run_once() == 0


async def test_of_several_who_did_the_same_one_is_heard_and_nothing_goes_back(
    broker: Broker, clock: Clock
) -> None:
    schedule = msgspec.structs.replace(HOURLY, grace=0.0)
    schedulers = [await started(broker, clock, schedule) for _ in range(5)]
    clock.now, seen = FIRST + 2 * HOUR, await state_of(broker)
    assert sum(await asyncio.gather(*(scheduler.run_once() for scheduler in schedulers))) == 1
    late = await broker.advance_schedule(
        schedule, seen, Advance(FIRST, missed=7, slot=FIRST, fired=FIRST, job="x")
    )
    assert (late.done, late.missed, late.slot) == (FIRST + 2 * HOUR, 2, FIRST + 2 * HOUR)
    other = msgspec.structs.replace(schedule, cron="5 * * * *")
    assert await broker.advance_schedule(other, late, Advance(late.done + 1)) == late


async def test_two_workers_fire_a_slot_once_as_soon_as_a_change_makes_it_due(
    connector: Connector, clock: Clock
) -> None:
    noted = Noted()
    pipeline = Pipeline([stage("one", noted)])
    connect = connector(pipeline)
    async with connect() as broker:
        async with (
            working(connect, pipeline, schedules=[], clock=clock),
            working(connect, pipeline, schedules=[], clock=clock),
        ):
            clock.now = FIRST
            # Put for an hour ago: it is due at once, and only the signal can tell those that sleep half a minute.
            await broker.put_schedule(HOURLY, at_ms=START)

            async def fired() -> bool:
                return bool((await state_of(broker)).job)

            await eventually(fired, what="the slot being fired", deadline=10)
            await eventually(lambda: idle(broker), what="its job being done")
        assert noted.started == [1]


async def idle(broker: Broker) -> bool:
    return await depths(broker, "one") == (0, 0, 0, 0)


PAYLOAD = json.dumps({"to": "+5511987654321", "text": "Bom dia!"})


@pytest.fixture
def riacho(env: dict[str, str]) -> Command:
    return partial(call, env=env)


def test_the_command_line_puts_shows_steers_and_fires(riacho: Command) -> None:
    add = partial(riacho, "schedule", "add", "greet", "--stage", "send-client", "--payload", PAYLOAD)
    said = add("--cron", "0 8 * * mon-fri", "--zone", "America/Sao_Paulo", "--misfire", "skip", "--grace", "60")
    assert said.out == "greet: 0 8 * * mon-fri (America/Sao_Paulo) for send-client\n"
    fired = riacho("schedule", "run", "greet").out.strip()
    assert fired.startswith("send-client.0.")
    found = {each["name"]: each for each in json.loads(riacho("schedule", "list", "--json").out)["schedules"]}
    assert list(found) == ["tts-cache", "conversations", "logs", "stats", "health", "greet"]
    greet = found["greet"]
    assert (greet["source"], greet["queue"], greet["misfire"], greet["paused"]) == (
        "runtime",
        "notification",
        "skip",
        False,
    )
    assert greet["next"]["iso"].endswith("T11:00:00+00:00")
    assert (greet["last"]["jobId"], greet["last"]["state"]) == (fired, "waiting")
    assert "slot" not in greet["last"]
    assert riacho("schedule", "pause", "greet").out == "greet: paused\n"
    assert riacho("schedule", "pause", "health").out == "health: paused\n"
    lines = riacho("schedule", "list").out.splitlines()
    assert "health: */30 * * * * (UTC) for health, config: paused" in lines
    assert lines[-1].startswith(
        "greet: 0 8 * * mon-fri (America/Sao_Paulo) for send-client, runtime: paused; last "
    )
    assert riacho("schedule", "resume", "greet").out == "greet: resumed\n"
    assert riacho("schedule", "remove", "greet").out == "greet: removed\n"
    assert "no schedule 'greet'" in riacho("schedule", "run", "greet").refusal


def test_the_command_line_says_what_is_wrong(riacho: Command) -> None:
    add = partial(riacho, "schedule", "add")
    given = ("--stage", "send-client", "--payload", PAYLOAD)
    assert add("health", "--cron", "@daily", *given).refusal.startswith("schedule 'health' is the configuration's")
    assert "has 2 fields" in add("x", "--cron", "0 8", *given).refusal
    assert "did you mean 'send-client'?" in add("x", "--cron", "@daily", "--stage", "send-clint").refusal
    assert (
        "Invalid enum value 'twice'; known: skip, once, all"
        in add("x", "--cron", "@daily", *given, "--misfire", "twice").refusal
    )
    assert "is the configuration's" in riacho("schedule", "remove", "health").refusal


async def test_the_endpoint_tells_when_each_comes_and_what_became_of_its_last_job(
    server: str, namespace: str, tmp_path: Any
) -> None:
    own = OwnSchedule(cron="*/5 * * * *", stage="send-client", payload=json.loads(PAYLOAD), misfire="all")
    settings = replaced(
        load(environ={}),
        redis={"url": Secret(server), "namespace": namespace},
        data={"folder": tmp_path},
        schedules={"own": {"greet": own}, "health": "", "zone": "Europe/Lisbon"},
    )
    adapters = Adapters(settings)
    async with connector_of(settings, adapters.pipeline())() as broker, aclosing(adapters.database):
        at, _ = await broker.schedule_time()
        greet = configured_schedules(settings)[-1]
        await broker.see_schedules([greet], at - 600_000)
        assert await Scheduler(broker, [greet]).run_once() == 2
        app = build_app(broker, settings, adapters.notifications.log)
        async with TestClient(TestServer(app)) as client:
            answer = await (await client.get("/queue/scheduled-jobs")).json()
    *others, found = answer["schedules"]
    assert [(each["name"], each["zone"]) for each in others] == [
        (name, "Europe/Lisbon") for name in ("tts-cache", "conversations", "logs", "stats")
    ]
    last, slot = found.pop("last"), at // 300_000 * 300_000
    assert found.pop("next")["ms"] == slot + 300_000
    assert found == {
        "name": "greet",
        "cron": "*/5 * * * *",
        "zone": "Europe/Lisbon",
        "stage": "send-client",
        "queue": "notification",
        "tenant": "",
        "misfire": "all",
        "grace": 21_600.0,
        "paused": False,
        "source": "config",
        "missed": 0,
    }
    assert last["slot"] == {
        "iso": f"{datetime.fromtimestamp(slot / 1000, UTC):%Y-%m-%dT%H:%M:%S}+00:00",
        "ms": slot,
    }
    assert (last["state"], last["jobId"].startswith("send-client.0.")) == ("waiting", True)
    assert last["firedAt"]["ms"] >= at


def test_a_configured_schedule_that_cannot_be_is_refused_by_name() -> None:
    for changes, says in (
        ({"tts_cache": "0 25 * * *"}, "schedule 'tts-cache': cron '0 25 \\* \\* \\*' is no cron expression"),
        ({"zone": "Lisbon"}, "no time zone 'Lisbon'"),
        ({"own": {"logs": OwnSchedule(cron="@daily", stage="stats")}}, "schedules.own has 'logs'"),
    ):
        with pytest.raises(BadInput, match=says):
            configured_schedules(replaced(load(environ={}), schedules=changes))
