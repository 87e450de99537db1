"""E-mail to a real mail server: what arrives, over which connection, and what its refusals become."""

import asyncio
import ssl
import traceback
from collections.abc import Iterator
from pathlib import Path

import pytest
from aiosmtpd.smtp import SMTP

from stages.notification.email import Email, EmailUnusable
from stages.notification.errors import NotSent, Refused, Retryable
from tests.mail import PASSWORD, Mailbox, certificate, email, mail_server

pytestmark = pytest.mark.integration

ADDRESS = "ana@example.org"
LOGIN = {"user": "riacho", "password": PASSWORD}


@pytest.fixture(autouse=True)
def nothing_secret_in_logs(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    caplog.set_level("DEBUG")
    yield
    ours = [record for record in caplog.records if record.name != "mail.log"]  # that is the server's
    logged = " ".join(record.getMessage() for record in ours)
    assert not any(secret in logged for secret in (PASSWORD, ADDRESS))


@pytest.fixture
def mailbox() -> Mailbox:
    return Mailbox()


@pytest.fixture
def trusted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ssl.SSLContext:
    """A server's context that clients in this process trust."""
    context, public = certificate(tmp_path)
    monkeypatch.setenv("SSL_CERT_FILE", str(public))
    return context


async def send(sender: Email, subject: str = "Olá", text: str = "Olá!", *, to: str = ADDRESS) -> str:
    return await sender.send(to, subject, text, message_id="fallback.0.1-0")


def untouched(mailbox: Mailbox) -> bool:
    return not mailbox.logins and not mailbox.envelopes


async def refusal(sender: Email, kind: type[NotSent], *, to: str = ADDRESS) -> NotSent:
    """How a message is refused, saying nothing that it must not."""
    with pytest.raises(NotSent) as caught:
        await send(sender, to=to)
    assert type(caught.value) is kind
    shown = "".join(traceback.format_exception(caught.value))
    assert not any(secret in shown for secret in (PASSWORD, "wrong horse", to, "chatter about"))
    return caught.value


async def test_a_message_arrives_whole_over_starttls_after_a_login(
    mailbox: Mailbox, trusted: ssl.SSLContext
) -> None:
    text = "Olá 👋, seu pedido:\n.\n..dois pontos\nMAIL FROM:<x>\r\n" + "ç" * 3000 + "\n"
    async with mail_server(mailbox, starttls=trusted) as port:
        sent = await send(
            email(port, security="starttls", **LOGIN), "Pedido nº 1: não entregue 👋 " + "é" * 90, text
        )
    (message,), (envelope,) = mailbox.messages, mailbox.envelopes
    assert (envelope.mail_from, envelope.rcpt_tos) == ("riacho@example.com", [ADDRESS])
    assert message["Subject"] == "Pedido nº 1: não entregue 👋 " + "é" * 90
    assert message.get_content().replace("\r\n", "\n") == text.replace("\r\n", "\n")
    assert (message["From"], message["To"]) == ("Riacho <riacho@example.com>", ADDRESS)
    assert message["Message-ID"] == sent == "<fallback.0.1-0@example.com>"
    assert message["Auto-Submitted"] == "auto-generated"
    assert message["Date"].datetime.tzinfo
    assert mailbox.logins == [("riacho", PASSWORD, True)]


async def test_a_message_arrives_over_tls(mailbox: Mailbox, trusted: ssl.SSLContext) -> None:
    async with mail_server(mailbox, tls=trusted) as port:
        await send(email(port, security="tls", **LOGIN))
    assert len(mailbox.messages) == 1
    assert [login[:2] for login in mailbox.logins] == [("riacho", PASSWORD)]


async def test_a_message_sent_again_has_the_same_id(mailbox: Mailbox) -> None:
    async with mail_server(mailbox) as port:
        assert await send(email(port)) == await send(email(port))
    one, two = mailbox.messages
    assert one["Message-ID"] == two["Message-ID"]


@pytest.mark.parametrize("login", [{}, LOGIN])
async def test_a_server_without_starttls_is_told_nothing(mailbox: Mailbox, login: dict[str, str]) -> None:
    async with mail_server(mailbox) as port:
        error = await refusal(email(port, security="starttls", **login), Refused)
    assert "STARTTLS extension not supported" in str(error)
    assert "email.security" in str(error)
    assert untouched(mailbox)


@pytest.mark.parametrize("security", ["starttls", "tls"])
async def test_a_server_that_nobody_vouches_for_is_told_nothing(
    mailbox: Mailbox, tmp_path: Path, security: str
) -> None:
    context, _ = certificate(tmp_path)
    async with mail_server(mailbox, **{security: context}) as port:
        error = await refusal(email(port, security=security, **LOGIN), Refused)
    assert "self-signed certificate; see email.host" in str(error)
    assert untouched(mailbox)


@pytest.mark.parametrize("security", ["starttls", "tls"])
async def test_a_server_with_another_servers_certificate_is_told_nothing(
    mailbox: Mailbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, security: str
) -> None:
    context, public = certificate(tmp_path, "127.0.0.2")
    monkeypatch.setenv("SSL_CERT_FILE", str(public))
    async with mail_server(mailbox, **{security: context}) as port:
        error = await refusal(email(port, security=security, **LOGIN), Refused)
    assert "is not who it should be: IP address mismatch" in str(error)
    assert untouched(mailbox)


async def test_a_login_without_tls_is_only_asked_for_by_the_settings(mailbox: Mailbox) -> None:
    """This server takes none without TLS, and says so."""
    async with mail_server(mailbox) as port:
        error = await refusal(email(port, **LOGIN), Refused)
    assert "AUTH extension is not supported" in str(error)


async def test_a_wrong_login_names_the_settings(mailbox: Mailbox, trusted: ssl.SSLContext) -> None:
    async with mail_server(mailbox, starttls=trusted) as port:
        error = await refusal(email(port, security="starttls", user="riacho", password="wrong horse"), Refused)
    assert error.code == 535
    assert "email.user (RIACHO_EMAIL_USER) and email.password (RIACHO_EMAIL_PASSWORD)" in str(error)
    assert mailbox.envelopes == []


async def test_a_login_that_cannot_be_checked_now_is_tried_again(
    mailbox: Mailbox, trusted: ssl.SSLContext
) -> None:
    mailbox.answers["AUTH"] = "454 chatter"
    async with mail_server(mailbox, starttls=trusted) as port:
        assert (await refusal(email(port, security="starttls", **LOGIN), Retryable)).code == 454


@pytest.mark.parametrize(
    ("command", "code", "kind", "said"),
    [
        ("RCPT", 450, Retryable, "refused the recipient (450)"),
        ("RCPT", 550, Refused, "refused the recipient (550)"),
        ("DATA", 451, Retryable, "refused the message (451)"),
        ("DATA", 421, Retryable, "refused the message (421)"),
        ("DATA", 554, Refused, "refused the message (554)"),
    ],
)
async def test_what_the_server_refuses_is_tried_again_where_that_may_help(
    mailbox: Mailbox, command: str, code: int, kind: type[NotSent], said: str
) -> None:
    mailbox.answers[command] = f"{code} chatter about <{ADDRESS}>"
    async with mail_server(mailbox) as port:
        error = await refusal(email(port), kind)
    assert error.code == code
    assert said in str(error)


async def test_a_server_that_is_away_is_tried_again(mailbox: Mailbox) -> None:
    async with mail_server(mailbox) as port:
        pass
    assert "failed" in str(await refusal(email(port), Retryable))


async def test_a_server_that_stalls_is_left(mailbox: Mailbox) -> None:
    stalled = asyncio.Event()

    async def stall(_: SMTP) -> None:
        stalled.set()
        await asyncio.Event().wait()

    mailbox.before_data = stall
    async with mail_server(mailbox) as port:
        assert "took longer than 0.5 s" in str(await refusal(email(port, timeout=0.5), Retryable))
    assert stalled.is_set()


async def test_a_server_that_takes_its_time_over_each_word_is_left() -> None:
    """No pause is long, all of them together are."""
    left = asyncio.Event()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        said = b"220 slow\r\n"
        while not reader.at_eof():
            await asyncio.sleep(0.15)
            writer.write(said)
            await reader.readline()
            said = b"250 slow\r\n"
        writer.close()
        left.set()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        assert "took longer than 0.4 s" in str(await refusal(email(port, timeout=0.4), Retryable))
        await asyncio.wait_for(left.wait(), 10)


async def test_a_connection_lost_after_the_text_is_tried_again(mailbox: Mailbox) -> None:
    async def cut(server: SMTP) -> None:
        assert server.transport
        server.transport.abort()  # type: ignore[attr-defined]

    mailbox.before_data = cut
    async with mail_server(mailbox) as port:
        await refusal(email(port), Retryable)
    assert len(mailbox.envelopes) == 1  # so trying again is once too often: at least once is what is promised


@pytest.mark.parametrize("answer", ["500 no", "421 no"])
async def test_a_message_that_is_out_stays_out_whatever_the_farewell(mailbox: Mailbox, answer: str) -> None:
    mailbox.answers["QUIT"] = answer
    async with mail_server(mailbox) as port:
        assert await send(email(port))
    assert len(mailbox.messages) == 1


async def test_no_subject_brings_a_header_of_its_own(mailbox: Mailbox) -> None:
    subject = "Pedido\r\nBcc: eve@example.net\r\n\r\nOi\n\x00\x0b\u2028\x85fim"
    async with mail_server(mailbox) as port:
        await send(email(port), subject)
    (message,) = mailbox.messages
    assert message["Bcc"] is None
    assert message["Subject"] == "Pedido Bcc: eve@example.net Oi fim"
    assert mailbox.envelopes[0].rcpt_tos == [ADDRESS]


@pytest.mark.parametrize(
    "to",
    ["ana", "a@b\r\nRCPT TO:<eve@example.net>", "a@b> SIZE=1", "a@b, eve@example.net", '"a b"@c', "a\x00@b", "a@"],
)
async def test_what_is_no_address_is_refused_before_anybody_is_asked(mailbox: Mailbox, to: str) -> None:
    async with mail_server(mailbox) as port:
        error = await refusal(email(port), Refused, to=to)
    assert "no e-mail address" in str(error)
    assert mailbox.envelopes == []


@pytest.mark.parametrize("sender", ["", "Riacho", "a b <>", "a@"])
def test_a_sender_that_is_no_address_names_the_setting(sender: str) -> None:
    with pytest.raises(EmailUnusable, match=r"email\.sender \(RIACHO_EMAIL_SENDER\)"):
        email(25, sender=sender)


async def test_a_sender_has_the_name_it_is_given(mailbox: Mailbox) -> None:
    async with mail_server(mailbox) as port:
        await send(email(port, sender='"Açaí, da Ana" <loja@example.com>'))
    (message,) = mailbox.messages
    assert message["From"].addresses[0].display_name == "Açaí, da Ana"
    assert mailbox.envelopes[0].mail_from == "loja@example.com"


async def test_an_address_of_more_than_ascii_arrives_where_the_server_takes_it(mailbox: Mailbox) -> None:
    async with mail_server(mailbox) as port:
        await send(email(port), to="joão@example.org")
    assert mailbox.envelopes[0].rcpt_tos == ["joão@example.org"]


async def test_messages_at_the_same_time_do_not_get_in_each_others_way(mailbox: Mailbox) -> None:
    async with mail_server(mailbox) as port:
        sender = email(port)
        sent = [sender.send(ADDRESS, "Olá", str(n), message_id=str(n)) for n in range(10)]
        await asyncio.gather(*sent)
    assert {message.get_content().strip() for message in mailbox.messages} == set(map(str, range(10)))
