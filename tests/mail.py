"""A mail server with TLS and logins, a receiver of webhooks, and contexts for handlers that use them."""

import asyncio
import hashlib
import hmac
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from email import message_from_bytes, policy
from email.message import EmailMessage
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import msgspec
from aiohttp import web
from aiohttp.test_utils import TestServer
from aiosmtpd.smtp import SMTP, AuthResult, Envelope, LoginPassword, Session
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from stages.notification.email import Email

PASSWORD = "correct horse"
SECRET = "battery staple"
HIDDEN = "hush-hush"  # in the path and query of the webhook's address


class Mailbox:
    """Keeps the messages it takes. `answers` by command (RCPT, DATA, QUIT, AUTH) are given in place of its own."""

    def __init__(self) -> None:
        self.envelopes: list[Envelope] = []
        self.logins: list[tuple[str, str, bool]] = []  # user, password, whether over TLS
        self.answers: dict[str, str] = {}
        self.before_data: Callable[[SMTP], Any] | None = None

    @property
    def messages(self) -> list[EmailMessage]:
        return [message_from_bytes(content, policy=policy.default) for content in self.contents]

    @property
    def contents(self) -> list[bytes]:
        """The messages as they came, without the dots put in on the way."""
        return [each.content for each in self.envelopes if isinstance(each.content, bytes)]

    async def handle_RCPT(  # noqa: N802
        self, server: SMTP, session: Session, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        if "RCPT" not in self.answers:
            envelope.rcpt_tos.append(address)
        return self.answers.get("RCPT", "250 OK")

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:  # noqa: N802
        if "DATA" not in self.answers:
            self.envelopes.append(envelope)
        if self.before_data:
            await self.before_data(server)
        return self.answers.get("DATA", "250 OK")

    async def handle_QUIT(self, server: SMTP, session: Session, envelope: Envelope) -> str:  # noqa: N802
        return self.answers.get("QUIT", "221 Bye")

    def authenticate(
        self, server: SMTP, session: Session, envelope: Envelope, mechanism: str, login: Any
    ) -> AuthResult:
        assert isinstance(login, LoginPassword)
        user, password = login.login.decode(), login.password.decode()
        self.logins.append((user, password, session.ssl is not None))
        if answer := self.answers.get("AUTH"):
            return AuthResult(success=False, handled=False, message=answer)
        return AuthResult(success=password == PASSWORD, handled=False)


@asynccontextmanager
async def mail_server(
    mailbox: Mailbox, *, starttls: ssl.SSLContext | None = None, tls: ssl.SSLContext | None = None
) -> AsyncIterator[int]:
    """A mail server on loopback with logins over TLS; its port."""
    loop = asyncio.get_running_loop()

    def connected() -> SMTP:
        return SMTP(
            mailbox,
            tls_context=starttls,
            authenticator=mailbox.authenticate,
            auth_require_tls=tls is None,  # it takes no note of TLS that was there from the start
            enable_SMTPUTF8=True,
            loop=loop,
        )

    server = await loop.create_server(connected, "127.0.0.1", 0, ssl=tls)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()


def email(port: int, **other: Any) -> Email:
    """An Email for a server on loopback."""
    options: dict[str, Any] = {
        "host": "127.0.0.1",
        "security": "none",
        "user": "",
        "password": "",
        "timeout": 10.0,
    }
    return Email(port=port, **{"sender": "Riacho <riacho@example.com>"} | options | other)


def certificate(folder: Path, address: str = "127.0.0.1") -> tuple[ssl.SSLContext, Path]:
    """A server's context with a certificate for an address, and the file that makes a client trust it."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "riacho test")])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address(address))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    public, private = folder / "certificate.pem", folder / "key.pem"
    public.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    plain = serialization.NoEncryption()
    private.write_bytes(key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, plain))
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(public, private)
    return context, public


class Receiver:
    """What a webhook is posted to: checks every signature, keeps the events, and answers as told."""

    def __init__(self) -> None:
        self.requests: list[web.Request] = []
        self.events: list[dict[str, Any]] = []
        self.status = 200
        self.answer: Callable[[web.Request], Any] | None = None

    async def _take(self, request: web.Request) -> web.StreamResponse:
        raw = await request.read()
        timestamp = request.headers["X-Riacho-Timestamp"]
        expected = hmac.new(SECRET.encode(), f"{timestamp}.".encode() + raw, hashlib.sha256).hexdigest()
        assert request.headers["X-Riacho-Signature"] == f"sha256={expected}"
        assert abs(int(timestamp) - datetime.now(UTC).timestamp()) < 60
        self.requests.append(request)
        self.events.append(msgspec.json.decode(raw))
        if self.answer:
            answer: web.StreamResponse = await self.answer(request)
            return answer
        return web.Response(status=self.status, headers={"Location": "/elsewhere"})

    @asynccontextmanager
    async def running(self) -> AsyncIterator[str]:
        """Its address, whose path and query are secret."""
        application = web.Application()
        application.router.add_route("*", "/{path:.*}", self._take)
        async with TestServer(application) as server:
            yield str(server.make_url(f"/{HIDDEN}?key={HIDDEN}"))
