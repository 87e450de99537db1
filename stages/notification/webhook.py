"""A generic webhook: signed JSON to an address of the operator's."""

import hashlib
import hmac
import time
from types import TracebackType
from typing import Any, Self

import aiohttp
import msgspec
from yarl import URL

from pipeline import RiachoError
from stages.notification.errors import Refused, Retryable
from stages.outgoing import traced

PASSING = {408, 425, 429}  # worth another try although the status says that the request was wrong


class WebhookUnusable(RiachoError):
    """A setting of the webhook that cannot be used; the message names it."""


class _Event(msgspec.Struct):
    event: str
    id: str
    data: Any


class SignedWebhook:
    """POSTs `{"event": …, "id": …, "data": {…}}` as JSON in UTF-8.

    A receiver knows by the signature that it is from us, and not an old one sent again: the header
    `X-Riacho-Signature` is `sha256=` and the HMAC-SHA256 in hex, keyed with the shared secret, of the value of
    `X-Riacho-Timestamp` (seconds since the epoch), a dot, and the body's bytes as they came. It compares these in
    constant time, and refuses what is more than a few minutes old. `Idempotency-Key` is the event's id, the same
    whenever an event is sent again: it arrives at least once.

    Any 2xx says that it has the event; what else it answers is not read, and no redirect is followed. A context
    manager: it keeps connections. Raises WebhookUnusable for an address that is not http(s), or an empty secret.
    """

    def __init__(self, url: str, secret: str, timeout: float) -> None:
        self._url = _http_url(url)
        if not secret:
            raise WebhookUnusable(
                "the webhook needs a secret to sign with: fallback.secret (RIACHO_FALLBACK_SECRET)"
            )
        self._secret = secret.encode()
        self._timeout = timeout

    async def __aenter__(self) -> Self:
        self._http = aiohttp.ClientSession(
            timeout=aiohttp.ClientTimeout(total=self._timeout),
            cookie_jar=aiohttp.DummyCookieJar(),
            trace_configs=traced("webhook"),
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._http.close()

    async def post(self, event: str, body: object, *, id: str) -> str:  # noqa: A002
        """Deliver an event, `body` (a dict or Struct) being its data; returns its id.

        Raises Retryable where the receiver is away or says that this passes (408, 425, 429, 5xx), and Refused
        where it answers anything else but 2xx. Neither shows more of the address than its host.
        """
        raw = msgspec.json.encode(_Event(event, id, body))
        try:
            async with self._http.post(
                self._url, data=raw, headers=self._headers(raw, id), allow_redirects=False
            ) as answer:
                self._check(answer.status)
        except TimeoutError:
            raise Retryable(f"the webhook at {self._url.host} took longer than {self._timeout:g} s") from None
        except (aiohttp.ClientError, OSError) as error:  # its text has the address in it
            what = f"the connection to the webhook at {self._url.host} failed ({type(error).__name__})"
            raise Retryable(what) from None
        return id

    def _headers(self, raw: bytes, id: str) -> dict[str, str]:  # noqa: A002
        timestamp = str(int(time.time()))
        signature = hmac.new(self._secret, timestamp.encode() + b"." + raw, hashlib.sha256).hexdigest()
        return {
            "Content-Type": "application/json",
            "X-Riacho-Timestamp": timestamp,
            "X-Riacho-Signature": f"sha256={signature}",
            "Idempotency-Key": id,
        }

    def _check(self, status: int) -> None:
        if 200 <= status < 300:
            return
        what = f"the webhook at {self._url.host} answered {status}"
        passing = status >= 500 or status in PASSING
        raise Retryable(what, status) if passing else Refused(what, status)


def _http_url(url: str) -> URL:
    try:
        parsed = URL(url)
    except ValueError:
        parsed = URL()
    if parsed.scheme not in ("http", "https") or not parsed.host:
        raise WebhookUnusable("the webhook's address is not one of http(s): fallback.url (RIACHO_FALLBACK_URL)")
    return parsed
