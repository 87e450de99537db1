"""A day's statistics, computed by the database and beside it in plain Python."""

import math
import random
from collections import defaultdict
from typing import Any

import pytest

from pipeline import Permanent
from stages.audio.media import media
from stages.cleanup.collect import StatisticsHandler, with_day
from stages.cleanup.retention import DAY
from stages.cleanup.statistics import statistics
from stages.conversation.store import messages
from stages.jobs import CollectStatistics
from stages.notification.log import notifications
from stages.ports import REPLY
from stages.store import Database
from tests.cleaning import context, fill, message, note, sent

pytestmark = pytest.mark.integration

START = 20_000 * DAY  # 2024-10-04
NAME = "2024-10-04"
NOW = START + DAY + 5 * 3_600_000  # the morning after
TENANTS = ["", "bakery", "pharmacy", "só uma"]
STATES = [
    ("accepted", "", "accepted"),
    ("accepted", "sent", "accepted"),
    ("accepted", "delivered", "delivered"),
    ("accepted", "read", "read"),
    ("accepted", "played", "read"),
    ("failed", "failed", "failed"),
    ("failed", "", "failed"),
    ("unknown", "", "unknown"),
    ("sending", "", "unknown"),
    ("refused", "", "unknown"),
]


async def collected(database: Database, day: str | None = None, **buried: int) -> dict[str, dict[str, Any]]:
    """Compute a day; the whole table by tenant."""

    async def count(since: int, until: int) -> dict[str, int]:
        assert until - since == DAY
        return buried if since == START else {}

    await StatisticsHandler(database, count, lambda: NOW)(context(), CollectStatistics(day))
    return {row["tenant"]: dict(row) for row in await database.read(statistics.select())}


def nearest_rank(values: list[int], percent: int) -> int | None:
    return sorted(values)[math.ceil(len(values) * percent / 100) - 1] if values else None


class Expected:
    """Counts what it makes."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)
        self.rows: dict[str, dict[str, Any]] = defaultdict(lambda: defaultdict(int))
        self.took: dict[str, list[int]] = defaultdict(list)
        self.messages: list[dict[str, Any]] = []
        self.notifications: list[dict[str, Any]] = []
        self.media: list[dict[str, Any]] = []

    def _moment(self) -> tuple[int, bool]:
        at_ms = self._random.choice((START - 1, START, START + DAY - 1, START + DAY, START + 7_000_000))
        return at_ms, START <= at_ms < START + DAY

    def said(self, n: int) -> None:
        tenant, (at_ms, inside) = self._random.choice(TENANTS[1:]), self._moment()
        received_ms = self._random.choice((0, at_ms + 3))
        self.messages.append(message(tenant, "chat", str(n), at_ms, received_ms=received_ms))
        self.rows[tenant]["messages_in"] += inside
        if self._random.random() < 0.7:
            took = self._random.randrange(1, 5_000)
            replied_ms = received_ms + took if received_ms else at_ms + took
            self.messages.append(message(tenant, "chat", f"{REPLY}{n}", replied_ms, direction="out"))
            self.rows[tenant]["messages_out"] += START <= replied_ms < START + DAY
            if inside and received_ms:
                self.took[tenant].append(took)

    def notified(self, n: int) -> None:
        tenant, (at_ms, inside) = self._random.choice(TENANTS[:3]), self._moment()
        state, status, came = self._random.choice(STATES)
        self.notifications.append(sent(str(n), at_ms, tenant=tenant, state=state, status=status))
        self.rows[tenant][f"notifications_{came}"] += inside

    def heard(self, n: int) -> None:
        tenant, (at_ms, inside) = self._random.choice(TENANTS[:2]), self._moment()
        seconds = self._random.random() * 60
        self.media.append({"job": str(n), "tenant": tenant, "at_ms": at_ms, "seconds": seconds})
        self.rows[tenant]["transcripts"] += inside
        self.rows[tenant]["audio_seconds"] += seconds * inside

    async def written(self, database: Database) -> None:
        await fill(database, messages, self.messages)
        await fill(database, notifications, self.notifications)
        rest = {"chat": "", "message": "", "source": "", "language": "pt", "heard": 0}
        await fill(database, media, [rest | row for row in self.media])

    def row(self, tenant: str) -> dict[str, Any]:
        names = [
            column.name for column in statistics.columns if column.name not in ("tenant", "day", "computed_ms")
        ]
        row = {name: self.rows[tenant][name] for name in names}
        row["handling_p50_ms"] = nearest_rank(self.took[tenant], 50)
        row["handling_p95_ms"] = nearest_rank(self.took[tenant], 95)
        row["audio_seconds"] = pytest.approx(row["audio_seconds"])
        return row | {"tenant": tenant, "day": NAME, "computed_ms": NOW}


@pytest.mark.parametrize("seed", [1, 2, 3])
async def test_the_database_counts_as_plain_python_does(database: Database, seed: int) -> None:
    expected = Expected(seed)
    for n in range(200):
        expected.said(n)
        expected.notified(n)
        expected.heard(n)
    await expected.written(database)
    expected.rows["bakery"]["failures"] = 3
    found = await collected(database, bakery=3)
    assert found == {tenant: expected.row(tenant) for tenant in TENANTS}
    assert await collected(database, NAME, bakery=3) == found


@pytest.mark.parametrize("number", [1, 2, 3, 19, 20, 21, 100, 101])
async def test_percentiles_are_of_nearest_rank(database: Database, number: int) -> None:
    took = [n * n for n in range(1, number + 1)]
    for n, value in enumerate(took):
        pair = [message("shop", str(n), "q", START + n, received_ms=START + n)]
        pair.append(message("shop", str(n), f"{REPLY}q", START + n + value, direction="out"))
        await fill(database, messages, pair)
    row = (await collected(database))["shop"]
    assert (row["handling_p50_ms"], row["handling_p95_ms"]) == (nearest_rank(took, 50), nearest_rank(took, 95))


async def test_who_had_nothing_has_no_row(database: Database) -> None:
    await note(database, "1", START - 1)
    assert await collected(database, idle=0) == {}
    assert list(await collected(database, busy=1)) == ["busy"]


async def test_what_was_pruned_since_stays_in_the_statistics(database: Database) -> None:
    await note(database, "1", START, tenant="shop")
    await fill(database, notifications, [sent("2", START), sent("3", START, tenant="gone", status="read")])
    before = await collected(database)
    await database.write(notifications.delete())
    await note(database, "4", START, tenant="shop")
    after = await collected(database)
    assert after["gone"] == before["gone"]
    assert (after["shop"]["transcripts"], after["shop"]["audio_seconds"]) == (2, 5.0)
    assert after["shop"]["notifications_accepted"] == before["shop"]["notifications_accepted"] == 1


async def test_what_was_pruned_in_part_stays_as_it_was_counted_whole(database: Database) -> None:
    for name in ("young", "old"):
        pair = [message("shop", name, "q", START, received_ms=START)]
        took = 10 if name == "young" else 1_000
        pair.append(message("shop", name, f"{REPLY}q", START + took, direction="out"))
        await fill(database, messages, pair)
        await note(database, name, START)
        await fill(database, notifications, [sent(name, START)])
    before = await collected(database, shop=2)
    for table, column in ((messages, messages.c.chat), (media, media.c.job), (notifications, notifications.c.job)):
        await database.write(table.delete().where(column == "old"))
    assert await collected(database, shop=1) == before


async def test_a_reply_that_took_longer_than_any_figure_keeps_no_day_from_being_counted(
    database: Database,
) -> None:
    """As of a machine whose clock was not set yet."""
    for tenant, received_ms, replied_ms in (("early", 1, START), ("late", START + 9, START)):
        asked = message(tenant, "chat", "q", START, received_ms=received_ms)
        await fill(database, messages, [asked, message(tenant, "chat", f"{REPLY}q", replied_ms, direction="out")])
    rows = await collected(database)
    assert {tenant: row["handling_p95_ms"] for tenant, row in rows.items()} == {"early": 2**31 - 1, "late": 0}


async def test_a_notification_that_came_further_is_counted_there_alone(database: Database) -> None:
    await fill(database, notifications, [sent("1", START)])
    await collected(database)
    await database.write(notifications.update().values(status="read"))
    row = (await collected(database))["shop"]
    assert (row["notifications_accepted"], row["notifications_read"]) == (0, 1)


async def test_a_day_that_is_none_is_refused(database: Database) -> None:
    with pytest.raises(Permanent, match="'2024-02-30'"):
        await collected(database, "2024-02-30")
    with pytest.raises(ValueError, match="day"):
        with_day("", CollectStatistics("2024-02-30"))
    assert with_day("", CollectStatistics("2024-02-29"))
