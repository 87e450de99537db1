"""The notification queue as it is configured, end to end: what goes out, what does not, and what is told of it."""

import re
from pathlib import Path

import pytest

from api.adapters import Adapters
from stages.notification.log import RANKS
from tests.cloud_api import Statuses, Template
from tests.desk import (
    ADMIN,
    PHARMACY,
    SHOP_EMAIL,
    VENDOR,
    WithSettings,
    phone,
    service,
    shops,
    to_client,
    to_vendor,
    working_desk,
)
from tests.support import eventually

pytestmark = pytest.mark.integration

TO = phone(1)
TEMPLATE = {"template": "aviso"}
APPROVED = {"aviso": Template()}

# ── what goes out ────────────────────────────────────────────────────────────────────────────────


async def test_a_vendor_learns_of_a_paid_order_under_its_proof(settings: WithSettings) -> None:
    async with working_desk(settings()) as desk:
        await desk.enqueue(
            to_vendor(proof_url="https://example.com/proof.png?size=2"),
            to_vendor(proof_url="https://example.com/comprovante.pdf"),
            to_vendor(),
            to_vendor(tenant=PHARMACY, to="(11) 91111-2222"),
        )
        await desk.until_sent(4)
        await desk.until_quiet()
        vendor = VENDOR.removeprefix("+")
        assert {(message.recipient, message.type) for message in desk.api.messages} == {
            (vendor, "image"),
            (vendor, "document"),
            (vendor, "text"),
            ("5511911112222", "text"),
        }
        assert all("Total: R$ 162,00" in message.text for message in desk.api.messages)
        desk.api.assert_clean()


async def test_a_number_that_is_none_is_refused_when_it_comes(settings: WithSettings) -> None:
    async with working_desk(settings()) as desk:
        status, answer = await desk.ask(to_client("+55 11 1234"))
        assert status == 400
        assert answer["title"] == "Bad request"
        assert "to: '+55 11 1234' is too short for a number of Brazil" in answer["detail"]
        status, answer = await desk.ask(to_vendor(tenant=PHARMACY))
        assert (status, "tenant 'farmacia' has no vendor" in answer["detail"]) == (400, True)
        desk.api.assert_clean()


async def test_a_number_goes_out_in_e164_however_it_was_written(settings: WithSettings) -> None:
    spellings = ["11 8765-4321", "551187654321", "(011) 98765-4321", "+55 11 98765-4321"]
    async with working_desk(settings()) as desk:
        await desk.enqueue(*map(to_client, spellings))
        await desk.until_sent(len(spellings))
        assert {message.recipient for message in desk.api.messages} == {"5511987654321"}
        assert {row["recipient"] for row in await desk.rows()} == {"+5511987654321"}
        desk.api.assert_clean()


async def test_a_job_shows_how_far_its_message_came(settings: WithSettings, tmp_path: Path) -> None:
    async with working_desk(settings(), told=Statuses(read=1.0, spread=0.3, shuffle=True)) as desk:
        (job,) = await desk.enqueue(to_client(TO))
        seen: list[str] = []

        async def read() -> bool:
            seen.append((await desk.view(job)).get("delivery", {}).get("status", ""))
            return seen[-1] == "read"

        await eventually(read)
        assert seen == sorted(seen, key=lambda status: RANKS.get(status, 0)), "it never goes back"
        view = await desk.view(job)
        (message,) = desk.api.messages
        at = view["delivery"].pop("statusAt")
        assert (view["attempt"], abs(at - message.at_ms) < 2_000) == (1, True)
        told = {"channel": "whatsapp", "state": "accepted", "attempts": 1, "messageId": message.id}
        assert view["delivery"] == told | {"status": "read"}
        assert view["result"] == {"channel": "whatsapp", "messageId": message.id}

        away = {"url": f"sqlite+aiosqlite:///{tmp_path}/nowhere/riacho.db"}
        async with service(settings(store=away)) as client:
            answer = await client.get(f"/queue/job/notification/{job}")
            body = await answer.json()
            assert (answer.status, body["state"], "delivery" in body) == (200, "completed", False)
        desk.api.assert_clean()


@pytest.mark.parametrize("there", [True, False])
async def test_a_spoken_reply_is_a_voice_note_or_else_its_text(
    settings: WithSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, there: bool
) -> None:
    program = tmp_path / "espeak-ng"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o700)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    key = "ab" * 32
    note = tmp_path / "tts" / key[:2] / key[2:4] / f"{key}.ogg"
    if there:
        note.parent.mkdir(parents=True)
        note.write_bytes(b"OggS" + bytes(24) + b"OpusHead" + bytes(100))
    async with working_desk(settings(speech={"engine": "espeak-ng"}), told=Statuses(read=1.0)) as desk:
        (job,) = await desk.enqueue(to_client(TO, audio=str(note)))
        await desk.until(job, status="played" if there else "read")
        (message,) = desk.api.messages
        assert (message.type, message.text) == (("audio", "") if there else ("text", "Olá"))
        assert [upload.content for upload in desk.api.uploads.values()] == ([note.read_bytes()] if there else [])
        desk.api.assert_clean()


# ── what fails ───────────────────────────────────────────────────────────────────────────────────


async def test_what_fails_for_now_goes_out_by_another_try(settings: WithSettings) -> None:
    pipeline = Adapters(settings()).pipeline()
    for name in ("send-client", "send-vendor", "fallback"):
        retry = pipeline.stage(name).retry
        assert [retry.delay(n) for n in range(1, retry.attempts)] == [2, 4, 8]
    async with working_desk(settings()) as desk:
        desk.api.fail_next(TO, ["131000", "http-503", "131016"])
        (job,) = await desk.enqueue(to_client(TO))
        view = await desk.until(job, status="delivered")
        assert (view["attempt"], view["delivery"]["attempts"]) == (4, 4)
        assert "code" not in view["delivery"], "what an earlier try came to is over"
        assert len(desk.api.messages) == 1
        assert not desk.mailbox.messages
        desk.api.assert_clean()


async def test_what_fails_to_the_end_is_said_by_e_mail_and_its_cause_told_once(settings: WithSettings) -> None:
    async with working_desk(settings(), shops(faults={"131000": 1.0})) as desk:
        jobs = await desk.enqueue(*(to_client(phone(n), f"Pedido {n} pronto") for n in range(20)))
        mails = await desk.until_mails(SHOP_EMAIL, 20)
        await desk.until_quiet()
        texts = sorted(mail.get_content() for mail in mails)
        assert all("131000" in text and "Something went wrong" in text for text in texts)
        assert {text.splitlines()[-1] for text in texts} == {f"Pedido {n} pronto" for n in range(20)}

        async def all_counted() -> bool:
            return await desk.untold() == 19

        await eventually(all_counted)
        (alert,) = desk.mails(ADMIN)
        assert "131000" in alert["Subject"]
        assert "1 vez" in alert.get_content()
        view = await desk.until(jobs[0], state="failed")
        delivery = view["delivery"]
        assert (delivery["state"], delivery["attempts"], delivery["code"]) == ("failed", 4, 131000)
        assert "131000" in delivery["error"]
        desk.api.assert_clean()


async def test_the_rest_of_a_cause_is_told_together_after_a_while(settings: WithSettings) -> None:
    short = settings(alerts={"every": 1.5})
    async with working_desk(short, shops(refused={phone(n): 131026 for n in range(20)})) as desk:
        await desk.enqueue(*(to_client(phone(n)) for n in range(20)))

        async def all_told() -> bool:
            texts = [mail.get_content() for mail in desk.mails(ADMIN)]
            told = sum(int(times) for text in texts for times in re.findall(r"Ocorrências: (\d+) vez", text))
            return told == 20 and await desk.untold() == 0

        await eventually(all_told)
        assert 2 <= len(desk.mails(ADMIN)) <= 4
        desk.api.assert_clean()


# ── outside the window ───────────────────────────────────────────────────────────────────────────


async def test_outside_the_window_the_template_goes_out_once(settings: WithSettings) -> None:
    config = shops(outside_window=frozenset({TO}), templates=APPROVED)
    async with working_desk(settings(whatsapp=TEMPLATE), config) as desk:
        (job,) = await desk.enqueue(to_client(TO, "Olá,\nMaria"))
        view = await desk.until(job, status="delivered", template=True)
        (message,) = desk.api.messages
        assert (message.type, message.text) == ("template", "Olá, Maria")
        assert (view["attempt"], desk.api.answers["131047"]) == (1, 1)
        assert not desk.mailbox.messages
        desk.api.assert_clean()


async def test_outside_the_window_that_is_told_later_the_template_is_a_job_of_its_own(
    settings: WithSettings,
) -> None:
    config = shops(outside_window=frozenset({TO}), templates=APPROVED, later=True)
    told = Statuses(twice=1.0, shuffle=True, spread=0.1)
    async with working_desk(settings(whatsapp=TEMPLATE), config, told=told) as desk:
        (job,) = await desk.enqueue(to_client(TO))
        await desk.until_sent(2)
        await desk.until_quiet()
        text, template = desk.api.messages
        assert (text.type, text.failure, template.type, template.failure) == ("text", 131047, "template", 0)
        assert (await desk.view(job))["delivery"]["code"] == 131047
        assert (await desk.view(template.job))["delivery"]["status"] == "delivered"
        assert not desk.mailbox.messages
        desk.api.assert_clean()


@pytest.mark.parametrize("later", [False, True])
async def test_without_a_template_it_is_said_by_e_mail_and_somebody_is_told(
    settings: WithSettings, later: bool
) -> None:
    config = shops(outside_window=frozenset({TO}), later=later)
    async with working_desk(settings(), config) as desk:
        await desk.enqueue(to_client(TO))
        await desk.until_mails(SHOP_EMAIL, 1)
        await desk.until_mails(ADMIN, 1)
        await desk.until_quiet()
        assert len(desk.mailbox.messages) == 2
        assert len(desk.api.messages) == later
        desk.api.assert_clean()


async def test_what_fails_after_it_was_taken_is_said_by_e_mail_once_however_often_it_is_told(
    settings: WithSettings,
) -> None:
    told = Statuses(twice=1.0, shuffle=True, spread=0.1)
    customers = [phone(n) for n in range(8)]
    config = shops(refused=dict.fromkeys(customers[:4], 131026), later=True)
    async with working_desk(settings(), config, told=told) as desk:
        jobs = await desk.enqueue(*map(to_client, customers))
        await desk.until_mails(SHOP_EMAIL, 4)
        await desk.until_sent(8)
        await desk.until_quiet()
        assert len(desk.mails(SHOP_EMAIL)) == 4
        assert len(desk.mails(ADMIN)) == 1
        assert await desk.untold() == 3
        assert len(desk.api.messages) == 8
        states = [(await desk.view(job))["delivery"]["state"] for job in jobs]
        assert states == ["failed"] * 4 + ["accepted"] * 4
        desk.api.assert_clean()


# ── nobody knows ─────────────────────────────────────────────────────────────────────────────────


async def test_a_receipt_tells_that_a_message_went_out_though_its_answer_was_lost(settings: WithSettings) -> None:
    async with working_desk(settings()) as desk:
        desk.api.fail_next(TO, ["reset-after"])
        (job,) = await desk.enqueue(to_client(TO))
        view = await desk.until(job, status="delivered")
        assert (len(desk.api.messages), view["attempt"]) == (1, 1)
        desk.api.assert_clean()


async def test_a_receipt_tells_that_a_message_failed_though_its_answer_was_lost(settings: WithSettings) -> None:
    async with working_desk(settings(), shops(refused={TO: 131026}, later=True)) as desk:
        desk.api.fail_next(TO, ["reset-after"])
        await desk.enqueue(to_client(TO))
        await desk.until_mails(SHOP_EMAIL, 1)
        await desk.until_mails(ADMIN, 1)
        await desk.until_quiet()
        assert len(desk.api.messages) == 1, "it is not sent again"
        assert len(desk.mailbox.messages) == 2
        desk.api.assert_clean()


async def test_without_receipts_it_is_sent_again_after_the_wait(settings: WithSettings) -> None:
    async with working_desk(settings(), told=None) as desk:
        desk.api.fail_next(TO, ["reset-after"])
        (job,) = await desk.enqueue(to_client(TO))
        await desk.until(job, state="completed", attempts=2)
        first, second = desk.api.messages
        assert second.at_ms - first.at_ms >= 400
        desk.api.assert_clean()


async def test_without_receipts_it_is_held_for_a_person_where_that_is_set(settings: WithSettings) -> None:
    async with working_desk(settings(notification={"unknown": "hold"}), told=None) as desk:
        desk.api.fail_next(TO, ["reset-after"])
        (job,) = await desk.enqueue(to_client(TO))
        view = await desk.until(job, state="failed")
        assert "nobody knows whether it went out" in view["reason"]
        (alert,) = await desk.until_mails(ADMIN, 1)
        assert job in alert.get_content()
        await desk.until_quiet()
        assert (len(desk.api.messages), len(desk.mailbox.messages), await desk.dead()) == (1, 1, 1)
        desk.api.assert_clean()
