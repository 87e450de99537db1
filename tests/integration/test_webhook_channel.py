"""The generic webhook: what a receiver gets, and what its answers become. The receiver checks every signature."""

import asyncio
import traceback
from collections.abc import AsyncIterator, Iterator

import msgspec
import pytest
from aiohttp import web

from stages.notification.errors import NotSent, Refused, Retryable
from stages.notification.webhook import SignedWebhook, WebhookUnusable
from tests.mail import HIDDEN, SECRET, Receiver

pytestmark = pytest.mark.integration


class Said(msgspec.Struct):
    text: str


@pytest.fixture(autouse=True)
def nothing_secret_in_logs(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    caplog.set_level("DEBUG")
    yield
    ours = [record for record in caplog.records if record.name != "aiohttp.access"]  # that is the receiver's
    logged = " ".join(record.getMessage() for record in ours)
    assert not any(secret in logged for secret in (SECRET, HIDDEN))


@pytest.fixture
def receiver() -> Receiver:
    return Receiver()


@pytest.fixture
async def webhook(receiver: Receiver) -> AsyncIterator[SignedWebhook]:
    async with receiver.running() as url, SignedWebhook(url, SECRET, 5.0) as made:
        yield made


async def refusal(webhook: SignedWebhook, kind: type[NotSent]) -> NotSent:
    """How an event is refused, saying nothing that it must not."""
    with pytest.raises(NotSent) as caught:
        await webhook.post("fallback", Said("olá"), id="fallback.0.1-0")
    assert type(caught.value) is kind
    shown = "".join(traceback.format_exception(caught.value))
    assert not any(secret in shown for secret in (SECRET, HIDDEN))
    assert "127.0.0.1" in str(caught.value)
    return caught.value


async def test_an_event_arrives_signed_under_its_id(webhook: SignedWebhook, receiver: Receiver) -> None:
    for body in (Said("olá 👋"), {"text": "olá 👋"}):
        assert await webhook.post("fallback", body, id="fallback.0.1-0") == "fallback.0.1-0"
    assert receiver.events == [{"event": "fallback", "id": "fallback.0.1-0", "data": {"text": "olá 👋"}}] * 2
    for request in receiver.requests:
        assert (request.method, request.query["key"]) == ("POST", HIDDEN)
        assert request.headers["Content-Type"] == "application/json"
        assert request.headers["Idempotency-Key"] == "fallback.0.1-0"


async def test_a_receiver_with_another_secret_does_not_take_it(receiver: Receiver) -> None:
    async with receiver.running() as url, SignedWebhook(url, "another", 5.0) as webhook:
        await refusal(webhook, Retryable)  # the receiver's own check fails: 500
    assert receiver.events == []


@pytest.mark.parametrize("status", [200, 201, 202, 204, 299])
async def test_any_success_is_one(webhook: SignedWebhook, receiver: Receiver, status: int) -> None:
    receiver.status = status
    assert await webhook.post("alert", {}, id="1")


@pytest.mark.parametrize("status", [408, 425, 429, 500, 502, 503, 599])
async def test_what_passes_is_tried_again(webhook: SignedWebhook, receiver: Receiver, status: int) -> None:
    receiver.status = status
    assert (await refusal(webhook, Retryable)).code == status


@pytest.mark.parametrize("status", [301, 302, 307, 308, 304, 400, 401, 404, 410, 422])
async def test_what_does_not_pass_is_refused_and_no_redirect_followed(
    webhook: SignedWebhook, receiver: Receiver, status: int
) -> None:
    receiver.status = status
    assert (await refusal(webhook, Refused)).code == status
    assert len(receiver.requests) == 1


async def test_a_receiver_that_is_away_is_tried_again(receiver: Receiver) -> None:
    async with receiver.running() as url:
        pass
    async with SignedWebhook(url, SECRET, 5.0) as webhook:
        assert "failed (ClientConnectorError)" in str(await refusal(webhook, Retryable))


async def test_a_receiver_that_hangs_up_is_tried_again(webhook: SignedWebhook, receiver: Receiver) -> None:
    async def hang_up(request: web.Request) -> web.Response:
        assert request.transport
        request.transport.abort()
        return web.Response()

    receiver.answer = hang_up
    await refusal(webhook, Retryable)


async def test_a_receiver_that_stalls_is_left(receiver: Receiver) -> None:
    async def stall(_: web.Request) -> web.Response:
        await asyncio.Event().wait()
        return web.Response()

    receiver.answer = stall
    async with receiver.running() as url, SignedWebhook(url, SECRET, 0.2) as webhook:
        assert "took longer than 0.2 s" in str(await refusal(webhook, Retryable))


async def test_an_answer_without_end_is_not_waited_for(webhook: SignedWebhook, receiver: Receiver) -> None:
    gone = asyncio.Event()

    async def endless(request: web.Request) -> web.StreamResponse:
        answer = web.StreamResponse()
        await answer.prepare(request)
        try:
            while True:
                await answer.write(b"x" * 65_536)
        except (ConnectionError, asyncio.CancelledError):
            gone.set()
            raise

    receiver.answer = endless
    assert await webhook.post("alert", {}, id="1")
    await asyncio.wait_for(gone.wait(), 10)


@pytest.mark.parametrize("url", ["", "ftp://x/y", "//host/path", "http://", "http://[::1", "hush-hush"])
def test_an_address_that_is_none_names_the_setting_and_not_itself(url: str) -> None:
    with pytest.raises(WebhookUnusable, match=r"fallback\.url") as caught:
        SignedWebhook(url, SECRET, 5.0)
    assert "hush" not in str(caught.value)


def test_a_webhook_without_a_secret_names_the_setting() -> None:
    with pytest.raises(WebhookUnusable, match=r"fallback\.secret \(RIACHO_FALLBACK_SECRET\)"):
        SignedWebhook("http://127.0.0.1/", "", 5.0)
