"""The stand-in for the Cloud API holds its callers to what Meta documents, and fails only as it is told to."""

import asyncio
import io
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import aiohttp
import msgspec
import pytest
from aiohttp import web

from api.signatures import sign
from tests.cloud_api import NUMBER, TOKEN, CloudApi, Config, Report, Statuses, Template, fetch_report, running
from tests.cloud_api.limits import SECOND, Bucket, Window
from tests.processes import stop
from tests.support import eventually, reached

pytestmark = pytest.mark.integration

TO = "5511987654321"
OGG = b"OggS" + bytes(24) + b"OpusHead" + bytes(100)


class Caller:
    """Calls one stand-in."""

    def __init__(self, session: aiohttp.ClientSession, url: str) -> None:
        self.session = session
        self.url = url

    async def post(
        self, body: Any, *, token: str = TOKEN, path: str = f"/v26.0/{NUMBER}/messages"
    ) -> tuple[int, Any]:
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        async with self.session.post(self.url + path, json=body, headers=headers) as answer:
            return answer.status, await answer.json() if answer.content_type == "application/json" else None

    async def text(self, body: str = "Olá", to: str = TO, **more: Any) -> tuple[int, Any]:
        return await self.post(text(body, to, **more))

    async def upload(self, content: bytes = OGG, mime: str = "audio/ogg", **fields: str) -> tuple[int, Any]:
        form = aiohttp.FormData()
        for name, value in ({"messaging_product": "whatsapp", "type": mime} | fields).items():
            form.add_field(name, value)
        form.add_field("file", io.BytesIO(content), filename="note", content_type=mime)
        headers = {"Authorization": f"Bearer {TOKEN}"}
        async with self.session.post(f"{self.url}/v26.0/{NUMBER}/media", data=form, headers=headers) as answer:
            return answer.status, await answer.json()


def text(body: str = "Olá", to: str = TO, **more: Any) -> dict[str, Any]:
    return {"messaging_product": "whatsapp", "to": to, "type": "text", "text": {"body": body}} | more


def of_type(kind: str, /, **part: Any) -> dict[str, Any]:
    return {"messaging_product": "whatsapp", "to": TO, "type": kind, kind: part}


def template(*values: str, name: str = "aviso", language: str = "pt_BR") -> dict[str, Any]:
    parameters = [{"type": "text", "text": value} for value in values]
    body = [{"type": "body", "parameters": parameters}]
    return of_type("template", name=name, language={"code": language}, components=body)


@asynccontextmanager
async def standing_in(**config: Any) -> AsyncIterator[tuple[CloudApi, Caller]]:
    async with CloudApi(Config(**config)) as api, aiohttp.ClientSession() as session:
        yield api, Caller(session, api.url)


def code(answer: tuple[int, Any]) -> tuple[int, int]:
    """HTTP status and Meta's code."""
    status, body = answer
    return status, body["error"]["code"]


async def test_a_text_is_accepted_and_kept() -> None:
    async with standing_in() as (api, caller):
        before = time.time_ns() // 1_000_000
        status, answer = await caller.text("Olá!", f"+{TO}", biz_opaque_callback_data="job-1")
        assert status == 200
        assert answer["contacts"] == [{"input": f"+{TO}", "wa_id": TO}]
        (message,) = api.messages
        assert answer["messages"] == [{"id": message.id, "message_status": "accepted"}]
        assert message.id.startswith("wamid.")
        assert (message.number, message.recipient, message.type, message.text) == (NUMBER, TO, "text", "Olá!")
        assert (message.job, message.failure) == ("job-1", 0)
        assert before <= message.at_ms <= before + 10_000
        assert api.delivered_to(TO) == [message]
        assert api.sends() == {"job-1": 1}
        api.assert_clean()


async def test_a_business_scoped_user_id_goes_into_recipient() -> None:
    async with standing_in() as (_, caller):
        body = text() | {"recipient": "BR.13491208655302741918"}
        status, answer = await caller.post({name: value for name, value in body.items() if name != "to"})
        assert status == 200
        assert answer["contacts"] == [{"input": "BR.13491208655302741918", "user_id": "BR.13491208655302741918"}]
        assert code(await caller.text(to="BR.13491208655302741918")) == (400, 100)


GOOD: list[dict[str, Any]] = [
    text("x" * 4096, recipient_type="individual", biz_opaque_callback_data="x" * 512),
    of_type("text", body="https://example.com", preview_url=True),
    template("um    dois"),
    of_type("template", name="sem_nada", language={"code": "en"}),
    of_type("image", link="https://example.com/a.jpg", caption="x" * 1024),
    of_type("document", link="https://example.com/a.pdf", filename="a.pdf", caption="Aqui"),
    of_type("audio", link="https://example.com/a.ogg", voice=True),
]


@pytest.mark.parametrize("body", GOOD, ids=lambda body: body["type"])
async def test_what_meta_documents_is_taken(body: dict[str, Any]) -> None:
    async with standing_in() as (api, caller):
        status, answer = await caller.post(body)
        assert status == 200, answer
        api.assert_clean()


BAD: dict[str, tuple[int, Any]] = {
    "no object": (100, []),
    "no product": (100, {"to": TO, "type": "text", "text": {"body": "a"}}),
    "another product": (100, text(messaging_product="messenger")),
    "a group": (100, text(recipient_type="group")),
    "nobody": (131008, {"messaging_product": "whatsapp", "type": "text", "text": {"body": "a"}}),
    "a number with spaces": (100, text(to="55 11 98765-4321")),
    "a line break in the number": (100, text(to=f"{TO}\n")),
    "an unknown field": (100, text(priority="high")),
    "an unknown field within": (100, of_type("text", body="a", format="bold")),
    "an empty text": (100, text("")),
    "a long text": (100, text("x" * 4097)),
    "long callback data": (100, text(biz_opaque_callback_data="x" * 513)),
    "an unknown type": (100, text(type="sms")),
    "another part": (131008, text(type="image")),
    "two parts": (100, text(image={"link": "https://example.com/a.jpg"})),
    "a part that is null": (100, text(image=None)),
    "a line break in a parameter": (132018, template("um\ndois")),
    "a tab in a parameter": (132018, template("um\tdois")),
    "five spaces in a parameter": (132018, template("um     dois")),
    "a long parameter": (100, template("x" * 1025)),
    "no language": (100, of_type("template", name="aviso")),
    "no source": (131009, of_type("image", caption="a")),
    "two sources": (131009, of_type("image", id="1", link="https://example.com/a.jpg")),
    "a local link": (100, of_type("image", link="file:///a.jpg")),
    "a long caption": (100, of_type("document", link="https://example.com/a", caption="x" * 1025)),
    "a caption for audio": (100, of_type("audio", link="https://example.com/a.ogg", caption="a")),
    "media that was not uploaded": (100, of_type("audio", id="123456789012345")),
}


@pytest.mark.parametrize("name", BAD)
async def test_a_malformed_message_is_refused_and_noted(name: str) -> None:
    expected, body = BAD[name]
    async with standing_in() as (api, caller):
        status, answer = await caller.post(body)
        error = answer["error"]
        assert (status, error["code"]) == (400, expected)
        assert set(error) == {"message", "type", "code", "error_data", "fbtrace_id"}
        assert set(error["error_data"]) == {"messaging_product", "details"}
        assert len(api.violations) == 1
        assert not api.messages
        with pytest.raises(AssertionError, match="1 calls"):
            api.assert_clean()


async def test_broken_json_and_forms_are_no_messages() -> None:
    async with standing_in() as (api, caller):
        url = f"{api.url}/v26.0/{NUMBER}/messages"
        for body, kind in ((b"{", "application/json"), (b"\xff", "application/json"), (b"a=b", "text/plain")):
            headers = {"Authorization": f"Bearer {TOKEN}", "Content-Type": kind}
            async with caller.session.post(url, data=body, headers=headers) as answer:
                assert answer.status == 400
        assert len(api.violations) == 3


async def test_only_the_numbers_own_token_is_taken_and_the_answer_repeats_another() -> None:
    async with standing_in(numbers={NUMBER: TOKEN, "2": "EAAother"}) as (api, caller):
        assert code(await caller.post(text(), token="")) == (401, 190)
        status, answer = await caller.post(text(), token="EAAother")
        assert status == 401
        assert answer["error"]["message"] == "Malformed access token EAAother"
        headers = {"Authorization": "Bearer EAAwrong"}
        async with caller.session.post(f"{api.url}/v26.0/{NUMBER}/messages", headers=headers) as refused:
            assert "EAAwrong" in refused.headers["WWW-Authenticate"]
        assert len(api.violations) == 3
        assert "EAA" not in "".join(api.violations)


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/v26.0/999/messages", 100),
        ("/v1.0/106540352242922/messages", 2500),
        ("/v26.0/106540352242922/message", 2500),
        ("/106540352242922/messages", 2500),
        ("/", 2500),
    ],
)
async def test_other_addresses_are_unknown(path: str, expected: int) -> None:
    async with standing_in() as (api, caller):
        status, answer = await caller.post(text(), path=path)
        assert (status, answer["error"]["code"]) == (400, expected)
        assert answer["error"].get("error_subcode") == (33 if expected == 100 else None)
        assert len(api.violations) == 1


async def test_templates_have_languages_and_so_many_parameters() -> None:
    async with standing_in(templates={"aviso": Template(parameters=1)}) as (api, caller):
        assert (await caller.post(template("Olá")))[0] == 200
        assert code(await caller.post(template("Olá", name="outro"))) == (404, 132001)
        assert code(await caller.post(template("Olá", language="en_US"))) == (404, 132001)
        assert code(await caller.post(template("Olá", "dois"))) == (400, 132000)
        assert [message.text for message in api.messages] == ["Olá"]
        assert len(api.violations) == 3


async def test_a_message_names_what_was_uploaded_for_its_number() -> None:
    async with standing_in(numbers={NUMBER: TOKEN, "2": TOKEN}) as (api, caller):
        status, answer = await caller.upload()
        assert status == 200
        sent = of_type("audio", id=answer["id"], voice=True)
        assert (await caller.post(sent))[0] == 200
        assert api.uploads[answer["id"]].content == OGG
        api.assert_clean()
        assert code(await caller.post(sent, path="/v26.0/2/messages")) == (400, 100)
        assert code(await caller.post(of_type("image", id=answer["id"]))) == (400, 100)


async def test_a_voice_message_is_ogg() -> None:
    async with standing_in() as (_, caller):
        _, answer = await caller.upload(b"ID3", "audio/mpeg")
        assert (await caller.post(of_type("audio", id=answer["id"])))[0] == 200
        assert code(await caller.post(of_type("audio", id=answer["id"], voice=True))) == (400, 131053)


@pytest.mark.parametrize(
    ("content", "mime", "fields"),
    [
        (OGG, "audio/wav", {}),
        (OGG, "audio/ogg", {"type": "audio/mpeg"}),
        (OGG, "audio/ogg", {"messaging_product": "messenger"}),
        (OGG, "audio/ogg", {"name": "note"}),
        (b"OggS vorbis", "audio/ogg", {}),
        (b"", "audio/aac", {}),
    ],
    ids=["kind", "another type", "product", "field", "codec", "empty"],
)
async def test_other_uploads_are_refused(content: bytes, mime: str, fields: dict[str, str]) -> None:
    async with standing_in() as (api, caller):
        assert code(await caller.upload(content, mime, **fields)) == (400, 100)
        assert len(api.violations) == 1
        assert not api.uploads


async def test_audio_has_up_to_16_mb() -> None:
    async with standing_in() as (_, caller):
        assert (await caller.upload(bytes(16 * 2**20), "audio/aac"))[0] == 200
        assert code(await caller.upload(bytes(16 * 2**20 + 1), "audio/aac")) == (400, 100)


async def test_an_upload_is_multipart() -> None:
    async with standing_in() as (api, caller):
        for kind in ("application/json", "multipart/form-data", "multipart/form-data; boundary=x"):
            headers = {"Authorization": f"Bearer {TOKEN}", "Content-Type": kind}
            url = f"{api.url}/v26.0/{NUMBER}/media"
            async with caller.session.post(url, data=b"{}", headers=headers) as answer:
                assert answer.status == 400, kind
        assert len(api.violations) == 3


def test_a_window_holds_for_every_second_not_only_for_those_of_the_clock() -> None:
    window = Window(3)
    assert [window.take(at * SECOND // 10) for at in (0, 8, 9, 9, 10, 11, 18)] == [
        True, True, True, False, True, False, True,
    ]  # fmt: skip


def test_a_bucket_has_its_burst_and_then_one_for_each_interval() -> None:
    bucket = Bucket(3, 6 * SECOND)

    def take(at: int) -> bool:
        room = bucket.has_room(at)
        if room:
            bucket.take(at)
        return room

    start = 100 * SECOND
    assert [take(start) for _ in range(4)] == [True, True, True, False]
    assert [take(start + 6 * SECOND - 1), take(start + 6 * SECOND), take(start + 6 * SECOND)] == [
        False,
        True,
        False,
    ]
    assert [take(start + 1000 * SECOND) for _ in range(4)] == [True, True, True, False]


async def test_a_caller_that_goes_away_half_way_breaks_no_rule() -> None:
    async with standing_in() as (api, caller):
        for path, kind in (("messages", "application/json"), ("media", "multipart/form-data; boundary=x")):
            _, writer = await asyncio.open_connection(*api.url.removeprefix("http://").split(":"))
            head = f"POST /v26.0/{NUMBER}/{path} HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {TOKEN}\r\n"
            writer.write(f"{head}Content-Type: {kind}\r\nContent-Length: 100\r\n\r\n--x".encode())
            await writer.drain()
            await caller.text()  # by when the half one is being read
            writer.transport.abort()
        await caller.text()
        api.assert_clean()
        assert api.answers == {"accepted": 3}


async def test_more_than_so_many_a_second_are_refused_and_noted() -> None:
    async with standing_in(per_second=5) as (api, caller):
        answers = await asyncio.gather(*(caller.text(to=f"55119000000{n:02}") for n in range(8)))
        assert Counter(status for status, _ in answers) == {200: 5, 429: 3}
        assert {code(answer) for answer in answers if answer[0] != 200} == {(429, 130429)}
        assert len(api.violations) == 3
        assert api.answers == {"accepted": 5, "130429": 3}


async def test_more_than_a_burst_to_one_recipient_are_refused_and_noted() -> None:
    async with standing_in(pair_burst=2, pair_every=1.0) as (api, caller):
        assert [(await caller.text())[0] for _ in range(2)] == [200, 200]
        assert code(await caller.text()) == (400, 131056)
        assert (await caller.text(to="5511900000000"))[0] == 200

        async def again() -> bool:
            return (await caller.text())[0] == 200

        await eventually(again)
        assert len(api.delivered_to(TO)) == 3


async def test_outside_the_window_only_a_template_goes_out() -> None:
    async with standing_in(outside_window=frozenset({TO})) as (api, caller):
        assert code(await caller.text()) == (400, 131047)
        assert (await caller.post(template("Olá")))[0] == 200
        api.outside_window.clear()
        assert (await caller.text())[0] == 200
        api.assert_clean()


async def test_some_recipients_get_nothing_and_some_numbers_may_not_send() -> None:
    paused = {"2": 131042, "3": 368, "4": 131031, "5": 190}
    numbers = dict.fromkeys([NUMBER, *paused], TOKEN)
    async with standing_in(refused={TO: 131026}, paused=paused, numbers=numbers) as (api, caller):
        assert code(await caller.text()) == (400, 131026)
        for number, expected in (("2", (400, 131042)), ("3", (403, 368)), ("4", (403, 131031)), ("5", (401, 190))):
            assert code(await caller.post(text(), path=f"/v26.0/{number}/messages")) == expected
        api.paused.clear()
        assert (await caller.post(text(to="5511900000000"), path="/v26.0/5/messages"))[0] == 200
        api.assert_clean()


async def test_scripted_faults_come_one_after_the_other() -> None:
    async with standing_in() as (api, caller):
        api.fail_next(TO, ["131000", "131016", "2", "http-500", "http-503", "130429"])
        statuses = [(await caller.text())[0] for _ in range(7)]
        assert statuses == [500, 500, 503, 500, 503, 429, 200]
        assert len(api.messages) == 1
        api.assert_clean()
        with pytest.raises(ValueError, match="99999"):
            api.fail_next(TO, ["99999"])


async def test_a_reset_may_come_before_the_message_went_out_or_after() -> None:
    async with standing_in(scripted={TO: ("reset",)}) as (api, caller):
        with pytest.raises(aiohttp.ClientConnectionError):
            await caller.text("um")
        assert not api.messages
        api.fail_next(TO, ["reset-after"])
        with pytest.raises(aiohttp.ClientConnectionError):
            await caller.text("dois")
        assert [message.text for message in api.messages] == ["dois"]


async def test_an_answer_may_come_too_late_and_holds_up_nobody() -> None:
    async with standing_in() as (api, caller):
        api.fail_next(TO, ["late"])
        waiting = asyncio.create_task(caller.text("um"))
        await reached(lambda: api.messages)
        assert (await caller.text("dois"))[0] == 200
        assert not waiting.done()
        waiting.cancel()


async def test_uploads_fail_too() -> None:
    async with standing_in(scripted={"media": ("131016",)}) as (_, caller):
        assert code(await caller.upload()) == (500, 131016)
        assert (await caller.upload())[0] == 200


async def test_which_messages_fail_depends_on_the_seed_and_not_on_the_order() -> None:
    async def failing(seed: int, order: range) -> set[int]:
        async with standing_in(seed=seed, faults={"131000": 0.2, "http-503": 0.1}, per_second=1000) as (_, caller):
            return {n for n in order if (await caller.text(f"{n}", f"55119{n:08}"))[0] != 200}

    first = await failing(1, range(200))
    assert 40 <= len(first) <= 80
    assert await failing(1, range(199, -1, -1)) == first
    assert await failing(2, range(200)) != first


async def test_a_message_is_hit_so_often_and_then_gets_through() -> None:
    async with standing_in(faults={"131016": 1.0}, in_a_row=2) as (api, caller):
        assert [(await caller.text())[0] for _ in range(6)] == [500, 500, 200, 500, 500, 200]
        api.assert_clean()


async def test_answers_take_their_time() -> None:
    async with standing_in(latency=0.1) as (_, caller):
        start = time.monotonic()
        await caller.text()
        assert time.monotonic() - start >= 0.1


class Webhook:
    """Takes events, and refuses the first `refusals`."""

    def __init__(self, refusals: int = 0) -> None:
        self.events: list[dict[str, Any]] = []
        self.refusals = refusals
        self.refused = 0

    async def serve(self, request: web.BaseRequest) -> web.Response:
        body = await request.read()
        assert request.headers["X-Hub-Signature-256"] == sign(body, "hush")
        if self.refused < self.refusals:
            self.refused += 1
            return web.Response(status=503)
        self.events.append(msgspec.json.decode(body))
        return web.Response()

    def statuses(self) -> list[dict[str, Any]]:
        return [status for change in self.changes() for status in change["value"]["statuses"]]

    def changes(self) -> list[dict[str, Any]]:
        return [change for event in self.events for entry in event["entry"] for change in entry["changes"]]


@asynccontextmanager
async def telling(
    webhook: Webhook, statuses: dict[str, Any], **config: Any
) -> AsyncIterator[tuple[CloudApi, Caller]]:
    """A stand-in that tells this webhook."""
    async with AsyncExitStack() as stack:
        runner = web.ServerRunner(web.Server(webhook.serve))
        await runner.setup()
        stack.push_async_callback(runner.cleanup)
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        url = f"http://127.0.0.1:{runner.addresses[0][1]}/webhooks/whatsapp"
        told = Statuses(url=url, app_secret="hush", **statuses)
        yield await stack.enter_async_context(standing_in(statuses=told, **config))


def all_told(api: CloudApi) -> Callable[[], bool]:
    return lambda: bool(api.messages) and not api.untold


async def test_the_webhook_is_told_of_each_message_in_metas_envelope() -> None:
    webhook = Webhook()
    async with telling(webhook, {"read": 1.0}) as (api, caller):
        await caller.text(biz_opaque_callback_data="job-1")
        await reached(all_told(api))
        (event,) = webhook.events
        assert event["object"] == "whatsapp_business_account"
        (change,) = webhook.changes()
        assert change["field"] == "messages"
        assert change["value"]["messaging_product"] == "whatsapp"
        assert change["value"]["metadata"]["phone_number_id"] == NUMBER
        statuses = webhook.statuses()
        assert [status["status"] for status in statuses] == ["sent", "delivered", "read"]
        for status in statuses:
            assert status["id"] == api.messages[0].id
            assert status["recipient_id"] == TO
            assert status["biz_opaque_callback_data"] == "job-1"
            assert abs(int(status["timestamp"]) - time.time()) < 30


async def test_an_event_has_a_change_for_each_number_and_may_tell_of_a_user_id() -> None:
    webhook = Webhook()
    numbers = {NUMBER: TOKEN, "2": TOKEN}
    async with telling(webhook, {"batch": 0.3}, numbers=numbers) as (api, caller):
        await caller.text()
        await reached(all_told(api))  # so the next event is a while off
        to_user = {name: value for name, value in text().items() if name != "to"} | {"recipient": "BR.1a"}
        await asyncio.gather(caller.text(), caller.post(to_user, path="/v26.0/2/messages"))
        await reached(all_told(api))
        first, second = webhook.events
        assert len(first["entry"][0]["changes"]) == 1
        values = [change["value"] for change in second["entry"][0]["changes"]]
        changes = {value["metadata"]["phone_number_id"]: value for value in values}
        assert {status["recipient_id"] for status in changes[NUMBER]["statuses"]} == {TO}
        assert {status["recipient_user_id"] for status in changes["2"]["statuses"]} == {"BR.1a"}


async def test_a_voice_note_is_played() -> None:
    webhook = Webhook()
    async with telling(webhook, {"read": 1.0}) as (api, caller):
        await caller.post(of_type("audio", link="https://example.com/a.ogg"))
        await reached(all_told(api))
        assert [status["status"] for status in webhook.statuses()] == ["sent", "delivered", "played"]


async def test_a_message_may_be_accepted_and_fail_later() -> None:
    webhook = Webhook()
    config = {"later": True, "outside_window": frozenset({TO}), "refused": {"5511900000000": 131026}}
    async with telling(webhook, {}, **config) as (api, caller):
        assert (await caller.text())[0] == 200
        assert (await caller.text(to="5511900000000"))[0] == 200
        await reached(all_told(api))
        failed = {status["recipient_id"]: status for status in webhook.statuses()}
        assert {status["status"] for status in failed.values()} == {"failed"}
        assert failed[TO]["errors"][0]["code"] == 131047
        assert failed["5511900000000"]["errors"][0]["code"] == 131026
        assert set(failed[TO]["errors"][0]) == {"code", "title", "message", "error_data", "href"}
        assert api.delivered_to(TO) == []
        assert not api.sends()


async def test_a_message_whose_sender_was_not_told_is_told_to_the_webhook() -> None:
    webhook = Webhook()
    async with telling(webhook, {}, scripted={TO: ("reset-after",)}) as (api, caller):
        with pytest.raises(aiohttp.ClientConnectionError):
            await caller.text(biz_opaque_callback_data="job-1")
        await reached(all_told(api))
        assert {status["biz_opaque_callback_data"] for status in webhook.statuses()} == {"job-1"}


@pytest.mark.parametrize("mixed", [{"shuffle": True}, {"spread": 0.1}], ids=["shuffle", "spread"])
async def test_statuses_come_together_mixed_and_some_of_them_twice(mixed: dict[str, Any]) -> None:
    webhook = Webhook()
    async with telling(webhook, {"twice": 0.5, "most": 20, "batch": 0.2} | mixed) as (api, caller):
        await asyncio.gather(*(caller.text(to=f"55119000000{n:02}") for n in range(30)))
        await reached(all_told(api))
        seen = Counter((status["id"], status["status"]) for status in webhook.statuses())
        assert len(seen) == 60
        assert set(seen.values()) == {1, 2}
        sizes = [len(change["value"]["statuses"]) for change in webhook.changes()]
        assert max(sizes) <= 20
        assert len(sizes) < 20
        order: dict[str, list[str]] = {}
        for status in webhook.statuses():
            order.setdefault(status["id"], []).append(status["status"])
        assert any(statuses[0] == "delivered" for statuses in order.values())


async def test_an_event_comes_again_until_it_is_taken() -> None:
    webhook = Webhook(refusals=2)
    async with telling(webhook, {"again": 0.05}) as (api, caller):
        await caller.text()
        await reached(all_told(api))
        assert webhook.refused == 2
        assert len(webhook.statuses()) == 2


async def test_statuses_can_be_delayed() -> None:
    webhook = Webhook()
    async with telling(webhook, {"delay": 0.3}) as (api, caller):
        start = time.monotonic()
        await caller.text()
        await reached(all_told(api))
        assert time.monotonic() - start >= 0.3


async def test_as_a_process_it_reports_the_same_and_ends_on_a_signal() -> None:
    config = Config(per_second=10_000, pair_burst=10_000, seed=3, faults={"131000": 0.1})
    with running(config) as (url, process):
        async with aiohttp.ClientSession() as session:
            caller = Caller(session, url)
            for n in range(50):
                await caller.text(to=f"55119{n:08}", biz_opaque_callback_data=f"job-{n}")
            await caller.text("")
            report = await fetch_report(session, url)
        assert len(report.messages) == report.answers["accepted"] == 50 - report.answers["131000"]
        assert len(report.violations) == 1
        assert report.sends()["job-0"] <= 1
        assert await asyncio.to_thread(stop, process) == 0


async def test_a_long_report_comes_in_pages() -> None:
    async with standing_in(per_second=100_000, pair_burst=100_000) as (api, caller):
        await caller.text()
        api.messages *= 12_000
        report: Report = await fetch_report(caller.session, api.url)
        assert report.messages == api.messages
