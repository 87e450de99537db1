"""Each message once: what the courier does about crashes, lost answers, limits, paused senders; and its log."""

import asyncio
from collections.abc import Sequence
from typing import Any, cast

import msgspec
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from pipeline import Context, Done, Job, JobId, Permanent, RetryLater
from pipeline.message import now_ms
from stages.jobs import Alert, Fallback, Receipt, SendClient
from stages.notification.courier import HELD, MOST_CALLS, Care, Courier
from stages.notification.errors import (
    NotSent,
    OutcomeUnknown,
    OutsideWindow,
    RateLimited,
    Refused,
    Retryable,
    SenderPaused,
)
from stages.notification.fallback import FallbackHandler
from stages.notification.log import RANKS, Notification, NotificationLog
from stages.notification.logged import LoggedFallback
from stages.notification.receipts import ReceiptHandler
from stages.notification.rescue import Rescue
from stages.ports import Outgoing
from stages.store import Database, StoreUnavailable, sqlite_file
from tests.support import context_of

pytestmark = pytest.mark.integration

JOB = SendClient(to="+5511987654321", text="Olá")


class Channel:
    """A Messenger that does as it was told, message by message, and notes what it was asked."""

    name = "whatsapp"
    knows_jobs = False

    def __init__(self) -> None:
        self.asked: list[tuple[str, Outgoing, bool]] = []
        self.answers: list[Exception] = []
        self.entered = asyncio.Event()
        self.go_on = asyncio.Event()
        self.go_on.set()

    async def send(self, job_id: str, message: Outgoing, *, again: bool) -> str:
        self.asked.append((job_id, message, again))
        self.entered.set()
        await self.go_on.wait()
        if self.answers:
            raise self.answers.pop(0)
        return f"wamid.{len(self.asked)}"


class Desk:
    """A courier with its log, its channel, and a clock that stands still."""

    def __init__(self, database: Database, care: Care | None = None) -> None:
        self.now = 1_800_000_000_000
        self.log = NotificationLog(database)
        self.channel = Channel()
        self.added: list[Job] = []
        self.courier = Courier(self.log, self.channel, care or Care(), lambda: self.now)

    def pass_time(self, seconds: float) -> None:
        self.now += int(seconds * 1000)

    async def deliver(self, number: int = 1, *, tenant: str = "shop", job: SendClient = JOB) -> dict[str, str]:
        ctx = context_of("send-client", job, tenant=tenant, number=number, add=self._add)
        message = Outgoing(tenant=tenant, to=job.to, text=job.text, template=job.template)
        return await self.courier.deliver(ctx, message, job)

    async def _add(self, job: Job) -> JobId:
        self.added.append(job)
        return JobId("alert", 0, "1-0")

    async def told_to_wait(self, number: int = 1, **other: Any) -> float:
        with pytest.raises(RetryLater) as raised:
            await self.deliver(number, **other)
        return raised.value.seconds

    async def known(self, number: int = 1) -> Notification:
        found = await self.log.find(f"send-client.0.{number}-0")
        assert found
        return found

    async def crash(self, number: int = 1) -> None:
        """Have the worker die while it waits for the answer."""
        self.channel.entered.clear()
        self.channel.go_on.clear()
        calling = asyncio.create_task(self.deliver(number))
        await asyncio.wait_for(self.channel.entered.wait(), 10)
        calling.cancel()
        await asyncio.wait([calling])
        self.channel.go_on.set()


def receipt(status: Any = "delivered", *, message_id: str = "wamid.1", at_ms: int = 5, **other: Any) -> Receipt:
    return Receipt(message_id, status, at_ms, "send-client.0.1-0", **other)


@pytest.fixture
def desk(database: Database) -> Desk:
    return Desk(database)


# ── once ─────────────────────────────────────────────────────────────────────────────────────────


async def test_a_message_goes_out_and_the_log_knows_it(desk: Desk) -> None:
    assert await desk.deliver() == {"channel": "whatsapp", "messageId": "wamid.1"}
    known = await desk.known()
    assert (known.state, known.calls, known.message_id, known.recipient) == ("accepted", 1, "wamid.1", JOB.to)
    assert known.called_ms == desk.now


async def test_a_message_that_was_accepted_does_not_go_out_again(desk: Desk) -> None:
    first = await desk.deliver()
    assert await desk.deliver() == first
    assert len(desk.channel.asked) == 1


async def test_after_a_crash_the_receipt_tells_that_it_went_out(desk: Desk) -> None:
    await desk.crash()
    desk.pass_time(1)
    assert await desk.told_to_wait() == 29
    await desk.log.receive([receipt("sent", message_id="wamid.9")])
    assert await desk.deliver() == {"channel": "whatsapp", "messageId": "wamid.9"}
    assert len(desk.channel.asked) == 1


async def test_after_a_crash_without_a_receipt_it_is_sent_again(desk: Desk) -> None:
    await desk.crash()
    desk.pass_time(31)
    assert await desk.deliver() == {"channel": "whatsapp", "messageId": "wamid.2"}
    assert [again for _, _, again in desk.channel.asked] == [False, True]
    assert (await desk.known()).calls == 2


async def test_or_held_for_a_person_where_that_is_wanted(database: Database) -> None:
    desk = Desk(database, Care(unknown="hold"))
    await desk.crash()
    desk.pass_time(31)
    with pytest.raises(Permanent, match="nobody knows") as raised:
        await desk.deliver()
    assert str(raised.value) == HELD
    assert len(desk.channel.asked) == 1


async def test_a_lost_answer_is_waited_for_like_a_crash(desk: Desk) -> None:
    desk.channel.answers = [OutcomeUnknown("no answer within 20 s")]
    assert await desk.told_to_wait() == 30
    assert (await desk.known()).state == "sending"
    await desk.log.receive([receipt("read")])
    await desk.deliver()
    assert len(desk.channel.asked) == 1


async def test_a_message_whose_outcome_nobody_learns_is_given_up(desk: Desk) -> None:
    for _ in range(4):
        await desk.crash()
        desk.pass_time(31)
    with pytest.raises(Permanent):
        await desk.deliver()
    assert len(desk.channel.asked) == 4


async def test_a_channel_that_knows_jobs_is_asked_again_at_once(desk: Desk) -> None:
    desk.channel.knows_jobs = True
    await desk.crash()
    await desk.deliver()
    assert [again for _, _, again in desk.channel.asked] == [False, True]


async def test_two_that_have_the_same_job_send_once(desk: Desk) -> None:
    desk.channel.go_on.clear()
    first = asyncio.create_task(desk.deliver())
    await asyncio.wait_for(desk.channel.entered.wait(), 10)
    await desk.told_to_wait()
    desk.channel.go_on.set()
    await first
    assert len(desk.channel.asked) == 1


async def test_of_many_that_go_on_after_a_crash_one_sends(desk: Desk) -> None:
    await desk.crash()
    desk.pass_time(31)
    results = await asyncio.gather(*(desk.deliver() for _ in range(5)), return_exceptions=True)
    assert sum(isinstance(result, dict) for result in results) >= 1
    assert len(desk.channel.asked) == 2


async def test_what_went_out_is_done_though_the_log_cannot_be_written(
    desk: Desk, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def away(*_: object) -> None:
        raise StoreUnavailable("the database: away")

    monkeypatch.setattr(desk.log, "accepted", away)
    assert (await desk.deliver())["messageId"] == "wamid.1"
    assert "went out as wamid.1" in caplog.text
    await desk.log.receive([receipt("sent")])
    assert (await desk.known()).state == "accepted"


async def test_a_probe_that_went_out_is_done_though_its_sender_cannot_be_set_free(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def away(*_: object) -> bool:
        raise StoreUnavailable("the database: away")

    desk.channel.answers = [SenderPaused("payment", 131042)]
    await desk.told_to_wait()
    desk.pass_time(901)
    monkeypatch.setattr(desk.log, "resume", away)
    assert (await desk.deliver())["messageId"] == "wamid.2"


async def test_nothing_is_sent_that_a_receipt_tells_of_while_it_is_about_to_begin_again(desk: Desk) -> None:
    await desk.crash()
    known = await desk.known()
    await desk.log.receive([receipt("failed", code=131047, error="24 hours")])
    assert not await desk.log.begin_again(known, desk.now)
    assert (await desk.known()).state == "failed"


async def test_nothing_is_sent_that_could_not_be_noted_before(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    async def away(*_: object) -> bool:
        raise StoreUnavailable("the database: away")

    monkeypatch.setattr(desk.log, "begin", away)
    desk.now = now_ms()
    assert await desk.told_to_wait() == 5
    desk.pass_time(2 * 86_400)
    with pytest.raises(StoreUnavailable):
        await desk.deliver()
    assert desk.channel.asked == []


# ── refusals ─────────────────────────────────────────────────────────────────────────────────────


async def test_a_passing_error_is_noted_and_tried_again_at_once_when_the_job_comes_back(desk: Desk) -> None:
    desk.channel.answers = [Retryable("WhatsApp's error 131000: something", 131000)]
    with pytest.raises(Retryable):
        await desk.deliver()
    known = await desk.known()
    assert (known.state, known.code, known.error) == ("refused", 131000, "WhatsApp's error 131000: something")
    await desk.deliver()
    known = await desk.known()
    assert (known.state, known.calls, known.code, known.error) == ("accepted", 2, None, "")


async def test_a_refusal_is_permanent(desk: Desk) -> None:
    desk.channel.answers = [Refused("not a WhatsApp user", 131026)]
    with pytest.raises(Permanent, match="not a WhatsApp user"):
        await desk.deliver()
    assert (await desk.known()).code == 131026


async def test_outside_the_window_the_template_goes_out_once(desk: Desk) -> None:
    desk.channel.answers = [OutsideWindow("24 hours", 131047), OutsideWindow("24 hours", 131047)]
    assert await desk.told_to_wait() == 0
    with pytest.raises(Permanent):
        await desk.deliver()
    assert [message.template for _, message, _ in desk.channel.asked] == [False, True]


async def test_a_template_that_is_taken_ends_it(desk: Desk) -> None:
    desk.channel.answers = [OutsideWindow("24 hours", 131047)]
    await desk.told_to_wait()
    await desk.deliver()
    known = await desk.known()
    assert (known.state, known.template) == ("accepted", True)


async def test_a_recipient_who_had_too_much_waits_longer_each_time_and_alone(desk: Desk) -> None:
    desk.channel.answers = [RateLimited("pair", 131056, pair=True) for _ in range(5)]
    assert [await desk.told_to_wait() for _ in range(5)] == [4, 16, 64, 256, 256]
    await desk.deliver(2)


async def test_a_number_that_was_too_fast_is_silent_longer_each_time_and_alone(desk: Desk) -> None:
    waits = []
    for n in range(1, 5):
        desk.channel.answers = [RateLimited("number", 130429)]
        await desk.told_to_wait(n)
        waits.append(await desk.told_to_wait(100))
        await desk.deliver(200 + n, tenant="another")
        assert len(desk.channel.asked) == 2 * n, "nothing of that number went out"
        desk.pass_time(4**n)
    assert waits == [4, 16, 30, 30]  # looked at every 30 s at the latest
    await desk.deliver(100)


async def test_those_under_way_do_not_make_its_silence_longer(desk: Desk) -> None:
    desk.channel.answers = [RateLimited("number", 130429) for _ in range(5)]
    desk.channel.go_on.clear()
    under_way = [asyncio.create_task(desk.told_to_wait(n)) for n in range(5)]
    while len(desk.channel.asked) < 5:  # noqa: ASYNC110
        await asyncio.sleep(0.005)
    desk.channel.go_on.set()
    await asyncio.gather(*under_way)
    assert await desk.told_to_wait(9) == 4


async def test_a_message_is_not_given_up_for_its_number_being_too_fast(desk: Desk) -> None:
    for _ in range(MOST_CALLS + 1):
        desk.channel.answers = [RateLimited("number", 130429)]
        await desk.told_to_wait()
        desk.pass_time(700)
    await desk.deliver()


async def test_a_number_that_behaved_for_ten_minutes_starts_anew(desk: Desk) -> None:
    for n in (1, 2):
        desk.channel.answers = [RateLimited("number", 130429)]
        await desk.told_to_wait(n)
        desk.pass_time(700)
    desk.pass_time(-700)
    assert await desk.told_to_wait(3) == 4


async def test_a_message_that_is_only_ever_refused_for_now_is_given_up(desk: Desk) -> None:
    desk.channel.answers = [RateLimited("pair", 131056, pair=True) for _ in range(MOST_CALLS)]
    for _ in range(MOST_CALLS):
        await desk.told_to_wait()
    with pytest.raises(Permanent, match="was asked 12 times; the last answer: pair"):
        await desk.deliver()


# ── paused senders ───────────────────────────────────────────────────────────────────────────────


@pytest.fixture
async def paused(desk: Desk) -> Desk:
    """A desk whose tenant `shop` was just stopped by WhatsApp."""
    desk.channel.answers = [SenderPaused("WhatsApp's error 131042: payment", 131042)]
    assert await desk.told_to_wait(1) == 30
    return desk


async def test_a_paused_sender_keeps_its_messages_and_others_go_on(paused: Desk) -> None:
    assert await paused.told_to_wait(1) == 30
    assert await paused.told_to_wait(2) == 30
    await paused.deliver(3, tenant="another")
    assert len(paused.channel.asked) == 2
    (held,) = await paused.log.paused()
    assert (held.tenant, held.code, held.reason) == ("shop", 131042, "WhatsApp's error 131042: payment")


async def test_somebody_is_told_once(paused: Desk) -> None:
    await paused.told_to_wait(2)
    (job,) = paused.added
    assert (job.stage, job.tenant) == ("alert", "shop")
    assert isinstance(job.payload, Alert)
    assert "131042" in job.payload.text
    assert not job.payload.job, "it has not failed"


async def test_somebody_is_told_of_a_tenant_with_the_longest_name_there_may_be(desk: Desk) -> None:
    desk.channel.answers = [SenderPaused("no phone number id")]
    await desk.told_to_wait(tenant="x" * 200)
    (job,) = desk.added
    assert msgspec.convert(msgspec.to_builtins(job.payload), Alert) == job.payload


async def test_after_a_while_one_message_is_tried_and_its_success_sets_the_others_free(paused: Desk) -> None:
    paused.pass_time(901)
    paused.channel.go_on.clear()
    paused.channel.entered.clear()
    probe = asyncio.create_task(paused.deliver(1))
    await asyncio.wait_for(paused.channel.entered.wait(), 10)
    assert await paused.told_to_wait(2) == 30
    paused.channel.go_on.set()
    await probe
    await paused.deliver(2)
    assert await paused.log.paused() == []


async def test_a_probe_that_is_refused_keeps_it_paused_and_tells_again(paused: Desk) -> None:
    paused.pass_time(901)
    paused.channel.answers = [SenderPaused("still", 131042)]
    await paused.told_to_wait(1)
    assert await paused.told_to_wait(2) == 30
    assert len(paused.channel.asked) == 2
    assert len(paused.added) == 2


@pytest.mark.parametrize("error", [Retryable("later", 2), RateLimited("slow", 130429), OutcomeUnknown("lost")])
async def test_a_probe_that_failed_for_something_else_is_followed_by_another_soon(
    paused: Desk, error: Exception
) -> None:
    paused.pass_time(901)
    paused.channel.answers = [error]
    with pytest.raises((RetryLater, Retryable)):
        await paused.deliver(2)
    paused.pass_time(59)
    await paused.told_to_wait(3)
    paused.pass_time(2)
    await paused.deliver(3)
    assert await paused.log.paused() == []


async def test_of_many_one_is_the_probe(paused: Desk) -> None:
    paused.pass_time(901)
    paused.channel.answers = [SenderPaused("still", 131042)]
    await asyncio.gather(*(paused.told_to_wait(n) for n in range(2, 7)))
    assert len(paused.channel.asked) == 2


async def test_a_person_may_set_it_free(paused: Desk) -> None:
    assert await paused.log.resume("shop")
    assert not await paused.log.resume("shop")
    await paused.deliver(1)


# ── receipts and the log ─────────────────────────────────────────────────────────────────────────


@hypothesis_settings(max_examples=30)
@given(order=st.permutations([*RANKS, *RANKS]), one_by_one=st.booleans())
def test_receipts_in_any_order_and_twice_come_to_the_furthest(
    tmp_path_factory: pytest.TempPathFactory, order: list[Any], one_by_one: bool
) -> None:
    async def told() -> Notification:
        folder = tmp_path_factory.mktemp("log")
        async with Database(sqlite_file(folder / "riacho.db")) as database:
            desk = Desk(database)
            await desk.deliver()
            statuses = [receipt(status, at_ms=RANKS[status]) for status in order]
            for some in [[status] for status in statuses] if one_by_one else [statuses]:
                await desk.log.receive(some)
            return await desk.known()

    known = asyncio.run(told())
    assert (known.status, known.status_ms, known.state) == ("played", 5, "accepted")


@pytest.mark.parametrize(
    ("statuses", "status", "state"),
    [
        (["failed"], "failed", "failed"),
        (["sent", "failed"], "failed", "failed"),
        (["failed", "sent"], "failed", "failed"),
        (["delivered", "failed"], "delivered", "accepted"),
    ],
)
async def test_what_failed_after_it_was_taken_has_failed(
    desk: Desk, statuses: Sequence[Any], status: str, state: str
) -> None:
    await desk.deliver()
    for one in statuses:
        told: dict[str, Any] = {"code": 131026, "error": "undeliverable"} if one == "failed" else {}
        await desk.log.receive([receipt(one, **told)])
    known = await desk.known()
    assert (known.status, known.state) == (status, state)
    assert (known.code, known.error) == ((131026, "undeliverable") if state == "failed" else (None, ""))


async def test_a_receipt_before_the_answer_is_not_lost(desk: Desk) -> None:
    desk.channel.go_on.clear()
    sending = asyncio.create_task(desk.deliver())
    await asyncio.wait_for(desk.channel.entered.wait(), 10)
    await desk.log.receive([receipt("delivered")])
    desk.channel.go_on.set()
    await sending
    known = await desk.known()
    assert (known.state, known.status, known.message_id) == ("accepted", "delivered", "wamid.1")


async def test_what_fails_of_an_earlier_call_does_not_undo_a_later_one(desk: Desk) -> None:
    await desk.crash()
    desk.pass_time(31)
    assert (await desk.deliver())["messageId"] == "wamid.2"
    await desk.log.receive([receipt("failed", message_id="wamid.1", code=131026, error="undeliverable")])
    known = await desk.known()
    assert (known.state, known.message_id, known.code) == ("accepted", "wamid.2", None)


async def test_workers_that_note_the_same_messages_at_once_do_not_block_each_other(desk: Desk) -> None:
    jobs = [f"send-client.0.{number}-0" for number in range(200)]
    for job in jobs:
        await desk.log.failed(job, "shop", "", 5)
    for status in ("sent", "delivered", "read"):
        told = [Receipt(f"wamid.{job}", status, 5, job) for job in jobs]
        await asyncio.gather(desk.log.receive(told), desk.log.receive(told[::-1]), desk.log.receive(told))
    assert {known.status for known in (await desk.log.find_all(jobs)).values()} == {"read"}


async def test_receipts_of_messages_that_are_not_ours_change_nothing(desk: Desk) -> None:
    await desk.log.receive([Receipt("wamid.x", "sent", 1), Receipt("wamid.y", "failed", 1, "send-client.0.7-0")])
    assert await desk.log.find("send-client.0.7-0") is None


async def test_a_job_that_failed_before_it_called_is_in_the_log_all_the_same(desk: Desk) -> None:
    for _ in range(2):
        await desk.log.failed("send-client.0.1-0", "shop", "poison", 5)
    known = await desk.known()
    assert (known.state, known.kind, known.error, known.calls) == ("failed", "send-client", "poison", 0)


async def test_one_that_was_accepted_after_all_has_not_failed(desk: Desk) -> None:
    await desk.deliver()
    await desk.log.failed("send-client.0.1-0", "shop", "its worker was lost", 5)
    assert (await desk.known()).state == "accepted"


@pytest.mark.parametrize("error", [Retryable, Refused, OutsideWindow, RateLimited, SenderPaused])
async def test_a_refusal_that_cannot_be_noted_is_a_failed_try(
    desk: Desk, error: type[NotSent], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def away(*_: object, **__: object) -> None:
        raise StoreUnavailable("the database: away")

    desk.channel.answers = [error("no", 1)]
    monkeypatch.setattr(desk.log, "refused", away)
    with pytest.raises(StoreUnavailable):
        await desk.deliver()
    assert (await desk.known()).state == "sending"


async def test_no_fallback_says_what_may_have_gone_out(desk: Desk) -> None:
    class Unwanted:
        async def __call__(self, ctx: Context, job: Fallback) -> dict[str, str]:
            raise AssertionError("the customer may have the message")

    job = Fallback(to=JOB.to, text=JOB.text, job="send-client.0.1-0")
    logged = LoggedFallback(cast("FallbackHandler", Unwanted()), desk.log)
    await desk.crash()
    for _ in range(2):
        assert (await logged(context_of("fallback", job), job))["reason"] == HELD
        await desk.log.failed("send-client.0.1-0", "shop", "poison", 5)
    assert (await desk.known()).state == "unknown"


async def test_no_fallback_says_what_was_accepted_after_all(desk: Desk) -> None:
    class Unwanted:
        async def __call__(self, ctx: Context, job: Fallback) -> dict[str, str]:
            raise AssertionError("the customer has the message")

    await desk.deliver()
    job = Fallback(to=JOB.to, text=JOB.text, job="send-client.0.1-0")
    logged = LoggedFallback(cast("FallbackHandler", Unwanted()), desk.log)
    assert await logged(context_of("fallback", job), job) == {"channel": "whatsapp", "messageId": "wamid.1"}


async def rescued_for(desk: Desk, *receipts: Receipt) -> int:
    """How many jobs follow from receipts that come together."""
    handler = ReceiptHandler(desk.log, Rescue(lambda *_: True))
    outcomes = await handler([context_of("receipt", one) for one in receipts], receipts)
    return sum(len(outcome.forward) for outcome in outcomes if isinstance(outcome, Done))


async def test_a_message_that_failed_after_it_was_taken_is_rescued(desk: Desk) -> None:
    await desk.deliver()
    assert await rescued_for(desk, receipt("failed", code=131026)) == 2


async def test_a_message_that_was_given_up_is_not_rescued_again_by_a_late_receipt(desk: Desk) -> None:
    desk.channel.answers = [Refused("no", 131026)]
    with pytest.raises(Permanent):
        await desk.deliver()
    await desk.log.failed("send-client.0.1-0", "shop", "no", 5)
    assert await rescued_for(desk, receipt("failed", code=131026)) == 0


async def test_a_receipt_of_a_job_that_never_called_follows_nothing(desk: Desk) -> None:
    await desk.log.failed("send-client.0.1-0", "shop", "poison", 5)
    assert await rescued_for(desk, receipt("failed", code=131026)) == 0
