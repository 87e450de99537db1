"""The notification queue as it is configured, where it has to wait: stopped senders, limits, a database away."""

from collections import Counter
from typing import Any

import pytest

from stages.notification import away as log_away
from stages.notification.courier import MOST_CALLS
from stages.notification.log import Notification, NotificationLog
from stages.store import StoreUnavailable
from tests.cloud_api import NUMBER, Template
from tests.desk import (
    ADMIN,
    PHARMACY,
    SHOP_EMAIL,
    WithSettings,
    phone,
    shops,
    to_client,
    working_desk,
)
from tests.support import reached

pytestmark = pytest.mark.integration

TO = phone(1)

# ── stopped senders ──────────────────────────────────────────────────────────────────────────────


async def test_a_stopped_sender_keeps_its_messages_and_goes_on_when_it_may(settings: WithSettings) -> None:
    async with working_desk(settings(), shops(paused={NUMBER: 131042})) as desk:
        held = await desk.enqueue(*(to_client(phone(n)) for n in range(20)))
        others = await desk.enqueue(*(to_client(phone(n), tenant=PHARMACY) for n in range(20, 25)))
        for job in others:
            await desk.until(job, status="delivered")
        (alert,) = await desk.until_mails(ADMIN, 1)
        assert "131042" in alert.get_content()
        before = desk.api.answers["131042"]
        assert 1 <= before <= 5, "those that were under way"
        await reached(lambda: desk.api.answers["131042"] > before, what="one being tried")
        assert await desk.dead() == 0
        desk.api.paused.clear()
        for job in held:
            await desk.until(job, status="delivered")
        assert set(desk.api.sends().values()) == {1}
        assert len(desk.api.messages) == 25
        assert len(desk.mailbox.messages) == 1
        desk.api.assert_clean()


async def test_a_message_outlasts_any_number_of_tries_of_its_stopped_sender(settings: WithSettings) -> None:
    async with working_desk(settings(notification={"probe": 0.02}), shops(paused={NUMBER: 190})) as desk:
        (job,) = await desk.enqueue(to_client(TO))
        await reached(lambda: desk.api.answers["190"] > MOST_CALLS + 2, what="many tries")
        desk.api.paused.clear()
        await desk.until(job)
        assert [mail["To"] for mail in desk.mailbox.messages] == [ADMIN]
        desk.api.assert_clean()


@pytest.mark.parametrize("hurdle", ["131026", "window"])
async def test_a_message_that_fails_for_itself_shows_that_its_sender_may_send(
    settings: WithSettings, hurdle: str
) -> None:
    slow = settings(notification={"probe": 1.0}, whatsapp={"template": "aviso"})
    async with working_desk(slow, shops(paused={NUMBER: 131042}, templates={"aviso": Template()})) as desk:
        (job,) = await desk.enqueue(to_client(TO))
        await desk.until_mails(ADMIN, 1)
        if hurdle == "window":
            desk.api.outside_window.add(TO)
        else:
            desk.api.refused[TO] = int(hurdle)
        desk.api.paused.clear()
        await desk.until(job, state="completed" if hurdle == "window" else "failed")
        log = desk.adapters.notifications.log
        assert await log.paused() == []
        desk.api.assert_clean()


# ── limits ───────────────────────────────────────────────────────────────────────────────────────


async def test_a_recipient_who_has_to_wait_holds_nobody_up_and_uses_up_no_try(settings: WithSettings) -> None:
    own = settings(notification={"concurrency": 2}, whatsapp={"pair_burst": 2, "pair_every": 0.4})
    async with working_desk(own, shops(pair_burst=2, pair_every=0.35)) as desk:
        jobs = await desk.enqueue(*(to_client(TO) for _ in range(5)))
        (other,) = await desk.enqueue(to_client(phone(2)))
        await desk.until_sent(3)
        waiting = await desk.view(jobs[-1])
        assert waiting["state"] == "waiting"
        for job in [*jobs, other]:
            assert (await desk.until(job))["attempt"] == 1
        recipients = [message.recipient for message in desk.api.messages]
        assert sorted(recipients[:3]) == sorted([TO, TO, phone(2)])
        desk.api.assert_clean()


async def test_a_number_sends_no_faster_than_it_may(settings: WithSettings) -> None:
    async with working_desk(settings(whatsapp={"per_second": 16.0}), shops(per_second=20)) as desk:
        await desk.enqueue(*(to_client(phone(n)) for n in range(60)))
        await desk.until_sent(60)
        await desk.until_quiet()
        assert set(desk.api.sends().values()) == {1}
        desk.api.assert_clean()


# ── a database that is away ──────────────────────────────────────────────────────────────────────


async def test_a_fallback_that_went_out_does_not_go_out_again_though_it_cannot_be_noted(
    settings: WithSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = NotificationLog.record

    async def away(self: NotificationLog, new: Notification) -> bool:
        if new.kind == "fallback":
            raise StoreUnavailable("the database: away")
        return await record(self, new)

    monkeypatch.setattr(NotificationLog, "record", away)
    async with working_desk(settings(), shops(refused={TO: 131026})) as desk:
        await desk.enqueue(to_client(TO))
        await desk.until_mails(SHOP_EMAIL, 1)
        await desk.until_quiet()
        assert len(desk.mails(SHOP_EMAIL)) == 1
        desk.api.assert_clean()


async def test_messages_wait_while_the_database_is_away(
    settings: WithSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    begin, asked = NotificationLog.begin, Counter[str]()

    async def away(self: NotificationLog, new: Notification) -> bool:
        asked[new.job] += 1
        if asked[new.job] < 7:
            raise StoreUnavailable("the database: away")
        return await begin(self, new)

    monkeypatch.setattr(NotificationLog, "begin", away)
    monkeypatch.setattr(log_away, "AWAY", 0.05)
    async with working_desk(settings()) as desk:
        (job,) = await desk.enqueue(to_client(TO))
        view = await desk.until(job)
        assert (view["attempt"], asked[job], desk.mailbox.messages) == (1, 7, [])
        desk.api.assert_clean()


@pytest.mark.parametrize("asked_for", ["receive", "failed", "find"])
async def test_what_follows_from_a_failure_waits_while_the_database_is_away(
    settings: WithSettings, monkeypatch: pytest.MonkeyPatch, asked_for: str
) -> None:
    there, asked = getattr(NotificationLog, asked_for), 0

    async def away(*about: Any) -> Any:
        nonlocal asked
        asked += 1
        if asked < 7:
            raise StoreUnavailable("the database: away")
        return await there(*about)

    monkeypatch.setattr(NotificationLog, asked_for, away)
    monkeypatch.setattr(log_away, "AWAY", 0.05)
    async with working_desk(settings(), shops(refused={TO: 131026}, later=True)) as desk:
        await desk.enqueue(to_client(TO))
        await desk.until_mails(SHOP_EMAIL, 1)
        await desk.until_mails(ADMIN, 1)
        await desk.until_quiet()
        assert (asked >= 7, await desk.dead()) == (True, 0)
        desk.api.assert_clean()
