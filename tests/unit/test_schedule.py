"""When a schedule is due: against every minute of a zone's clock, one after the other."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import cache
from zoneinfo import ZoneInfo

import msgspec
import pytest
from croniter import croniter
from hypothesis import example, given, settings
from hypothesis import strategies as st

from pipeline.errors import BadInput
from pipeline.schedule import (
    MOST_AT_ONCE,
    MOST_IN_A_STEP,
    Schedule,
    ScheduleState,
    Turn,
    checked,
    next_slot,
    slots,
    turn,
)

pytestmark = pytest.mark.unit

MINUTE, HOUR, DAY = 60_000, 3_600_000, 86_400_000
RANGES = ((0, 59), (0, 23), (1, 31), (1, 12), (0, 6))
# Two days before a change of the clocks, in UTC.
CHANGES = {
    "America/Sao_Paulo": ["2018-11-02", "2018-02-16"],  # at midnight
    "America/New_York": ["2026-03-06", "2026-10-30"],
    "Europe/Lisbon": ["2026-03-27", "2026-10-23"],
    "Australia/Lord_Howe": ["2019-10-03", "2026-04-02"],  # by half an hour
    "Pacific/Apia": ["2011-12-28"],  # a day left out
    "Asia/Kathmandu": ["2026-03-06"],  # +05:45, never changed
    "UTC": ["2026-03-06"],
}
WINDOW = 3 * DAY


def plan(cron: str, zone: str = "UTC", **more: object) -> Schedule:
    return msgspec.convert({"name": "s", "cron": cron, "stage": "test", "zone": zone, **more}, Schedule)


def ms(text: str) -> int:
    return round(datetime.fromisoformat(text).timestamp() * 1000)


def iso(at: int) -> str:
    return datetime.fromtimestamp(at / 1000, UTC).strftime("%m-%d %H:%M")


def field(least: int, most: int) -> st.SearchStrategy[str]:
    numbers = st.integers(least, most)
    return st.one_of(
        st.just("*"),
        st.lists(numbers, min_size=1, max_size=4, unique=True).map(lambda some: ",".join(map(str, some))),
        st.tuples(numbers, numbers).filter(lambda two: two[0] != two[1]).map(lambda two: f"{min(two)}-{max(two)}"),
        st.sampled_from([2, 7, 15, 30]).filter(lambda step: step <= most).map(lambda step: f"*/{step}"),
    )


# Near midnight and the small hours, where clocks are changed.
minutes, hours = field(0, 59), st.one_of(field(0, 4), field(0, 23))
days = st.sampled_from(["*", "*", "*", "1-31", "5,28", "*/2"])
weekdays = st.sampled_from(["*", "*", "*", "0", "6,0", "1-5"])
crons = st.tuples(minutes, hours, days, st.just("*"), weekdays).map(" ".join)
windows = st.sampled_from([(zone, day) for zone, found in CHANGES.items() for day in found])


def allowed(text: str, least: int, most: int) -> set[int]:
    """The values that a field stands for."""
    found: set[int] = set()
    for part in text.split(","):
        span, _, step = part.partition("/")
        first, _, last = span.partition("-")
        start, end = (least, most) if span == "*" else (int(first), int(last or first))
        found.update(range(start, end + 1, int(step or 1)))
    return found


def matcher(cron: str) -> Callable[[datetime], bool]:
    """Whether a local time is one of the expression's."""
    texts = cron.split()
    minute, hour, day, month, weekday = (allowed(text, *span) for text, span in zip(texts, RANGES, strict=True))
    both = "*" not in (texts[2], texts[4])  # croniter takes */2 for a restriction too

    def matches(local: datetime) -> bool:
        in_month, in_week = local.day in day, local.isoweekday() % 7 in weekday
        on_day = in_month or in_week if both else in_month and in_week
        return local.minute in minute and local.hour in hour and local.month in month and on_day

    return matches


@cache
def clock(zone: str, day: str) -> list[tuple[int, datetime, int]]:
    """What a clock there shows, and whether for the second time, minute by minute from two days before."""
    there, start = ZoneInfo(zone), ms(f"{day}T00:00:00+00:00")
    shown = [
        (at, datetime.fromtimestamp(at // 1000, there))
        for at in range(start - 2 * DAY, start + 2 * WINDOW + MINUTE, MINUTE)
    ]
    return [(at, aware.replace(tzinfo=None, fold=0), aware.fold) for at, aware in shown]


def minute_by_minute(cron: str, zone: str, day: str) -> set[int]:
    """The slots, found in the plainest way."""
    matches, found = matcher(cron), set()
    every_so_often = any(text.startswith("*") for text in cron.split()[:2])
    before: datetime | None = None
    for at, local, fold in clock(zone, day):
        if matches(local) and (every_so_often or not fold):
            found.add(at)
        if before and not every_so_often:
            left_out = (local - before) // timedelta(minutes=1) - 1
            found |= {
                at + (n - 1) * MINUTE for n in range(1, left_out + 1) if matches(before + n * timedelta(minutes=1))
            }
        before = local
    return found


@settings(max_examples=100)
@given(crons, windows, st.integers(0, WINDOW // MINUTE), st.integers(1, WINDOW // MINUTE), st.integers(1, 30))
@example("30 2 * * *", ("America/New_York", "2026-03-06"), 0, WINDOW // MINUTE, 1)
@example("30 1 * * *", ("America/New_York", "2026-10-30"), 0, WINDOW // MINUTE, 1)
@example("0 * * * *", ("Australia/Lord_Howe", "2019-10-03"), 0, WINDOW // MINUTE, 30)
@example("15,30 2,3 * * *", ("Europe/Lisbon", "2026-03-27"), 0, WINDOW // MINUTE, 3)
@example("0 0 * * *", ("America/Sao_Paulo", "2018-11-02"), 0, WINDOW // MINUTE, 1)
@example("0,1,2 0,1,2 * * *", ("America/Sao_Paulo", "2018-11-02"), 302, 2_818, 13)
@example("0 12 * * *", ("Pacific/Apia", "2011-12-28"), 0, WINDOW // MINUTE, 1)
def test_slots_are_those_that_a_look_at_every_minute_finds(
    cron: str, window: tuple[str, str], first: int, length: int, most: int
) -> None:
    zone, day = window
    start = ms(f"{day}T00:00:00+00:00")
    after, until = start + first * MINUTE, start + (first + length) * MINUTE
    schedule = plan(cron, zone)
    wanted = sorted(at for at in minute_by_minute(cron, zone, day) if after < at <= until)
    assert [iso(at) for at in slots(schedule, after, until)] == [iso(at) for at in wanted]
    assert slots(schedule, after, until, most=most) == wanted[:most]
    if wanted:
        assert next_slot(schedule, after) == wanted[0]


@settings(max_examples=60)
@given(crons, st.integers(0, 400 * DAY))
def test_in_utc_they_are_croniters(cron: str, offset: int) -> None:
    after = ms("2026-01-01T00:00:00+00:00") + offset
    times = croniter(cron, after / 1000)
    found = slots(plan(cron), after, after + 40 * DAY, most=20)
    assert found == [round(times.get_next() * 1000) for _ in found]


@pytest.mark.parametrize(
    ("cron", "zone", "day", "wanted"),
    [
        ("30 2 * * *", "America/New_York", "2026-03-08", ["03-08 07:30"]),  # 03:30 there; the old offset
        ("30 3 * * *", "America/New_York", "2026-03-08", ["03-08 07:30"]),
        ("30 2,3 * * *", "America/New_York", "2026-03-08", ["03-08 07:30"]),  # never two at one instant
        ("30 1 * * *", "America/New_York", "2026-11-01", ["11-01 05:30"]),  # the first time
        ("30 * * * *", "America/New_York", "2026-11-01", ["11-01 04:30", "11-01 05:30", "11-01 06:30"]),
        ("30 * * * *", "America/New_York", "2026-03-08", ["03-08 05:30", "03-08 06:30", "03-08 07:30"]),
        ("*/30 2 * * *", "America/New_York", "2026-03-08", []),
        ("@hourly", "Australia/Lord_Howe", "2026-10-04", ["10-03 14:30", "10-03 16:00", "10-03 17:00"]),
    ],
)
def test_where_clocks_change(cron: str, zone: str, day: str, wanted: list[str]) -> None:
    there = ZoneInfo(zone)
    start = round(datetime.fromisoformat(day).replace(tzinfo=there).timestamp() * 1000)
    found = [iso(at) for at in slots(plan(cron, zone), start, start + 4 * HOUR)]
    assert found[: len(wanted)] == wanted
    assert len(found) == len(set(found))
    if not wanted:
        assert not found


def test_a_slot_may_be_years_away() -> None:
    assert next_slot(plan("0 0 29 2 *"), ms("2097-01-01T00:00:00+00:00")) == ms("2104-02-29T00:00:00+00:00")


@pytest.mark.parametrize("cron", ["@daily", "0 0 L * *", "0 9 * * mon#2", "0 0 * * 7", " 0  2 * * MON-FRI "])
def test_what_croniter_knows_is_taken(cron: str) -> None:
    assert checked(plan(cron))


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"cron": "0 2 * *"}, "cron '0 2 * *' has 4 fields; it takes five, as in '0 2 * * *'"),
        ({"cron": "0 0 2 * * *"}, "there is none for seconds or years"),
        ({"cron": "@reboot"}, "or one of @hourly"),
        ({"cron": "61 * * * *"}, "cron '61 * * * *' is no cron expression: [61 * * * *] is not acceptable"),
        ({"cron": "0 0 * foo *"}, "is no cron expression"),
        ({"cron": "0 2-2 * * *"}, "a range from a value to itself would stand for all"),
        ({"payload": {"n": 2**70}}, "its payload: can't serialize ints"),
        ({"cron": "00-0 2 * * *"}, "a range from a value to itself would stand for all"),
        ({"cron": "0 2-02 * * *"}, "a range from a value to itself would stand for all"),
        ({"cron": "R 2 * * *"}, "name one"),
        ({"cron": "0 h(2-4) * * *"}, "name one"),
        ({"cron": "0 0 31 2 *"}, "cron '0 0 31 2 *' never comes"),
        ({"cron": "0 " * 200}, "it may have 200"),
        ({"zone": "america/sao_paolo"}, "no time zone 'america/sao_paolo'; did you mean 'America/Sao_Paulo'?"),
        ({"zone": "utc"}, "did you mean 'UTC'?"),
        ({"zone": "America"}, "no time zone 'America'"),
        ({"zone": "../etc/passwd"}, "no time zone '../etc/passwd'"),
        ({"zone": "\0"}, "no time zone"),
        ({"name": "Two words"}, "schedule name 'Two words': it takes lower-case letters"),
        ({"grace": 604_801.0}, "a grace of 604801 s; it goes from 0 to 604800 s"),
        ({"grace": float("nan")}, "a grace of nan s"),
        ({"tenant": "\0"}, "tenant '\\x00'"),
        ({"payload": {"a": "x" * 20_000}}, "a payload of 20,008 bytes; it may have 16,384"),
    ],
)
def test_what_cannot_be_is_refused_with_its_value_and_the_remedy(changes: dict[str, object], says: str) -> None:
    with pytest.raises(BadInput) as raised:
        checked(msgspec.structs.replace(plan("0 2 * * *"), **changes))
    assert says in str(raised.value)


@given(st.text(st.one_of(st.sampled_from("0123456789 */,-#LWlw?"), st.characters(codec="utf-8")), max_size=20))
def test_no_expression_is_more_than_refused(cron: str) -> None:
    try:
        checked(plan(cron))
    except BadInput:
        return


NOW = ms("2026-06-01T12:00:10+00:00")
ON_TIME = NOW - 10_000


def at_hours(*back: float) -> list[int]:
    return [ON_TIME - round(hours * HOUR) for hours in back]


@pytest.mark.parametrize(
    ("misfire", "grace", "fire", "missed"),
    [
        ("skip", 6, at_hours(0), 4),
        ("once", 6, at_hours(1, 0), 3),
        ("all", 6, at_hours(4, 3, 2, 1, 0), 0),
        ("all", 2.5, at_hours(2, 1, 0), 2),
        ("once", 0.5, at_hours(0), 4),
        ("all", 0, at_hours(0), 4),
    ],
)
def test_after_a_downtime_the_policy_says_what_is_made_up_for(
    misfire: str, grace: float, fire: list[int], missed: int
) -> None:
    schedule = plan("0 * * * *", misfire=misfire)
    found = turn(schedule, ScheduleState(done=NOW - 5 * HOUR), NOW, grace=grace * 3600)
    assert found
    assert (found.fire, len(found.missed), found.until) == (fire, missed, ON_TIME)


def test_what_the_stage_refused_is_not_skipped() -> None:
    schedule, (refused, later) = plan("0 * * * *", misfire="skip"), at_hours(2, 1)
    state = ScheduleState(done=refused - 1, refused=refused)
    assert turn(schedule, state, later + HOUR - 1, grace=DAY) == Turn([refused], [later], later)


def test_nothing_is_due_where_a_clock_is_behind() -> None:
    assert turn(plan("* * * * *"), ScheduleState(done=NOW + HOUR), NOW, grace=DAY) is None


@pytest.mark.parametrize(("misfire", "count"), [("skip", 1), ("once", 2), ("all", 1440)])
def test_a_long_downtime_is_made_up_for_step_by_step(misfire: str, count: int) -> None:
    schedule, state = plan("* * * * *", misfire=misfire), ScheduleState(done=NOW - 2 * DAY)
    fired, missed = [], 0
    while step := turn(schedule, state, NOW, grace=86_400):
        assert len(step.fire) <= MOST_AT_ONCE
        assert len(step.missed) <= MOST_IN_A_STEP
        fired += step.fire
        missed += len(step.missed)
        state = ScheduleState(done=step.until)
    assert fired == sorted(set(fired))
    assert len(fired) == count
    assert count + missed == 2 * 1440
