"""The stage `cleanup.stats`: the statistics of a day, by tenant."""

from collections.abc import Awaitable, Callable, Iterable, Mapping
from datetime import UTC, date, datetime, timedelta
from typing import Any

from sqlalchemy import ColumnElement, and_, case, func, literal, select

from pipeline import Context, Permanent
from pipeline.message import now_ms
from stages.audio.media import media
from stages.cleanup.retention import DAY
from stages.cleanup.statistics import statistics
from stages.conversation.store import messages
from stages.jobs import CollectStatistics
from stages.notification.away import waiting_for_log
from stages.notification.log import notifications
from stages.ports import REPLY
from stages.store import Database

# How many jobs were buried between two times (ms since the epoch; the second is not among them), by tenant.
Buried = Callable[[int, int], Awaitable[Mapping[str, int]]]

ROWS = 500  # written at a time
LONGEST = 2**31 - 1  # ms: what the column takes, 24 days
CAME = ("accepted", "delivered", "read", "failed", "unknown")  # how far notifications did

MESSAGES = ("messages_in", "messages_out")
PERCENTILES = ("handling_p50_ms", "handling_p95_ms")
TRANSCRIPTS = ("audio_seconds", "transcripts")
NOTIFICATIONS = tuple(f"notifications_{came}" for came in CAME)
FAILURES = ("failures",)

# What comes from one place, after what says how much was found there.
FOUND_TOGETHER = (
    (MESSAGES, MESSAGES + PERCENTILES),
    (("transcripts",), TRANSCRIPTS),
    (NOTIFICATIONS, NOTIFICATIONS),
    (FAILURES, FAILURES),
)
NOTHING: dict[str, Any] = dict.fromkeys(MESSAGES + TRANSCRIPTS + NOTIFICATIONS + FAILURES, 0)
NOTHING |= dict.fromkeys(PERCENTILES)


class StatisticsHandler:
    """Computes a day's statistics, and puts them in place of those computed before.

    What a day's row counts is pruned in time, not all at once, and is then not there to be counted again: where
    fewer messages are found than the row has, say, it keeps what it says of messages.
    """

    def __init__(self, database: Database, buried: Buried, now: Callable[[], int] = now_ms) -> None:
        self._database = database
        self._buried = buried
        self._now = now

    async def __call__(self, ctx: Context, job: CollectStatistics) -> dict[str, Any]:
        now = self._now()
        day = of_calendar(job.day) if job.day else _day(now) - timedelta(days=1)
        with waiting_for_log(ctx, now):
            rows = await self._computed(day)
            common = {"day": str(day), "computed_ms": now}
            whole = [NOTHING | common | {"tenant": tenant} | row for tenant, row in sorted(rows.items())]
            for start in range(0, len(whole), ROWS):
                await self._database.write(self._upsert(), whole[start : start + ROWS])
        return {"day": str(day), "tenants": len(rows)}

    async def _computed(self, day: date) -> dict[str, dict[str, Any]]:
        since = _start(day)
        until = since + DAY
        rows: dict[str, dict[str, Any]] = {}
        for query in (_messages(since, until), _media(since, until), _sent(since, until), _handled(since, until)):
            for found in await self._database.read(query):
                rows.setdefault(found["tenant"], {}).update(found)
        for tenant, count in (await self._buried(since, until)).items():
            if count:
                rows.setdefault(tenant, {})["failures"] = count
        return rows

    def _upsert(self) -> Any:
        insert = self._database.insert(statistics)
        new, changes = insert.excluded, {"computed_ms": insert.excluded.computed_ms}
        for counts, names in FOUND_TOGETHER:
            as_many = _sum(new[name] for name in counts) >= _sum(statistics.c[name] for name in counts)
            changes |= {name: case((as_many, new[name]), else_=statistics.c[name]) for name in names}
        return insert.on_conflict_do_update(index_elements=statistics.primary_key, set_=changes)


def with_day(_tenant: str, job: CollectStatistics) -> CollectStatistics:
    """The job, for a stage's check. Raises ValueError where its day is none."""
    if job.day:
        date.fromisoformat(job.day)
    return job


def of_calendar(day: str) -> date:
    """The day of YYYY-MM-DD. Raises Permanent where there is none."""
    try:
        return date.fromisoformat(day)
    except ValueError as error:
        raise Permanent(f"no day {day!r}: {error}") from None


def _day(at_ms: int) -> date:
    return datetime.fromtimestamp(at_ms / 1000, UTC).date()


def _start(day: date) -> int:
    return (day - date(1970, 1, 1)).days * DAY


def _within(time: ColumnElement[int], since: int, until: int) -> ColumnElement[bool]:
    return and_(time >= since, time < until)


def _sum(columns: Iterable[ColumnElement[int]]) -> ColumnElement[int]:
    return sum(columns, start=literal(0))


def _number(condition: ColumnElement[bool]) -> ColumnElement[int]:
    return func.sum(case((condition, 1), else_=0))


def _messages(since: int, until: int) -> Any:
    tenant, direction = messages.c.tenant, messages.c.direction
    counts = (_number(direction == "in").label("messages_in"), _number(direction == "out").label("messages_out"))
    return select(tenant, *counts).where(_within(messages.c.sent_ms, since, until)).group_by(tenant)


def _media(since: int, until: int) -> Any:
    tenant = media.c.tenant
    sums = func.sum(media.c.seconds).label("audio_seconds"), func.count().label("transcripts")
    return select(tenant, *sums).where(_within(media.c.at_ms, since, until)).group_by(tenant)


def _sent(since: int, until: int) -> Any:
    """Each counts once. Of one that was refused for now, or is being sent, nobody knows yet."""
    log = notifications.c
    came = case(
        (log.status.in_(("read", "played")), "read"),
        (log.status == "delivered", "delivered"),
        (log.state.in_(("accepted", "failed")), log.state),
        else_="unknown",
    )
    each = select(log.tenant, came.label("came")).where(_within(log.created_ms, since, until)).subquery()
    counts = [_number(each.c.came == name).label(f"notifications_{name}") for name in CAME]
    return select(each.c.tenant, *counts).group_by(each.c.tenant)


def _handled(since: int, until: int) -> Any:
    """Percentiles by nearest rank of the time from a question of the day coming in until its reply was found."""
    asked, reply = messages.alias(), messages.alias()
    is_reply = and_(
        reply.c.tenant == asked.c.tenant, reply.c.chat == asked.c.chat, reply.c.id == literal(REPLY) + asked.c.id
    )
    took = reply.c.sent_ms - asked.c.received_ms
    took = case((took > LONGEST, LONGEST), (took < 0, 0), else_=took)  # clocks may be wrong
    each = (
        select(
            asked.c.tenant,
            took.label("took"),
            func.row_number().over(partition_by=asked.c.tenant, order_by=took).label("rank"),
            func.count().over(partition_by=asked.c.tenant).label("number"),
        )
        .join_from(asked, reply, is_reply)
        .where(_within(asked.c.sent_ms, since, until), asked.c.direction == "in", asked.c.received_ms > 0)
        .subquery()
    )

    def percentile(percent: int) -> ColumnElement[int]:
        return func.min(case((each.c.rank * 100 >= each.c.number * percent, each.c.took)))

    columns = percentile(50).label("handling_p50_ms"), percentile(95).label("handling_p95_ms")
    return select(each.c.tenant, *columns).group_by(each.c.tenant)
