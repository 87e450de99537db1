"""A client of WhatsApp's Cloud API.

https://developers.facebook.com/documentation/business-messaging/whatsapp/messages/send-messages
"""

import io
import re
from contextlib import suppress
from types import TracebackType
from typing import Annotated, Any, ClassVar, Self, TypeVar

import aiohttp
import msgspec
from yarl import URL

from pipeline import metrics
from stages.notification.codes import error_of, shown
from stages.notification.errors import NotSent, OutcomeUnknown, Retryable, SenderPaused
from stages.notification.phone import is_user_id
from stages.outgoing import TooLarge, body_of, session

ANSWER_LIMIT = 65_536  # bytes
CONNECTIONS = 64
# The request has not gone out where no connection came about.
NOT_CONNECTED = (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError)

T = TypeVar("T")


class Sender(msgspec.Struct, frozen=True):
    """A business phone number, and what it takes to send from it. `url` is the Graph API's, without the version;
    `template` an approved template with one body parameter, in `template_language`."""

    phone_number_id: str
    token: str
    url: str
    version: str
    template: str = ""
    template_language: str = "pt_BR"

    def __repr__(self) -> str:
        return f"Sender({self.phone_number_id!r})"  # the token shows nowhere

    def __rich_repr__(self) -> list[tuple[str, Any]]:
        return [("phone_number_id", self.phone_number_id)]


class Content(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a message consists of; the fields are Meta's."""

    type: ClassVar[str]

    @property
    def payload(self) -> object:
        """It as Meta takes it."""
        return self


class Text(Content, frozen=True):
    """Up to 4096 characters."""

    type: ClassVar[str] = "text"

    body: str


class Image(Content, frozen=True, omit_defaults=True):
    """A JPEG or PNG that WhatsApp fetches; the caption has up to 1024 characters."""

    type: ClassVar[str] = "image"

    link: str
    caption: str = ""


class Document(Content, frozen=True, omit_defaults=True):
    """A file that WhatsApp fetches; the caption has up to 1024 characters."""

    type: ClassVar[str] = "document"

    link: str
    caption: str = ""
    filename: str = ""


class Audio(Content, frozen=True, omit_defaults=True):
    """Uploaded before. With `voice` it shows as a voice note, which has to be ogg/opus."""

    type: ClassVar[str] = "audio"

    id: str
    voice: bool = False


class Template(Content, frozen=True):
    """An approved template, with the parameters of its body in their order."""

    type: ClassVar[str] = "template"

    name: str
    language: str
    parameters: tuple[str, ...] = ()

    @property
    def payload(self) -> object:
        """It as Meta takes it."""
        texts = [{"type": "text", "text": text} for text in self.parameters]
        body = [{"type": "body", "parameters": texts}] if texts else []
        return {"name": self.name, "language": {"code": self.language}, "components": body}


class _Named(msgspec.Struct):
    id: Annotated[str, msgspec.Meta(min_length=1, max_length=2_000)]


class _Accepted(msgspec.Struct):
    messages: Annotated[list[_Named], msgspec.Meta(min_length=1)]


class _Error(msgspec.Struct):
    code: Annotated[int, msgspec.Meta(ge=0, lt=2**31)]
    error_subcode: int | None = None
    message: object = ""
    error_data: object = None

    @property
    def text(self) -> str:
        title = re.sub(r"^\(#\d+\)\s*", "", str(self.message))
        details = self.error_data.get("details", "") if isinstance(self.error_data, dict) else ""
        return f"{title}: {details}" if details else title


class _Failed(msgspec.Struct):
    error: _Error


class CloudApi:
    """Sends messages, and uploads what goes with them. A context manager: it keeps connections.

    A call may take `timeout` seconds, half of them to connect. Nothing is tried twice here: errors say what there
    is to do (see `errors`), and none has the token in it.
    """

    def __init__(self, timeout: float = 20.0) -> None:
        self._timeout = timeout
        self._requests = metrics.meter().create_counter(
            "riacho.whatsapp.requests",
            unit="{request}",
            description="Calls by outcome: accepted, Meta's error code, http_<status>, timeout, unreachable.",
        )
        self._few = metrics.Few()

    async def __aenter__(self) -> Self:
        # Connecting has a shorter limit of its own: when that is over, the request is known not to be out.
        timeout = aiohttp.ClientTimeout(total=self._timeout, connect=self._timeout / 2)
        self._http = session("whatsapp", timeout, aiohttp.TCPConnector(limit=CONNECTIONS))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._http.close()

    async def send(self, sender: Sender, to: str, content: Content, *, job_id: str) -> str:
        """Send a message; returns WhatsApp's id for it (wamid), which says that it was taken, not that it arrived.

        `to` is a phone number with country code, with or without `+`, or a business-scoped user id. The status
        webhooks of the message repeat `job_id` (up to 512 characters). Raises NotSent or OutcomeUnknown.
        """
        # In `to` a user id would be taken for the phone number that its digits are.
        field = "recipient" if is_user_id(to) else "to"
        message = {
            "messaging_product": "whatsapp",
            "recipient_type": "individual",
            field: to,
            "type": content.type,
            content.type: content.payload,
            "biz_opaque_callback_data": job_id,
        }
        json = aiohttp.BytesPayload(msgspec.json.encode(message), content_type="application/json")
        answer = await self._post(sender, "messages", json)
        return _read(answer, _Accepted).messages[0].id

    async def upload(self, sender: Sender, audio: bytes, mime: str) -> str:
        """Upload a voice note for this sender's messages; returns its media id, which lasts 30 days.

        Raises NotSent: an upload by itself sends nothing.
        """
        form = aiohttp.FormData({"messaging_product": "whatsapp", "type": mime})
        kind = mime.partition(";")[0].rpartition("/")[2]
        form.add_field("file", io.BytesIO(audio), filename=f"audio.{kind}", content_type=mime)
        try:
            return _read(await self._post(sender, "media", form), _Named).id
        except OutcomeUnknown as error:
            raise Retryable(f"the upload failed: {error}") from None

    async def check(self, sender: Sender) -> None:
        """Ask for the sender's number with its token. Raises NotSent, as sending would, or OutcomeUnknown."""
        await self._call("GET", sender, _address(sender).with_query(fields="id"))

    async def _post(self, sender: Sender, path: str, data: aiohttp.BytesPayload | aiohttp.FormData) -> bytes:
        return await self._call("POST", sender, _address(sender) / path, data)

    async def _call(
        self, method: str, sender: Sender, url: URL, data: aiohttp.BytesPayload | aiohttp.FormData | None = None
    ) -> bytes:
        """The body of an answer that says yes."""
        login = {"Authorization": f"Bearer {_token(sender)}"}
        try:
            async with self._http.request(method, url, data=data, headers=login, allow_redirects=False) as answer:
                if answer.status // 100 == 2:
                    body = await _body(answer)
                    self._count("accepted")
                    return body
                error = await _error(answer)
                self._count(str(error.code) if error else f"http_{answer.status}")
                raise _meaning(error, answer, sender.token)
        except NOT_CONNECTED as error:
            self._count("unreachable")
            raise Retryable(f"cannot connect to {url.host}: {type(error).__name__}") from None
        except TimeoutError:
            self._count("timeout")
            raise OutcomeUnknown(f"{url.host} did not answer within {self._timeout:g} s") from None
        except (aiohttp.ClientError, OSError) as error:  # its text may have the request in it
            self._count("unreachable")
            raise OutcomeUnknown(f"the connection to {url.host} was lost: {type(error).__name__}") from None

    def _count(self, outcome: str) -> None:
        self._requests.add(1, {"outcome": self._few(outcome)})


def _address(sender: Sender) -> URL:
    """Raises SenderPaused: the token goes to this address."""
    if not re.fullmatch(r"\d{1,50}", sender.phone_number_id, re.ASCII):
        raise SenderPaused(
            f"{shown(sender.phone_number_id)!r} is no phone number id; see the settings whatsapp.phone_number_id "
            "and whatsapp.senders"
        )
    with suppress(ValueError):
        url = URL(f"{sender.url.rstrip('/')}/{sender.version}/{sender.phone_number_id}")
        if url.host and url.scheme in ("http", "https") and not (url.user or url.password):
            return url
    raise SenderPaused("the setting whatsapp.graph_url is no address of the Graph API")


def _token(sender: Sender) -> str:
    if not sender.token:
        raise SenderPaused(
            f"phone number id {sender.phone_number_id} has no access token; set whatsapp.access_token, "
            "or access_token in whatsapp.senders"
        )
    if not (sender.token.isascii() and sender.token.isprintable()):
        raise SenderPaused(f"the access token of {sender.phone_number_id} has characters no header can carry")
    return sender.token


async def _body(answer: aiohttp.ClientResponse) -> bytes:
    try:
        return await body_of(answer, ANSWER_LIMIT)
    except TooLarge as error:
        raise OutcomeUnknown(f"WhatsApp's answer is {error}") from None


def _read(answer: bytes, kind: type[T]) -> T:
    try:
        return msgspec.json.decode(answer, type=kind)
    except (ValueError, RecursionError):
        raise OutcomeUnknown("WhatsApp took the request, but its answer cannot be read") from None


async def _error(answer: aiohttp.ClientResponse) -> _Error | None:
    """Meta's error, if the answer has one. Its status has been said, so losing the rest of it changes nothing."""
    with suppress(aiohttp.ClientError, OSError, OutcomeUnknown, ValueError, RecursionError):
        return msgspec.json.decode(await _body(answer), type=_Failed, strict=False).error
    return None


def _meaning(error: _Error | None, answer: aiohttp.ClientResponse, token: str) -> NotSent | OutcomeUnknown:
    """The error an answer stands for."""
    if error:
        return error_of(error.code, answer.status, shown(error.text, token), subcode=error.error_subcode)
    if answer.status >= 500 and answer.status != 503:  # not Meta's own words: a proxy gave up waiting, say
        return OutcomeUnknown(f"WhatsApp answered {answer.status}, and nothing about the message")
    return error_of(None, answer.status, shown(answer.reason or "", token))
