"""E-mail over SMTP."""

import asyncio
import re
import ssl
from contextlib import suppress
from datetime import UTC, datetime
from email.headerregistry import Address
from email.message import EmailMessage
from email.utils import parseaddr
from typing import Literal

import aiosmtplib

from pipeline import RiachoError
from stages.notification.errors import NotSent, Refused, Retryable

FAREWELL = 2.0  # seconds the server has to answer QUIT, when it has the message

# Local part and domain as RFC 5321 has them without quotes; more than ASCII where the server takes it (SMTPUTF8).
ADDRESS = re.compile(
    r"""([^@\s<>()\[\]\\,;:"\x00-\x1f\x7f-\x9f]{1,64})@([^@\s<>()\\,;:"\x00-\x1f\x7f-\x9f]{1,250})"""
)
NOT_IN_A_LINE = re.compile(r"[\s\x00-\x1f\x7f-\x9f]+")
NOT_IN_AN_ID = re.compile(r"[^A-Za-z0-9._-]+")


class EmailUnusable(RiachoError):
    """A setting of e-mail that cannot be used; the message names it."""


class Email:
    """Sends plain text from one address, with a connection for each message.

    `security`: with `starttls` and `tls` the server has to show a certificate for `host` that this machine trusts
    (the variable SSL_CERT_FILE names others) before it is told anything, the login above all; `none` is for a
    server on the same machine. With `user` it logs in. `sender` may have a name: `Loja <loja@example.com>`. A
    message may take `timeout` seconds in all. Raises EmailUnusable where `sender` is no address.
    """

    def __init__(
        self,
        *,
        host: str,
        port: int,
        security: Literal["starttls", "tls", "none"],
        user: str,
        password: str,
        sender: str,
        timeout: float,
    ) -> None:
        self._host, self._port = host, port
        self._security = security
        self._user, self._password = user, password
        self._timeout = timeout
        name, self._sender = parseaddr(sender)
        try:
            self._from = _address(self._sender, name)
        except ValueError:
            raise EmailUnusable("email.sender (RIACHO_EMAIL_SENDER) is no e-mail address") from None

    async def send(self, to: str, subject: str, text: str, *, message_id: str) -> str:
        """Send a text to an address; returns its Message-ID, made of `message_id` and the sender's domain.

        It arrives at least once: where the connection is lost between the text and the server's word that it has
        it, trying again may send a second one. That has the same Message-ID, by which it can be recognised.

        Raises Retryable where the server is away or says that this passes (4xx), and Refused where it never takes
        this message (5xx), or the settings do not fit it.
        """
        message = self._message(to, subject, text, message_id)
        client = self._client()
        try:
            async with asyncio.timeout(self._timeout):
                await self._deliver(client, message, to)
            await _leave(client)
        except (aiosmtplib.SMTPException, OSError, ValueError) as error:  # their texts have addresses in them
            raise self._reason(error) from None
        finally:
            client.close()
        return str(message["Message-ID"])

    async def check(self) -> None:
        """Connect and log in as `send` does, and send nothing. Raises as that does."""
        client = self._client()
        try:
            async with asyncio.timeout(self._timeout):
                await self._log_in(client)
                await client.ehlo()
            await _leave(client)
        except (aiosmtplib.SMTPException, OSError, ValueError) as error:
            raise self._reason(error) from None
        finally:
            client.close()

    def _message(self, to: str, subject: str, text: str, message_id: str) -> EmailMessage:
        message = EmailMessage()
        message["From"] = self._from
        try:
            message["To"] = _address(to)
        except ValueError:
            raise Refused("what the message was to go to is no e-mail address") from None
        message["Subject"] = NOT_IN_A_LINE.sub(" ", subject).strip()
        message["Date"] = datetime.now(UTC)
        message["Message-ID"] = f"<{NOT_IN_AN_ID.sub('-', message_id)}@{self._from.domain}>"
        message["Auto-Submitted"] = "auto-generated"
        message.set_content(text.replace("\0", ""), cte="quoted-printable")  # whatever the server takes
        return message

    def _client(self) -> aiosmtplib.SMTP:
        return aiosmtplib.SMTP(
            hostname=self._host,
            port=self._port,
            timeout=self._timeout,
            use_tls=self._security == "tls",
            start_tls=self._security == "starttls",  # False: not even where it is offered
        )

    async def _deliver(self, client: aiosmtplib.SMTP, message: EmailMessage, to: str) -> None:
        await self._log_in(client)
        await client.send_message(message, sender=self._sender, recipients=[to])

    async def _log_in(self, client: aiosmtplib.SMTP) -> None:
        await client.connect()
        if self._user:
            await client.login(self._user, self._password)

    def _reason(self, error: Exception) -> NotSent:
        """What went wrong, without what the server said: that may repeat addresses, or what it was sent."""
        server = f"the mail server {self._host}"
        if untrusted := _certificate_error(error):
            return Refused(f"{server} is not who it should be: {untrusted.verify_message}; see email.host")
        code = _code(error)
        if code is not None:
            what = f"{server} {_refused(error)} ({code})"
            return Refused(what, code) if 500 <= code < 600 else Retryable(what, code)
        if isinstance(error, TimeoutError):
            return Retryable(f"{server} took longer than {self._timeout:g} s")
        if isinstance(error, OSError):
            return Retryable(f"the connection to {server} failed ({type(error).__name__})")
        return Refused(f"{server} {_lacks(error)}")


def _address(spelling: str, name: str = "") -> Address:
    """An address as a header has it. Raises ValueError where it is none."""
    if not (parts := ADDRESS.fullmatch(spelling)):
        raise ValueError("no e-mail address")
    return Address(NOT_IN_A_LINE.sub(" ", name), parts[1], parts[2])


async def _leave(client: aiosmtplib.SMTP) -> None:
    """As the protocol has it. The message is out already, so nothing that happens here matters."""
    with suppress(aiosmtplib.SMTPException, OSError):
        async with asyncio.timeout(FAREWELL):
            await client.quit()


def _certificate_error(error: Exception) -> ssl.SSLCertVerificationError | None:
    for each in (error, error.__cause__):
        if isinstance(each, ssl.SSLCertVerificationError):
            return each
    return None


def _code(error: Exception) -> int | None:
    """What the server answered, if it did."""
    match error:
        case aiosmtplib.SMTPRecipientsRefused():
            return error.recipients[0].code
        case aiosmtplib.SMTPResponseException():
            return error.code
    return None


def _refused(error: Exception) -> str:
    match error:
        case aiosmtplib.SMTPAuthenticationError():
            user, password = "email.user (RIACHO_EMAIL_USER)", "email.password (RIACHO_EMAIL_PASSWORD)"
            return f"refused the login, see {user} and {password}"
        case aiosmtplib.SMTPSenderRefused():
            return "refused the sender, see email.sender (RIACHO_EMAIL_SENDER)"
        case aiosmtplib.SMTPRecipientsRefused():
            return "refused the recipient"
        case aiosmtplib.SMTPDataError():
            return "refused the message"
    return "refused"


def _lacks(error: Exception) -> str:
    """The client library's own words where they are about what a server can do."""
    match error:
        case aiosmtplib.SMTPNotSupported():
            return "takes only addresses in ASCII"
        case aiosmtplib.SMTPException():
            return f"cannot do what email.security and email.user ask for: {error.message}"
    return f"cannot be asked ({type(error).__name__})"
