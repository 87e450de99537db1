"""Alerts of the same cause are told together: the same on SQLite and, where it is installed, on PostgreSQL.

Time is the test's own, and so is what the engine does with jobs that come back later.
"""

import asyncio
import itertools
import logging
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from sqlalchemy import select

from pipeline import Job, Pipeline, RetryLater, Stage
from stages.jobs import Alert
from stages.notification.alerts import (
    KEEP_MS,
    LOST_MS,
    AlertChannel,
    AlertHandler,
    AlertStore,
    EmailAlerts,
    WebhookAlerts,
    alerts,
)
from stages.notification.errors import OutcomeUnknown, Refused, Retryable
from stages.notification.webhook import SignedWebhook
from stages.store import Database, sqlite_file
from tests.mail import HIDDEN, SECRET, Mailbox, Receiver, email, mail_server
from tests.support import Connector, add_all, context_of, depths, reached, until, working

pytestmark = pytest.mark.integration

START = 1_795_000_000_000  # 18/11/2026 11:06:40 UTC
EVERY = 300.0  # seconds
CAUSE = "o token do WhatsApp não vale mais"


class Told(msgspec.Struct, frozen=True):
    subject: str
    text: str
    id: str

    @property
    def count(self) -> int:
        return int(self.text.split("Ocorrências: ")[1].split(" ")[0])


class Administrator:
    """A channel that notes what it is told, after `hold` is set, and fails with `error`."""

    def __init__(self) -> None:
        self.told: list[Told] = []
        self.error: Exception | None = None
        self.asked = 0
        self.hold = asyncio.Event()
        self.hold.set()

    async def send(self, subject: str, text: str, *, id: str) -> None:  # noqa: A002
        self.asked += 1
        await self.hold.wait()
        if self.error:
            raise self.error
        self.told.append(Told(subject, text, id))

    @property
    def counts(self) -> list[int]:
        return [told.count for told in self.told]


class Desk:
    """Handlers on one database with a clock, and the jobs that come back later: when they are due, by job."""

    def __init__(self, database: Database, *channels: AlertChannel, every: float = EVERY) -> None:
        self.now = START
        self.database = database
        self.handlers = [AlertHandler(AlertStore(database, every), channels, now=lambda: self.now) for _ in "ab"]
        self.due: dict[int, tuple[int, Alert, str]] = {}
        self.busiest = 0

    async def run(self, n: int, alert: Alert | None = None, *, tenant: str = "shop") -> int:
        """How many failures job `n` told of; -1 where it comes back later."""
        alert = alert or failure(n)
        try:
            ctx = context_of("alert", alert, tenant=tenant, number=n)
            told: int = (await self.handlers[n % 2](ctx, alert))["told"]
        except RetryLater as later:
            self.due[n] = (self.now + round(later.seconds * 1000), alert, tenant)
            self.busiest = max(self.busiest, len(self.due))
            return -1
        self.due.pop(n, None)
        return told

    async def pass_until(self, then: int) -> None:
        """Let time pass; what becomes due meanwhile runs."""
        while self.due and (soonest := min(self.due.items(), key=lambda item: item[1][0]))[1][0] <= then:
            n, (at, alert, tenant) = soonest
            self.now = max(self.now, at)
            await self.run(n, alert, tenant=tenant)
        self.now = then

    async def wait(self, seconds: float) -> None:
        await self.pass_until(self.now + round(seconds * 1000))


def failure(n: int) -> Alert:
    return Alert(cause=CAUSE, text=f"texto {n}", job=f"send-client.0.{n}-0")


@pytest.fixture
def administrator() -> Administrator:
    return Administrator()


@pytest.fixture
def desk(database: Database, administrator: Administrator) -> Desk:
    return Desk(database, administrator)


async def test_the_first_failure_is_told_at_once(desk: Desk, administrator: Administrator) -> None:
    assert await desk.run(1) == 1
    (told,) = administrator.told
    assert told.subject == f"[Riacho] {CAUSE}"
    assert told.text == (
        f"Causa: {CAUSE}\nLoja: shop\nOcorrências: 1 vez, em 18/11/2026 11:06:40 UTC\n"
        "Exemplo mais recente: texto 1\nTarefa: send-client.0.1-0\n"
    )


async def test_those_of_the_next_minutes_are_told_together_once_these_are_over(
    desk: Desk, administrator: Administrator
) -> None:
    await desk.run(1)
    desk.now += 60_000
    assert [await desk.run(n) for n in (2, 3, 4)] == [-1, 0, 0]
    await desk.wait(239.9)
    assert administrator.counts == [1]
    await desk.wait(0.1)
    assert administrator.counts == [1, 3]
    told = administrator.told[-1]
    assert told.subject == f"[Riacho] {CAUSE} (3 vezes)"
    assert "Ocorrências: 3 vezes desde 18/11/2026 11:07:40 UTC\n" in told.text
    assert "Exemplo mais recente: texto 4\nTarefa: send-client.0.4-0\n" in told.text
    assert not desk.due


async def test_after_a_quiet_time_the_next_is_told_at_once_again(desk: Desk, administrator: Administrator) -> None:
    await desk.run(1)
    await desk.wait(EVERY - 0.001)
    assert await desk.run(2) == -1
    await desk.wait(EVERY + 0.001)
    assert await desk.run(3) == 1
    assert administrator.counts == [1, 1, 1]


async def test_causes_and_tenants_are_apart(desk: Desk, administrator: Administrator) -> None:
    assert [await desk.run(n, Alert(cause=cause)) for n, cause in enumerate(["a", "b", "a"])] == [1, 1, -1]
    assert await desk.run(3, Alert(cause="a"), tenant="other") == 1
    assert await desk.run(4, Alert(cause="a"), tenant="") == 1
    assert "Loja" not in administrator.told[-1].text


async def test_hundreds_of_failures_leave_one_job_waiting_and_none_untold(
    desk: Desk, administrator: Administrator
) -> None:
    await asyncio.gather(*(desk.run(n) for n in range(400)))
    assert desk.busiest == 1
    await desk.wait(10 * EVERY)
    assert sum(administrator.counts) == 400
    assert len(administrator.told) == 2


async def test_what_fails_while_an_alert_goes_out_is_told_by_the_next(
    desk: Desk, administrator: Administrator
) -> None:
    administrator.hold.clear()
    first = asyncio.create_task(desk.run(1))
    await reached(lambda: administrator.asked)
    assert [await desk.run(n) for n in (2, 3)] == [0, 0]
    administrator.hold.set()
    assert await first == -1
    await desk.wait(EVERY)
    assert administrator.counts == [1, 2]
    assert len({told.id for told in administrator.told}) == 2  # else a receiver takes the second for the first


async def test_a_carrier_whose_worker_was_lost_goes_on_as_the_carrier(
    desk: Desk, administrator: Administrator
) -> None:
    await desk.run(1)
    for n in (2, 3, 2, 2):
        await desk.run(n)
    await desk.wait(EVERY)
    assert administrator.counts == [1, 2]


async def test_a_job_that_told_and_comes_back_says_nothing_more(desk: Desk, administrator: Administrator) -> None:
    assert [await desk.run(n) for n in (1, 1)] == [1, 0]
    await desk.wait(2 * EVERY)
    assert administrator.counts == [1]


async def test_an_alert_that_nobody_takes_keeps_its_count_and_is_tried_again_under_its_id(
    desk: Desk, administrator: Administrator
) -> None:
    administrator.error = Retryable("away")
    assert [await desk.run(n) for n in (1, 2, 3)] == [-1, 0, 0]
    await desk.wait(10 * EVERY)
    assert administrator.told == []
    assert await desk.run(4) == 0  # its carrier is late, but not lost
    administrator.error = None
    await desk.wait(60)
    assert administrator.counts == [4]
    assert administrator.told[0].id == "alert.0.1-0-0"


async def test_a_carrier_that_never_comes_back_is_replaced_and_its_count_told(
    desk: Desk, administrator: Administrator
) -> None:
    await desk.run(1)
    assert [await desk.run(n) for n in (2, 3)] == [-1, 0]
    desk.due.clear()  # somebody cleared the queue
    desk.now += int(EVERY * 1000) + LOST_MS
    assert await desk.run(4) == 0
    desk.now += 1
    assert await desk.run(5) == 4
    assert administrator.counts == [1, 4]


async def test_two_that_run_the_same_job_lose_no_count(desk: Desk, administrator: Administrator) -> None:
    """A worker that was taken for lost still runs, beside the one that took its job over."""
    await desk.run(1)
    await desk.run(2)
    desk.now += int(EVERY * 1000)
    administrator.hold.clear()
    both = [asyncio.create_task(desk.run(2)) for _ in range(2)]
    await reached(lambda: administrator.asked == 3)
    assert await desk.run(3) == 0
    administrator.hold.set()
    await asyncio.gather(*both)
    await desk.wait(2 * EVERY)
    assert administrator.counts == [1, 1, 1, 1]  # job 2's twice: at least once is what is promised
    assert administrator.told[-1].text.endswith("send-client.0.3-0\n")
    assert not desk.due


async def test_a_clock_that_is_ahead_keeps_nobody_waiting_longer(desk: Desk) -> None:
    desk.now += 3_600_000
    await desk.run(1)
    desk.now -= 3_600_000
    await desk.run(2)
    assert desk.due[2][0] == desk.now + EVERY * 1000


async def test_rows_that_nobody_needs_are_deleted(desk: Desk) -> None:
    for n in range(3):
        await desk.run(n, Alert(cause=f"cause {n}"))
    desk.now += int(EVERY * 1000) + KEEP_MS + 1
    await desk.run(3, Alert(cause="cause 0"))
    assert len(await desk.database.read(select(alerts))) == 1


async def test_whatever_a_text_is_made_of_it_is_kept_and_told(desk: Desk, administrator: Administrator) -> None:
    odd = Alert(cause="x\0y", text="a\0b\n👋", job="j\0")
    assert await desk.run(1, odd) == 1
    assert "Exemplo mais recente: ab\n👋\n" in administrator.told[0].text
    assert await desk.run(2, odd, tenant="s\0") == 1


async def test_processes_count_on_one_database(url: str, administrator: Administrator) -> None:
    """Each with connections of its own."""
    async with Database(url) as one, Database(url) as two:
        desks = [Desk(each, administrator) for each in (one, two)]
        await asyncio.gather(*(desk.run(2 * n + at) for n in range(50) for at, desk in enumerate(desks)))
        assert sum(len(desk.due) for desk in desks) == 1
        for desk in desks:
            await desk.wait(2 * EVERY)
        assert sum(administrator.counts) == 100


# ── any order ────────────────────────────────────────────────────────────────────────────────────

# Bursts of failures at the same time, after a pause in seconds; whether the channel works meanwhile.
bursts = st.lists(st.tuples(st.integers(1, 5), st.sampled_from([0.0, 1.0, 299.0, 300.0, 900.0])), max_size=8)


@hypothesis_settings(max_examples=25)
@given(bursts=bursts)
def test_whatever_the_order_all_failures_are_told_once_in_an_alert_a_window_and_one_more(
    bursts: list[tuple[int, float]],
) -> None:
    async def run() -> None:
        administrator, ids = Administrator(), itertools.count()
        with tempfile.TemporaryDirectory() as folder:
            async with Database(sqlite_file(Path(folder) / "riacho.db")) as database:
                desk = Desk(database, administrator)
                for size, pause in bursts:
                    await desk.wait(pause)
                    await asyncio.gather(*(desk.run(next(ids)) for _ in range(size)))
                last = desk.now
                await desk.wait(3 * EVERY)
        assert sum(administrator.counts) == sum(size for size, _ in bursts)
        assert desk.busiest <= 1
        assert not desk.due
        windows = (last - START) // round(EVERY * 1000) + 1
        assert len(administrator.told) <= 1 + windows

    asyncio.run(run())


# ── in the engine ────────────────────────────────────────────────────────────────────────────────


async def test_two_workers_tell_of_all_failures_in_few_alerts(
    connector: Connector, database: Database, administrator: Administrator
) -> None:
    handler = AlertHandler(AlertStore(database, 0.5), [administrator])
    one = Stage(queue="test", name="alert", payload=Alert, handler=handler, concurrency=5, keep_results=60.0)
    pipeline = Pipeline([one])
    wanted = [Job(stage="alert", payload=failure(n), tenant="shop") for n in range(200)]
    started = time.monotonic()
    connect = connector(pipeline)
    async with connect() as broker, working(connect, pipeline), working(connect, pipeline):
        added = await add_all(broker, wanted)
        await asyncio.gather(*(until(broker, job, "completed") for job in added))
        assert await depths(broker, "alert") == (0, 0, 0, 0)
    assert sum(administrator.counts) == 200
    assert len(administrator.told) <= 2 + (time.monotonic() - started) / 0.5


# ── channels ─────────────────────────────────────────────────────────────────────────────────────


def logged(caplog: pytest.LogCaptureFixture, level: int) -> str:
    records = [each for each in caplog.records if each.name.startswith("stages") and each.levelno >= level]
    return "\n".join(record.getMessage() for record in records)


async def test_without_channels_an_alert_goes_to_the_log(
    database: Database, caplog: pytest.LogCaptureFixture
) -> None:
    desk = Desk(database)
    assert await desk.run(1) == 1
    assert CAUSE in logged(caplog, logging.ERROR)
    assert "alerts.to" in logged(caplog, logging.ERROR)


@pytest.mark.parametrize(
    ("error", "shown"),
    [
        (lambda: Refused("the recipient is unknown (550)"), "the recipient is unknown (550)"),
        (lambda: OutcomeUnknown("the connection was lost"), "the connection was lost"),
        (lambda: RuntimeError(f"https://x/{HIDDEN}"), "RuntimeError"),
    ],
)
async def test_one_channel_that_takes_an_alert_is_enough_and_the_others_failures_are_logged(
    database: Database, caplog: pytest.LogCaptureFixture, error: Callable[[], Exception], shown: str
) -> None:
    broken, well = Administrator(), Administrator()
    broken.error = error()
    assert await Desk(database, broken, well).run(1) == 1
    assert well.counts == [1]
    assert f"an alert did not go out by Administrator: {shown}" in logged(caplog, logging.WARNING)
    assert HIDDEN not in caplog.text


async def test_an_alert_that_nobody_takes_is_in_the_log(
    desk: Desk, administrator: Administrator, caplog: pytest.LogCaptureFixture
) -> None:
    administrator.error = Refused("no")
    assert await desk.run(1) == -1
    assert "no channel took an alert, it is tried again" in logged(caplog, logging.ERROR)


async def test_alerts_go_out_by_email_and_to_the_webhook(
    database: Database, caplog: pytest.LogCaptureFixture
) -> None:
    mailbox, receiver = Mailbox(), Receiver()
    async with (
        mail_server(mailbox) as port,
        receiver.running() as url,
        SignedWebhook(url, SECRET, 5.0) as webhook,
    ):
        desk = Desk(database, EmailAlerts(email(port), "admin@example.org"), WebhookAlerts(webhook))
        assert await desk.run(1) == 1
        mailbox.answers["RCPT"], receiver.status = "550 no", 404
        assert await desk.run(2, Alert(cause="outra")) == -1
    (message,), (event, _) = mailbox.messages, receiver.events
    assert message["Subject"] == f"[Riacho] {CAUSE}"
    assert message["To"] == "admin@example.org"
    assert message["Message-ID"] == "<alert.0.1-0-0@example.com>"
    assert "texto 1" in message.get_content()
    assert (event["event"], event["id"]) == ("alert", "alert.0.1-0-0")
    assert event["data"]["subject"] == f"[Riacho] {CAUSE}"
    assert "texto 1" in event["data"]["text"]
    said = logged(caplog, logging.WARNING)
    assert "refused the recipient (550)" in said
    assert "answered 404" in said
    assert not any(secret in said for secret in (SECRET, HIDDEN, "admin@example.org"))
