"""The client of WhatsApp's Cloud API, against a server that does what the test says, and one as strict as Meta."""

import asyncio
import gzip
import logging
import re
import socket
import traceback
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
from aiohttp import web
from rich.pretty import pretty_repr

from pipeline import RiachoError
from stages.notification.cloud_api import (
    ANSWER_LIMIT,
    Audio,
    CloudApi,
    Content,
    Document,
    Image,
    Sender,
    Template,
    Text,
)
from stages.notification.errors import (
    NotSent,
    OutcomeUnknown,
    OutsideWindow,
    RateLimited,
    Refused,
    Retryable,
    SenderPaused,
)
from stages.notification.whatsapp import WhatsApp, parameter
from stages.ports import Messenger, Outgoing
from tests import cloud_api as meta
from tests.cloud_api.errors import ERRORS
from tests.support import RawServer

pytestmark = pytest.mark.integration

TOKEN = "EAAGm0PX4ZCpsBAKZCmuch-too-secret"
NUMBER_ID = "106540352242922"
TO = "+5511987654321"
JOB = "send-client.0.1795369267523-0"
WAMID = "wamid.HBgNNTUxMTk4NzY1NDMyMRUCABEYEjdGMkI="
MEDIA_ID = "1013859600285441"
NOTE = b"OggS" + bytes(24) + b"OpusHead" + bytes(range(256)) * 40
ADDRESS = "/tts/ab/cd/abcd.ogg"

Behaviour = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Graph:
    """A server in the Graph API's place. It keeps what it is asked, and answers as the test has it answer, one
    thing after the other, the last for good."""

    def __init__(self) -> None:
        self.url = ""
        self.behaviours: list[Behaviour] = [accepts]
        self.messages: list[dict[str, Any]] = []
        self.uploads: list[dict[str, object]] = []
        self.headers: list[dict[str, str]] = []
        self.transports: set[int] = set()
        self.stalled = asyncio.Event()

    async def answer(self, request: web.Request) -> web.StreamResponse:
        self.headers.append(dict(request.headers))
        self.transports.add(id(request.transport))
        if request.path == f"/v26.0/{NUMBER_ID}/media":
            form = await request.post()
            file = form["file"]
            assert isinstance(file, web.FileField)
            self.uploads.append({**form, "file": (file.filename, file.headers["Content-Type"], file.file.read())})
        else:
            assert request.path == f"/v26.0/{NUMBER_ID}/messages"
            assert request.content_type == "application/json"
            self.messages.append(await request.json())
        behaviour = self.behaviours.pop(0) if len(self.behaviours) > 1 else self.behaviours[0]
        return await behaviour(request)

    async def stalls(self, request: web.Request) -> web.StreamResponse:
        await self.stalled.wait()
        return web.Response()

    async def begins(self, request: web.Request) -> web.StreamResponse:
        """An answer of 200 that does not go on."""
        answer = web.StreamResponse()
        await answer.prepare(request)
        await answer.write(b'{"messages": [')
        await self.stalled.wait()
        return answer


async def accepts(request: web.Request) -> web.Response:
    if request.path.endswith("/media"):
        return web.json_response({"id": MEDIA_ID})
    contacts = [{"input": TO, "wa_id": TO[1:]}]
    return web.json_response({"messaging_product": "whatsapp", "contacts": contacts, "messages": [{"id": WAMID}]})


async def hangs_up(request: web.Request) -> web.Response:
    assert request.transport
    request.transport.close()
    return web.Response()


def says(status: int, body: bytes = b"", **headers: str) -> Behaviour:
    async def behave(_: web.Request) -> web.Response:
        return web.Response(status=status, body=body, headers=headers)

    return behave


def fails(
    status: int, code: int, *, message: str = "Title", details: str = "details", **more: object
) -> Behaviour:
    """An error as Meta writes it."""
    data = {"messaging_product": "whatsapp", "details": details}
    error = {
        "message": f"(#{code}) {message}",
        "type": "OAuthException",
        "code": code,
        "error_data": data,
        "fbtrace_id": "AbC",
    }

    async def behave(_: web.Request) -> web.Response:
        return web.json_response({"error": error | more}, status=status)

    return behave


@pytest.fixture
async def graph() -> AsyncIterator[Graph]:
    graph, app = Graph(), web.Application()
    app.router.add_route("POST", "/{path:.*}", graph.answer)
    runner = web.AppRunner(app, shutdown_timeout=0)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    graph.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    yield graph
    graph.stalled.set()
    await runner.cleanup()


@pytest.fixture
async def api() -> AsyncIterator[CloudApi]:
    async with CloudApi() as api:
        yield api


def sender(address: str, **changes: str) -> Sender:
    fields = {
        "phone_number_id": NUMBER_ID,
        "token": TOKEN,
        "url": address,
        "version": "v26.0",
        "template": "aviso",
    }
    return Sender(**fields | changes)


async def failure(sending: Awaitable[object]) -> RiachoError:
    """What a call raises; the token shows nowhere in it."""
    with pytest.raises(RiachoError) as caught:
        await sending
    shown = "".join(traceback.format_exception(caught.value)) + repr(caught.value)
    assert TOKEN not in shown
    assert "EAA" not in shown
    return caught.value


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (Text("Olá!\n*tudo* bem? 🎉"), {"type": "text", "text": {"body": "Olá!\n*tudo* bem? 🎉"}}),
        (Image("https://f.example/a.png"), {"type": "image", "image": {"link": "https://f.example/a.png"}}),
        (
            Document("https://f.example/a.pdf", "Pago", "a.pdf"),
            {
                "type": "document",
                "document": {"link": "https://f.example/a.pdf", "caption": "Pago", "filename": "a.pdf"},
            },
        ),
        (Audio(MEDIA_ID, voice=True), {"type": "audio", "audio": {"id": MEDIA_ID, "voice": True}}),
        (Audio(MEDIA_ID), {"type": "audio", "audio": {"id": MEDIA_ID}}),
        (
            Template("aviso", "pt_BR", ("Olá",)),
            {
                "type": "template",
                "template": {
                    "name": "aviso",
                    "language": {"code": "pt_BR"},
                    "components": [{"type": "body", "parameters": [{"type": "text", "text": "Olá"}]}],
                },
            },
        ),
    ],
)
async def test_a_message_goes_out_as_meta_documents_it(
    graph: Graph, api: CloudApi, content: Content, expected: dict[str, Any]
) -> None:
    assert await api.send(sender(graph.url), TO, content, job_id=JOB) == WAMID
    common = {"messaging_product": "whatsapp", "recipient_type": "individual", "to": TO}
    assert graph.messages == [common | expected | {"biz_opaque_callback_data": JOB}]
    assert graph.headers[0]["Authorization"] == f"Bearer {TOKEN}"


async def test_a_user_id_is_sent_in_the_field_that_meta_has_for_it(graph: Graph, api: CloudApi) -> None:
    for to in ("BR.1502576394655843", "5511987654321"):
        await api.send(sender(graph.url), to, Text("Olá"), job_id=JOB)
    fields = [
        {name: value for name, value in sent.items() if name in ("to", "recipient")} for sent in graph.messages
    ]
    assert fields == [{"recipient": "BR.1502576394655843"}, {"to": "5511987654321"}]


async def test_connections_are_kept_and_cookies_and_proxies_are_not(
    graph: Graph, monkeypatch: pytest.MonkeyPatch
) -> None:
    graph.behaviours = [with_cookie]
    url = graph.url.replace("127.0.0.1", "localhost")  # addresses have no cookies
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    async with CloudApi() as api:
        for _ in range(3):
            await api.send(sender(f"{url}/"), TO, Text("Olá"), job_id=JOB)
    assert len(graph.transports) == 1
    assert not any("Cookie" in headers for headers in graph.headers)


async def with_cookie(request: web.Request) -> web.Response:
    answer = await accepts(request)
    answer.set_cookie("session", "of another tenant")
    return answer


async def test_a_voice_note_is_uploaded_as_meta_documents_it(graph: Graph, api: CloudApi) -> None:
    assert await api.upload(sender(graph.url), NOTE, "audio/ogg; codecs=opus") == MEDIA_ID
    mime = "audio/ogg; codecs=opus"
    file = ("audio.ogg", mime, NOTE)
    assert graph.uploads == [{"messaging_product": "whatsapp", "type": mime, "file": file}]
    assert graph.headers[0]["Authorization"] == f"Bearer {TOKEN}"


async def test_a_long_voice_note_is_uploaded_whole(strict: meta.CloudApi, api: CloudApi) -> None:
    note = NOTE + bytes(16_000_000)
    media_id = await api.upload(at_meta(strict), note, "audio/ogg")
    assert strict.uploads[media_id].content == note


@pytest.mark.parametrize(
    ("behaviour", "kind", "code", "text"),
    [
        (fails(500, 131000), Retryable, 131000, "WhatsApp's error 131000: Title: details"),
        (fails(503, 2), Retryable, 2, "WhatsApp's error 2"),
        (fails(500, 424242), Retryable, 424242, "WhatsApp's error 424242"),
        (fails(400, 131056), RateLimited, 131056, "WhatsApp's error 131056"),
        (fails(400, 131047), OutsideWindow, 131047, "WhatsApp's error 131047"),
        (fails(401, 190), SenderPaused, 190, "WhatsApp's error 190"),
        (fails(400, 100, error_subcode=33), SenderPaused, 100, "WhatsApp's error 100"),
        (fails(400, 131026), Refused, 131026, "WhatsApp's error 131026"),
        (fails(400, 100, error_data="not an object"), Refused, 100, "WhatsApp's error 100: Title"),
        (fails(400, 100, error_data=None, message="x" * 70_000), Refused, None, "WhatsApp answered 400"),
        (says(400, b"<html>"), Refused, None, "WhatsApp answered 400: Bad Request"),
        (says(400, b'{"error": {"x": ' + b"[" * 60_000), Refused, None, "WhatsApp answered 400: Bad Request"),
        (says(404), Refused, None, "WhatsApp answered 404: Not Found"),
        (says(429), RateLimited, None, "WhatsApp answered 429: Too Many Requests"),
        (says(503), Retryable, None, "WhatsApp answered 503: Service Unavailable"),
        (says(302, Location="/elsewhere"), SenderPaused, None, "WhatsApp answered 302: Found"),
    ],
)
async def test_an_error_says_what_there_is_to_do(
    graph: Graph, api: CloudApi, behaviour: Behaviour, kind: type[NotSent], code: int | None, text: str
) -> None:
    graph.behaviours = [behaviour]
    for call in (
        api.send(sender(graph.url), TO, Text("Olá"), job_id=JOB),
        api.upload(sender(graph.url), NOTE, "audio/ogg"),
    ):
        error = await failure(call)
        assert type(error) is kind
        assert error.code == code
        assert str(error).startswith(text)
    assert len(graph.messages) == len(graph.uploads) == 1


UNREADABLE: list[Behaviour] = [
    says(200),
    says(200, b"<html>welcome</html>"),
    says(200, b"{}"),
    says(200, b'{"messages": []}'),
    says(200, b'{"messages": [{"id": ""}]}'),
    says(200, b'{"messages": [{"id": "\xff"}]}'),
    says(200, b'{"error": {"code": 131026}}'),
    says(200, b'{"x": ' + b"[" * 60_000),
    says(200, b" " * (ANSWER_LIMIT + 1)),
    says(200, gzip.compress(b'{"messages": [{"id": "w"}]}'), **{"Content-Encoding": "gzip"}),
    hangs_up,
    says(500),
    says(502, b"<html>Bad Gateway</html>"),
    says(504, b'{"error": "upstream"}'),
]


@pytest.mark.parametrize("behaviour", UNREADABLE)
async def test_where_nobody_knows_the_error_says_so(graph: Graph, api: CloudApi, behaviour: Behaviour) -> None:
    graph.behaviours = [accepts, accepts, behaviour]
    await api.send(sender(graph.url), TO, Text("Olá"), job_id=JOB)  # so that the connection is one that was kept
    await api.upload(sender(graph.url), NOTE, "audio/ogg")
    assert isinstance(await failure(api.send(sender(graph.url), TO, Text("Olá"), job_id=JOB)), OutcomeUnknown)
    assert len(graph.messages) == 2  # nothing was tried again
    assert isinstance(await failure(api.upload(sender(graph.url), NOTE, "audio/ogg")), Retryable)
    assert len(graph.uploads) == 2


async def test_a_call_that_takes_too_long_is_given_up(graph: Graph) -> None:
    async with CloudApi(timeout=0.3) as api:
        for behaviour in (graph.stalls, graph.begins):
            graph.behaviours = [behaviour]
            error = await failure(api.send(sender(graph.url), TO, Text("Olá"), job_id=JOB))
            assert isinstance(error, OutcomeUnknown)
            assert str(error) == "127.0.0.1 did not answer within 0.3 s"
            assert isinstance(await failure(api.upload(sender(graph.url), NOTE, "audio/ogg")), Retryable)


@pytest.mark.parametrize(
    "beginning",
    [b"", b"SSH-2.0-x\r\n\r\n", b'HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n{"messages": [{"id": "w"}]}'],
)
async def test_an_answer_cut_short_leaves_the_outcome_open(beginning: bytes) -> None:
    async def answer(write: Callable[[bytes], Awaitable[None]]) -> None:
        await write(beginning)
        raise ConnectionError

    async with RawServer(answer).running() as url, CloudApi() as api:
        error = await failure(api.send(sender(url), TO, Text("Olá"), job_id=JOB))
        assert isinstance(error, OutcomeUnknown)


async def test_a_refusal_cut_short_is_still_a_refusal() -> None:
    async def answer(write: Callable[[bytes], Awaitable[None]]) -> None:
        await write(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 1000\r\n\r\n" + b'{"error')
        raise ConnectionError

    async with RawServer(answer).running() as url, CloudApi() as api:
        assert isinstance(await failure(api.send(sender(url), TO, Text("Olá"), job_id=JOB)), Refused)


async def test_what_could_not_connect_was_not_sent(unused_tcp_port: int) -> None:
    async with CloudApi() as api:
        error = await failure(api.send(sender(f"http://127.0.0.1:{unused_tcp_port}"), TO, Text("Olá"), job_id=JOB))
    assert isinstance(error, Retryable)
    assert str(error) == "cannot connect to 127.0.0.1: ClientConnectorError"


async def test_connecting_for_too_long_is_not_sending() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:  # which says nothing to a TLS handshake
        url = f"https://127.0.0.1:{silent.getsockname()[1]}"
        async with CloudApi(timeout=0.4) as api:
            assert isinstance(await failure(api.send(sender(url), TO, Text("Olá"), job_id=JOB)), Retryable)


@pytest.mark.parametrize("place", ["message", "details"])
async def test_a_token_that_the_server_repeats_does_not_show(
    graph: Graph, api: CloudApi, place: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    own = "a token that looks like none"
    behaviours = [fails(401, 190, **{place: f"Bearer {TOKEN} and {own}: {'x' * 190}{TOKEN}"})] * 2
    graph.behaviours = [*behaviours, says(401, TOKEN.encode())]
    for token in (TOKEN, own, TOKEN):
        error = await failure(api.send(sender(graph.url, token=token), TO, Text("Olá"), job_id=JOB))
        assert token not in str(error)
        assert len(str(error)) <= 300
    assert TOKEN not in caplog.text
    assert TOKEN not in f"{sender(graph.url)} {sender(graph.url)!r} {pretty_repr(sender(graph.url))}"


@pytest.mark.parametrize(
    ("changes", "setting"),
    [
        ({"token": ""}, "whatsapp.access_token"),
        ({"token": "EAAGabcdef\r\nX-Evil: 1"}, "no header can carry"),
        ({"phone_number_id": ""}, "whatsapp.phone_number_id"),
        ({"phone_number_id": "1/../2"}, "whatsapp.phone_number_id"),
        ({"url": "graph.facebook.com"}, "whatsapp.graph_url"),
        ({"url": "http://[broken"}, "whatsapp.graph_url"),
        ({"url": "ftp://127.0.0.1"}, "whatsapp.graph_url"),
        ({"url": "http://user:password@127.0.0.1"}, "whatsapp.graph_url"),
    ],
)
async def test_a_sender_that_cannot_send_names_its_setting(
    graph: Graph, api: CloudApi, changes: dict[str, str], setting: str
) -> None:
    error = await failure(api.send(sender(graph.url, **changes), TO, Text("Olá"), job_id=JOB))
    assert isinstance(error, SenderPaused)
    assert setting in str(error)
    assert graph.headers == []


class Voice:
    """What reads a spoken reply."""

    def __init__(self, error: Exception | None = None) -> None:
        self.error = error

    async def __call__(self, address: str) -> bytes:
        assert address == ADDRESS
        if self.error:
            raise self.error
        return NOTE


def outgoing(**changes: Any) -> Outgoing:
    return Outgoing(**{"tenant": "", "to": TO, "text": "Olá"} | changes)


async def sent(graph: Graph, api: CloudApi, voice: Voice | None = None, **changes: Any) -> Any:
    """What of a message reaches WhatsApp: its type's part."""
    messenger: Messenger = WhatsApp(api, {"": sender(graph.url)}.get, voice)
    assert await messenger.send(JOB, outgoing(**changes), again=False) == WAMID
    message = graph.messages.pop()
    assert (message["to"], message["biz_opaque_callback_data"]) == (TO, JOB)
    return message["type"], message[message["type"]]


async def test_a_text_goes_out_as_a_text(graph: Graph, api: CloudApi) -> None:
    assert await sent(graph, api) == ("text", {"body": "Olá"})
    assert await sent(graph, api, text="x" * 4096) == ("text", {"body": "x" * 4096})
    assert await sent(graph, api, text="x" * 4097) == ("text", {"body": "x" * 4095 + "…"})


@pytest.mark.parametrize(
    ("url", "kind", "more"),
    [
        ("https://f.example/a.jpg", "image", {}),
        ("https://f.example/a.JPEG?signature=1#x", "image", {}),
        ("https://f.example/a.png", "image", {}),
        ("https://f.example/a.webp", "document", {"filename": "a.webp"}),
        (
            "https://f.example/pix/Comprovante%20n%C2%BA%201.pdf?x=a.png",
            "document",
            {"filename": "Comprovante nº 1.pdf"},
        ),
        ("https://f.example/cafe%CC%81.pdf", "document", {"filename": "café.pdf"}),
        ("https://f.example/a%2F..%2F%00b.pdf", "document", {"filename": "_b.pdf"}),
        (f"https://f.example/{'n' * 300}.pdf", "document", {"filename": "n" * 96 + ".pdf"}),
        ("https://f.example", "document", {"filename": "documento"}),
        ("https://f.example/..", "document", {"filename": "documento"}),
    ],
)
async def test_media_goes_out_as_what_whatsapp_takes_it_for(
    graph: Graph, api: CloudApi, url: str, kind: str, more: dict[str, str]
) -> None:
    assert await sent(graph, api, media_url=url) == (kind, {"link": url, "caption": "Olá"} | more)


async def test_an_address_that_is_none_is_refused(graph: Graph, api: CloudApi) -> None:
    with pytest.raises(Refused, match="media_url is no address"):
        await sent(graph, api, media_url="https://[f.example/a.png")


async def test_a_caption_has_no_more_than_whatsapp_takes(graph: Graph, api: CloudApi) -> None:
    _, image = await sent(graph, api, media_url="https://f.example/a.png", text="y" * 2000)
    assert image["caption"] == "y" * 1023 + "…"


async def test_a_template_says_the_text_in_one_line(graph: Graph, api: CloudApi) -> None:
    kind, template = await sent(
        graph,
        api,
        voice=Voice(),
        template=True,
        audio=ADDRESS,
        media_url="https://f.example/a.png",
        text="Olá!\n\n\tTudo    bem?",
    )
    assert (kind, template["name"], template["language"]) == ("template", "aviso", {"code": "pt_BR"})
    assert template["components"][0]["parameters"] == [{"type": "text", "text": "Olá! Tudo bem?"}]
    assert len(parameter("a b\n" * 1000)) <= 1024
    assert not re.search(r"[\n\t]| {4}", parameter("a \u2028 \v\n\r\n   b"))


async def test_without_a_template_there_is_none_to_send(graph: Graph, api: CloudApi) -> None:
    messenger = WhatsApp(api, lambda _: sender(graph.url, template=""))
    with pytest.raises(Refused, match=r"whatsapp\.template"):
        await messenger.send(JOB, outgoing(template=True), again=False)
    assert graph.headers == []


async def test_a_spoken_reply_goes_out_as_a_voice_note(graph: Graph, api: CloudApi) -> None:
    assert await sent(graph, api, Voice(), audio=ADDRESS) == ("audio", {"id": MEDIA_ID, "voice": True})
    assert graph.uploads[0]["file"] == ("audio.ogg", "audio/ogg; codecs=opus", NOTE)


@pytest.mark.parametrize("error", [RiachoError("gone"), FileNotFoundError("gone"), TimeoutError("gone")])
async def test_where_the_voice_note_is_gone_the_text_goes_out(
    graph: Graph, api: CloudApi, error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    assert await sent(graph, api, Voice(error), audio=ADDRESS) == ("text", {"body": "Olá"})
    assert f"job {JOB} sends its text alone, without its voice note: gone" in caplog.text
    assert await sent(graph, api, None, audio=ADDRESS) == ("text", {"body": "Olá"})


async def test_where_whatsapp_takes_no_such_note_the_text_goes_out(
    graph: Graph, api: CloudApi, caplog: pytest.LogCaptureFixture
) -> None:
    graph.behaviours = [fails(400, 100), accepts]
    assert await sent(graph, api, Voice(), audio=ADDRESS) == ("text", {"body": "Olá"})
    assert "WhatsApp takes no voice note: WhatsApp's error 100" in caplog.text


async def test_an_upload_that_may_go_through_later_is_left_for_another_try(graph: Graph, api: CloudApi) -> None:
    graph.behaviours = [hangs_up]
    with pytest.raises(Retryable):
        await sent(graph, api, Voice(), audio=ADDRESS)
    assert graph.messages == []


async def test_each_tenant_sends_with_its_own_token(graph: Graph, api: CloudApi) -> None:
    senders = {
        "": sender(graph.url),
        "shop": sender(graph.url, token="EAAown"),
        "none": sender(graph.url, token=""),
    }
    messenger = WhatsApp(api, senders.get)
    await messenger.send(JOB, outgoing(tenant="shop"), again=True)
    await messenger.send(JOB, outgoing(), again=False)
    assert [headers["Authorization"] for headers in graph.headers] == ["Bearer EAAown", f"Bearer {TOKEN}"]
    for tenant in ("none", "unknown"):
        with pytest.raises(SenderPaused, match=rf"'{tenant}'.*whatsapp\.access_token.*whatsapp\.senders"):
            await messenger.send(JOB, outgoing(tenant=tenant), again=False)
    assert len(graph.headers) == 2


@pytest.fixture
async def strict() -> AsyncIterator[meta.CloudApi]:
    """The stand-in; every call has been one that Meta takes."""
    async with meta.CloudApi() as strict:
        yield strict
        strict.assert_clean()


def at_meta(strict: meta.CloudApi, **changes: str) -> Sender:
    return sender(strict.url, **{"phone_number_id": meta.NUMBER, "token": meta.TOKEN} | changes)


@pytest.mark.parametrize("to", [TO, TO[1:], "BR.1502576394655843", "US.ENT.11815799212886844830"])
@pytest.mark.parametrize(
    ("changes", "kind"),
    [
        ({}, "text"),
        ({"text": "x" * 5000}, "text"),
        ({"media_url": "https://f.example/a.png", "text": "x" * 5000}, "image"),
        ({"media_url": f"https://f.example/{'%C3%A7' * 300}"}, "document"),
        ({"template": True, "text": " a \t\n" * 2000}, "template"),
        ({"audio": ADDRESS}, "audio"),
    ],
)
async def test_meta_takes_what_goes_out(
    strict: meta.CloudApi, api: CloudApi, changes: dict[str, Any], kind: str, to: str
) -> None:
    messenger = WhatsApp(api, {"": at_meta(strict)}.get, Voice())
    wamid = await messenger.send(JOB, outgoing(to=to, **changes), again=False)
    (message,) = strict.messages
    assert (message.id, message.type, message.job, message.recipient) == (wamid, kind, JOB, to.removeprefix("+"))


@pytest.mark.parametrize("code", ERRORS)
async def test_metas_errors_are_known_by_their_codes(strict: meta.CloudApi, api: CloudApi, code: int) -> None:
    strict.fail_next(TO[1:], [str(code)])
    error = await failure(api.send(at_meta(strict), TO, Text("Olá"), job_id=JOB))
    assert isinstance(error, NotSent)
    assert error.code == code
    assert ERRORS[code].title in str(error)


@pytest.mark.parametrize(
    ("fault", "kind", "went_out"),
    [
        ("http-500", OutcomeUnknown, 0),
        ("http-503", Retryable, 0),
        ("reset", OutcomeUnknown, 0),
        ("reset-after", OutcomeUnknown, 1),
        ("late", OutcomeUnknown, 1),
    ],
)
async def test_faults_are_told_apart(
    strict: meta.CloudApi, fault: str, kind: type[RiachoError], went_out: int
) -> None:
    strict.fail_next(TO[1:], [fault])
    async with CloudApi(timeout=1.0) as api:
        error = await failure(api.send(at_meta(strict), TO, Text("Olá"), job_id=JOB))
        assert type(error) is kind
        assert len(strict.messages) == went_out
        await api.send(at_meta(strict), TO, Text("Olá"), job_id=JOB)


async def test_a_token_that_meta_repeats_does_not_show(api: CloudApi) -> None:
    async with meta.CloudApi() as strict:  # which counts this as a violation
        error = await failure(api.send(at_meta(strict, token=TOKEN), TO, Text("Olá"), job_id=JOB))
        assert isinstance(error, SenderPaused)
        assert str(error) == "WhatsApp's error 190: Malformed access token ***: The access token cannot be used"
        error = await failure(api.send(at_meta(strict, phone_number_id="1"), TO, Text("Olá"), job_id=JOB))
        assert isinstance(error, SenderPaused)
