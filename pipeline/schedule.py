"""Schedules: when a job is due again and again, and what becomes of times that went by while nobody ran.

croniter is asked for times without a zone, and which instants they are is worked out here: with a zone it leaves
some out where clocks change, and moves others (a 02:30 that does not exist to 03:00).
"""

import difflib
import hashlib
import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from itertools import islice
from typing import Any, Literal, NamedTuple
from zoneinfo import ZoneInfo, available_timezones

import msgspec
from croniter import CroniterBadDateError, croniter

from pipeline.errors import BadInput, did_you_mean

DEFAULT_GRACE = 6 * 3600.0  # seconds
LONGEST_GRACE = 7 * 86_400.0  # seconds; dedup ids, which tell slots apart, are kept for a week
TOLERANCE_MS = 60_000  # later than this a slot was missed: nobody ran when its time came
MOST_IN_A_STEP = 1000  # slots looked at in one go: about 50 ms
MOST_AT_ONCE = 100  # jobs of one schedule added in one go
LONGEST_CRON = 200  # characters
LARGEST_PAYLOAD = 16_384  # bytes of JSON
LONGEST_TENANT = 200  # characters
A_DAY = 26 * 3_600_000  # ms; and a bit: no clock was ever put forward or back by more

NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,79}", re.ASCII)
EQUAL_RANGE = re.compile(r"\b0*(\w+)-0*\1\b")
MISFIRES = ("skip", "once", "all")
SHORT = {
    "@hourly": "0 * * * *",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@weekly": "0 0 * * 0",
    "@monthly": "0 0 1 * *",
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
}

Misfire = Literal["skip", "once", "all"]


class Schedule(msgspec.Struct, frozen=True, kw_only=True):
    """A job for a stage at the times of a cron expression (minute, hour, day of month, month, day of week).

    A fixed time of day that does not exist when clocks go forward comes when it would have without that; one that
    exists twice comes the first time. If the field of minutes or hours begins with `*`, all real instants count.

    `payload` is plain data, as in JSON. `misfire` is what becomes of times that were missed: `skip` leaves them
    out, `once` makes up for the last, `all` for each; of those that are not more than `grace` seconds old.
    """

    name: str
    cron: str
    stage: str
    payload: dict[str, Any] = {}
    tenant: str = ""
    zone: str = "UTC"
    misfire: Misfire = "once"
    grace: float = DEFAULT_GRACE

    @property
    def fields(self) -> list[str]:
        """Those of the cron expression."""
        cron = self.cron.strip().lower()
        return SHORT.get(cron, cron).split()

    @property
    def fingerprint(self) -> str:
        """What its slots hang on: with another one, they are not the same schedule's."""
        return hashlib.sha256(" ".join([*self.fields, self.zone]).encode()).hexdigest()[:16]


class ScheduleState(msgspec.Struct, frozen=True):
    """How far a schedule has come. Times are ms since the epoch, 0: never.

    Slots up to `done` are dealt with; of those after it the stage refused the ones up to `refused`.
    `slot` and `job` are of the last job, at `fired`; a job out of turn has no slot. `missed` slots had no job.
    """

    fingerprint: str = ""
    done: int = 0
    refused: int = 0
    slot: int = 0
    fired: int = 0
    job: str = ""
    missed: int = 0


class Plans(NamedTuple):
    """What was put at run time: schedules, names of those that cannot be read, and which of all are paused."""

    version: int
    schedules: list[Schedule]
    unreadable: list[str]
    paused: frozenset[str]


class Turn(NamedTuple):
    """What to do about the slots up to `until`: have jobs for those in `fire`, in order; `missed` get none."""

    fire: list[int]
    missed: list[int]
    until: int


def checked(schedule: Schedule) -> Schedule:
    """The schedule, if it can be worked with. Raises BadInput naming the value and the remedy."""
    if not NAME.fullmatch(schedule.name):
        raise BadInput(
            f"schedule name {schedule.name[:80]!r}: it takes lower-case letters, digits, '-' and '_', 80 at most, "
            "and begins with a letter or digit"
        )
    about = f"schedule '{schedule.name}'"
    _check_cron(f"{about}: cron {schedule.cron[:80]!r}", schedule)
    _check_zone(about, schedule.zone)
    if schedule.misfire not in MISFIRES:
        raise BadInput(f"{about}: misfire {schedule.misfire[:80]!r}{did_you_mean(schedule.misfire, MISFIRES)}")
    if not 0 <= schedule.grace <= LONGEST_GRACE:
        raise BadInput(f"{about}: a grace of {schedule.grace:g} s; it goes from 0 to {LONGEST_GRACE:.0f} s")
    if len(schedule.tenant) > LONGEST_TENANT or "\0" in schedule.tenant:
        raise BadInput(
            f"{about}: tenant {schedule.tenant[:80]!r}: {LONGEST_TENANT} characters at most, and no NUL"
        )
    if (size := len(msgspec.json.encode(schedule.payload))) > LARGEST_PAYLOAD:
        raise BadInput(f"{about}: a payload of {size:,} bytes; it may have {LARGEST_PAYLOAD:,}")
    try:
        msgspec.msgpack.encode(schedule.payload)  # as jobs are
    except OverflowError as error:
        raise BadInput(f"{about}: its payload: {error}") from None
    return schedule


def _check_cron(about: str, schedule: Schedule) -> None:
    if len(schedule.cron) > LONGEST_CRON:
        raise BadInput(f"{about}… has {len(schedule.cron):,} characters; it may have {LONGEST_CRON}")
    fields = schedule.fields
    if len(fields) != 5:
        raise BadInput(
            f"{about} has {len(fields)} fields; it takes five, as in '0 2 * * *': minute, hour, day of month, "
            f"month, day of week (there is none for seconds or years); or one of {', '.join(SHORT)}"
        )
    if any(field[0] in "rh" for field in fields):
        raise BadInput(f"{about}: R and H stand for any time, and every process would take another; name one")
    if EQUAL_RANGE.search(" ".join(fields)):
        raise BadInput(f"{about}: a range from a value to itself would stand for all; write the value alone")
    try:
        first = next(_local(fields, datetime(2000, 1, 1)), None)  # noqa: DTZ001 - no zone on purpose
    except (ValueError, TypeError, LookupError) as error:
        raise BadInput(f"{about} is no cron expression: {error}; one looks like '0 2 * * *'") from None
    if first is None:
        raise BadInput(f"{about} never comes: none of its months has such a day")


def _check_zone(about: str, zone: str) -> None:
    try:
        ZoneInfo(zone)
    except (ValueError, LookupError, OSError):  # OSError: the name of a folder
        known = {name.casefold(): name for name in available_timezones()}
        close = difflib.get_close_matches(zone.casefold(), known, n=1)
        remedy = f"did you mean '{known[close[0]]}'?" if close else "one is called America/Sao_Paulo"
        raise BadInput(f"{about}: no time zone '{zone[:80]}'; {remedy}") from None


def slots(schedule: Schedule, after_ms: int, until_ms: int, *, most: int | None = None) -> list[int]:
    """The instants, in ms since the epoch, at which a job is due: after the one and up to the other; the first
    `most` of them."""
    if most is not None:
        reached = list(islice(_once(_instants(schedule, after_ms, until_ms)), most))
        if len(reached) == most:  # where clocks change, there may be others before the last of these
            until_ms = max(reached)
    found = sorted(set(_instants(schedule, after_ms, until_ms)))
    return found[:most]


def next_slot(schedule: Schedule, after_ms: int) -> int | None:
    """The first instant after this one at which a job is due; None if there is none within 50 years."""
    first = next(_instants(schedule, after_ms, None), None)
    return None if first is None else slots(schedule, after_ms, first)[0]


def _instants(schedule: Schedule, after: int, until: int | None) -> Iterator[int]:
    """As `slots`, but where clocks change not in order, and some twice."""
    zone = ZoneInfo(schedule.zone)
    start = _naive(after) + min(_offset(zone, after + around) for around in (-A_DAY, 0, A_DAY))
    last = None
    if until is not None:
        last = _naive(until) + max(_offset(zone, until + around) for around in (-2 * A_DAY, -A_DAY, 0))
    fields = schedule.fields
    every_so_often = any(field.startswith("*") for field in fields[:2])
    for local in _local(fields, start):
        if last is not None and local > last:
            return
        for at in _real(local, zone) if every_so_often else (_instant(local, zone, 0),):
            if after < at and (until is None or at <= until):
                yield at


def _once(instants: Iterator[int]) -> Iterator[int]:
    seen = set()
    for at in instants:
        if at not in seen:
            seen.add(at)
            yield at


def _local(fields: list[str], start: datetime) -> Iterator[datetime]:
    """The times on a clock that nobody ever puts forward or back."""
    times, at = _parsed(" ".join(fields)), start
    while True:
        try:
            at = times.get_next(datetime, start_time=at)
        except (CroniterBadDateError, OverflowError):
            return
        yield at


@lru_cache(1024)
def _parsed(cron: str) -> croniter:
    """Shared, so it is to be told each time from where to go on."""
    return croniter(cron)


def _real(local: datetime, zone: ZoneInfo) -> Iterator[int]:
    """The instants at which a clock there shows this time: none, one or two."""
    for fold in (0, 1):
        at = _instant(local, zone, fold)
        if _naive(at) + _offset(zone, at) == local and not (fold and at == _instant(local, zone, 0)):
            yield at


def _instant(local: datetime, zone: ZoneInfo, fold: int) -> int:
    """When a clock there shows this time, the first or the second time. A time that is left out is taken as if the
    clock had not been put forward (PEP 495)."""
    return round(local.replace(tzinfo=zone, fold=fold).timestamp() * 1000)


def _naive(ms: int) -> datetime:
    return datetime.fromtimestamp(ms / 1000, UTC).replace(tzinfo=None)


def _offset(zone: ZoneInfo, ms: int) -> timedelta:
    offset = datetime.fromtimestamp(ms / 1000, zone).utcoffset()
    return offset if offset is not None else timedelta()


def turn(schedule: Schedule, state: ScheduleState, now_ms: int, *, grace: float) -> Turn | None:
    """What is to be done now, at most so many slots of it; None where nothing is due. `grace` is in seconds.

    What comes up to a minute late is due like any other. What is later was missed, and the schedule says what of
    it is made up for; what the stage refused was not missed.
    """
    due = slots(schedule, state.done, now_ms, most=MOST_IN_A_STEP + 1)
    if not due:
        return None
    more, due = len(due) > MOST_IN_A_STEP, due[:MOST_IN_A_STEP]
    oldest, missed_before = now_ms - max(int(grace * 1000), TOLERANCE_MS), now_ms - TOLERANCE_MS
    late = [slot for slot in due if oldest <= slot < missed_before]
    match schedule.misfire:
        case "skip":
            late = [slot for slot in late if slot <= state.refused][-1:]
        case "once":
            late = [] if more else late[-1:]
    wanted = [*late, *(slot for slot in due if slot >= missed_before)]
    fire = wanted[:MOST_AT_ONCE]
    until = due[-1] if fire == wanted else fire[-1]
    return Turn(fire, [slot for slot in due if slot <= until and slot not in fire], until)
