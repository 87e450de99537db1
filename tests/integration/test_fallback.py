"""What WhatsApp does not take goes by e-mail, or else to the webhook; both are real servers here."""

import logging
from collections.abc import AsyncIterator, Mapping
from typing import Any

import pytest

from pipeline import Permanent
from stages.jobs import Fallback
from stages.notification.email import Email
from stages.notification.errors import Retryable
from stages.notification.fallback import SUBJECT, FallbackHandler
from stages.notification.webhook import SignedWebhook
from tests.mail import HIDDEN, PASSWORD, SECRET, Mailbox, Receiver, email, mail_server
from tests.support import context_of

pytestmark = pytest.mark.integration

DEFAULT, OF_SHOP, OWN = "all@example.org", "shop@example.org", "ana@example.org"
MEDIA = "https://proofs.example/1.pdf?sig=abc"
FAILED = Fallback(
    to="+5511987654321",
    text="Seu pedido saiu.",
    media_url=MEDIA,
    job="send-client.0.7-0",
    reason="o número não tem WhatsApp (131026)",
)


@pytest.fixture
def mailbox() -> Mailbox:
    return Mailbox()


@pytest.fixture
def receiver() -> Receiver:
    return Receiver()


@pytest.fixture
async def mailer(mailbox: Mailbox) -> AsyncIterator[Email]:
    async with mail_server(mailbox) as port:
        yield email(port)


@pytest.fixture
async def webhook(receiver: Receiver) -> AsyncIterator[SignedWebhook]:
    async with receiver.running() as url, SignedWebhook(url, SECRET, 5.0) as made:
        yield made


def handler(
    email: Email | None, webhook: SignedWebhook | None, default: str = DEFAULT, by_tenant: Mapping[str, str] = {}
) -> FallbackHandler:
    return FallbackHandler(email=email, webhook=webhook, default=default, by_tenant=by_tenant)


async def run(handler: FallbackHandler, job: Fallback = FAILED, **options: Any) -> dict[str, str]:
    return await handler(context_of("fallback", job, **options), job)


async def test_a_message_goes_out_by_email_and_says_what_happened(
    mailer: Email, webhook: SignedWebhook, mailbox: Mailbox, receiver: Receiver
) -> None:
    result = await run(handler(mailer, webhook))
    assert result == {"channel": "email", "messageId": "<fallback.0.1-0@example.com>"}
    (message,) = mailbox.messages
    text = message.get_content()
    for part in ("+5511987654321", "o número não tem WhatsApp (131026)", "Seu pedido saiu.", MEDIA):
        assert part in text
    assert message["Subject"] == SUBJECT
    assert receiver.events == []


async def test_a_message_of_its_own_subject_without_a_reason_or_media_says_no_more(
    mailer: Email, mailbox: Mailbox
) -> None:
    await run(handler(mailer, None), Fallback(to="+55", text="Olá", subject="Pedido 7"))
    (message,) = mailbox.messages
    assert message["Subject"] == "Pedido 7"
    assert "Motivo" not in message.get_content()
    assert "Anexo" not in message.get_content()


@pytest.mark.parametrize(
    ("own", "tenant", "expected"), [(OWN, "shop", OWN), (None, "shop", OF_SHOP), (None, "other", DEFAULT)]
)
async def test_the_address_is_the_jobs_own_or_the_tenants_or_the_default(
    mailer: Email, mailbox: Mailbox, own: str | None, tenant: str, expected: str
) -> None:
    job = Fallback(to="+55", text="Olá", email=own)
    await run(handler(mailer, None, by_tenant={"shop": OF_SHOP}), job, tenant=tenant)
    assert mailbox.envelopes[0].rcpt_tos == [expected]


async def test_the_webhook_is_told_everything_where_there_is_no_email(
    webhook: SignedWebhook, receiver: Receiver
) -> None:
    assert await run(handler(None, webhook)) == {"channel": "webhook", "messageId": "fallback.0.1-0"}
    (event,) = receiver.events
    assert (event["event"], event["id"]) == ("fallback", "fallback.0.1-0")
    assert event["data"] == {
        "tenant": "shop",
        "to": FAILED.to,
        "text": FAILED.text,
        "mediaUrl": MEDIA,
        "job": FAILED.job,
        "reason": FAILED.reason,
    }


async def test_the_webhook_is_told_where_there_is_no_address(
    mailer: Email, webhook: SignedWebhook, mailbox: Mailbox
) -> None:
    assert (await run(handler(mailer, webhook, default="")))["channel"] == "webhook"
    assert mailbox.envelopes == []


@pytest.mark.parametrize("answer", ["550 no such user", "554 spam"])
async def test_the_webhook_is_told_what_the_mail_server_refuses(
    mailer: Email, webhook: SignedWebhook, mailbox: Mailbox, caplog: pytest.LogCaptureFixture, answer: str
) -> None:
    caplog.set_level(logging.INFO, logger="stages")
    mailbox.answers["RCPT"] = answer
    assert (await run(handler(mailer, webhook)))["channel"] == "webhook"
    logged = "".join(record.getMessage() for record in caplog.records if record.name.startswith("stages"))
    assert "refused the recipient" in logged
    assert not any(secret in logged for secret in (DEFAULT, FAILED.to, SECRET, HIDDEN, PASSWORD))


async def test_a_mail_server_that_is_away_has_a_second_try_before_the_webhook(
    mailer: Email, webhook: SignedWebhook, mailbox: Mailbox
) -> None:
    mailbox.answers["DATA"] = "451 later"
    with pytest.raises(Retryable):
        await run(handler(mailer, webhook), attempt=1)
    assert (await run(handler(mailer, webhook), attempt=2))["channel"] == "webhook"


async def test_without_a_webhook_the_mail_server_is_tried_to_the_end(mailer: Email, mailbox: Mailbox) -> None:
    mailbox.answers["DATA"] = "451 later"
    for attempt in (1, 2, 3, 4):
        with pytest.raises(Retryable, match="451"):
            await run(handler(mailer, None), attempt=attempt)


async def test_where_the_webhook_refuses_a_mail_server_that_is_away_is_tried_again(
    mailer: Email, webhook: SignedWebhook, mailbox: Mailbox, receiver: Receiver
) -> None:
    mailbox.answers["DATA"], receiver.status = "451 later", 404
    with pytest.raises(Retryable, match=r"\(451\).*answered 404"):
        await run(handler(mailer, webhook), attempt=2)


async def test_a_webhook_that_is_away_is_tried_again(
    mailer: Email, webhook: SignedWebhook, mailbox: Mailbox, receiver: Receiver
) -> None:
    mailbox.answers["RCPT"], receiver.status = "550 no", 503
    with pytest.raises(Retryable, match="answered 503"):
        await run(handler(mailer, webhook))


async def test_a_message_that_all_refuse_is_given_up_with_their_reasons(
    mailer: Email, webhook: SignedWebhook, mailbox: Mailbox, receiver: Receiver
) -> None:
    mailbox.answers["RCPT"], receiver.status = "550 no", 410
    with pytest.raises(Permanent, match=r"refused the recipient \(550\).*answered 410") as caught:
        await run(handler(mailer, webhook))
    assert not any(secret in str(caught.value) for secret in (DEFAULT, FAILED.to, HIDDEN, SECRET))


async def test_without_any_channel_the_error_names_the_settings(mailer: Email) -> None:
    with pytest.raises(Permanent, match=r"RIACHO_EMAIL_HOST.*RIACHO_FALLBACK_URL"):
        await run(handler(None, None))
    with pytest.raises(Permanent, match=r"RIACHO_FALLBACK_EMAIL.*RIACHO_FALLBACK_URL"):
        await run(handler(mailer, None, default=""))
