"""The HTTP service on a real server and a real socket: what it takes, and how it says no."""

import hashlib
import hmac
from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing
from typing import Any

import aiohttp
import msgspec
import pytest
from aiohttp.test_utils import TestClient, TestServer

from api.adapters import Adapters
from api.app import build_app
from api.demo import Said, event
from api.notifying import sender_of
from api.root import connector
from config import Secret, Settings, load, replaced
from config.settings import Sender
from pipeline import Broker, Job, Pipeline
from pipeline.message import Added, Delivery, Refusal, now_ms, unseal
from pipeline.outcome import Bury
from stages.jobs import Attachment, ProcessConversation, Receipt
from stages.notification.log import Notification
from tests.support import eventually, working

pytestmark = pytest.mark.integration

SECRET = "app-secret-for-tests"

Client = TestClient[Any, Any]


@pytest.fixture
def settings(server: str, namespace: str, tmp_path: Any) -> Settings:
    return replaced(
        load(environ={}),
        redis={"url": Secret(server), "namespace": namespace},
        data={"folder": tmp_path},
        http={"payload_limit": 200_000},
        whatsapp={"app_secret": Secret(SECRET), "verify_token": Secret("verify-me")},
    )


@pytest.fixture
async def broker(settings: Settings) -> AsyncIterator[Broker]:
    async with connector(settings, Adapters(settings).pipeline())() as broker:
        await broker.ensure_groups()
        yield broker


@pytest.fixture
async def client(broker: Broker, settings: Settings) -> AsyncIterator[Client]:
    adapters = Adapters(settings)
    app = build_app(broker, settings, adapters.notifications.log)
    async with aclosing(adapters.database), TestClient(TestServer(app)) as client:
        yield client


def signed(body: bytes, secret: str = SECRET) -> dict[str, str]:
    digest = hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()
    return {"X-Hub-Signature-256": f"sha256={digest}"}


async def post_event(client: Client, content: object) -> aiohttp.ClientResponse:
    body = msgspec.json.encode(content)
    return await client.post("/webhooks/whatsapp", data=body, headers=signed(body))


async def problem(answer: aiohttp.ClientResponse, status: int) -> str:
    """Check that an answer is a problem of this status; returns its detail."""
    assert answer.status == status, await answer.text()
    assert answer.content_type == "application/problem+json"
    body = await answer.json(content_type=None)
    assert set(body) == {"type", "title", "status", "detail"}
    assert body["status"] == status
    detail: str = body["detail"]
    return detail


async def fetched(broker: Broker, stage: str) -> list[Delivery]:
    return await broker.fetch(stage, 0, "test", 100, 10)


# ── the webhook ──────────────────────────────────────────────────────────────────────────────────


async def test_the_handshake_echoes_the_challenge_to_who_knows_the_token(client: Client) -> None:
    query = {"hub.mode": "subscribe", "hub.verify_token": "verify-me", "hub.challenge": "1158201444"}
    answer = await client.get("/webhooks/whatsapp", params=query)
    assert (answer.status, answer.content_type, await answer.text()) == (200, "text/plain", "1158201444")


@pytest.mark.parametrize(
    "change", [{"hub.verify_token": "guess"}, {"hub.mode": "unsubscribe"}, {"hub.verify_token": "ü"}]
)
async def test_the_handshake_refuses_anybody_else(client: Client, change: dict[str, str]) -> None:
    query = {"hub.mode": "subscribe", "hub.verify_token": "verify-me", "hub.challenge": "1"} | change
    await problem(await client.get("/webhooks/whatsapp", params=query), 403)


async def test_a_text_is_in_its_stream_when_the_answer_is_there(client: Client, broker: Broker) -> None:
    content = event(Said("5511987654321", text="Olá"))
    answer = await post_event(client, content)
    assert answer.status == 200
    body = await answer.json()
    assert (body["accepted"], body["duplicates"], body["ignored"]) == (1, 0, 0)
    (delivery,) = await fetched(broker, "process-conversation")
    assert [str(delivery.id)] == body["jobs"]
    envelope = unseal(delivery.body)
    assert (envelope.tenant, envelope.key) == ("106540352242922", "106540352242922:5511987654321")
    payload = msgspec.msgpack.decode(envelope.payload)
    assert (payload["text"], payload["message"]["chat"]) == ("Olá", "5511987654321")


@pytest.mark.parametrize(
    ("kind", "more", "text"),
    [
        ("image", {}, "[image]"),
        ("image", {"caption": "Segue o pix"}, "[image] Segue o pix"),
        ("document", {"filename": "pix.pdf", "caption": "Pedido 7"}, "[document: pix.pdf] Pedido 7"),
    ],
)
async def test_an_image_or_document_goes_to_the_conversation(
    client: Client, broker: Broker, kind: str, more: dict[str, str], text: str
) -> None:
    content = event(Said("5511987654321", text="Olá"))
    (message,) = content["entry"][0]["changes"][0]["value"]["messages"]
    message |= {"type": kind, "text": None, kind: {"id": "1234", "mime_type": "any/thing", **more}}
    assert (await (await post_event(client, content)).json())["accepted"] == 1
    (delivery,) = await fetched(broker, "process-conversation")
    payload = msgspec.msgpack.decode(unseal(delivery.body).payload, type=ProcessConversation)
    assert payload.text == text
    assert payload.attachment == Attachment("whatsapp:1234", kind, more.get("caption", ""))  # type: ignore[arg-type]


async def test_what_is_said_to_the_number_of_a_tenant_with_a_name_is_that_tenants(
    settings: Settings, broker: Broker
) -> None:
    senders = {"padaria": Sender(phone_number_id="106540352242922", access_token=Secret("EAAJ-own"))}
    settings = replaced(settings, whatsapp={"senders": senders})
    app = build_app(broker, settings, Adapters(settings).notifications.log)
    async with TestClient(TestServer(app)) as client:
        await post_event(client, event(Said("5511987654321", text="Olá")))
    (delivery,) = await fetched(broker, "process-conversation")
    tenant = unseal(delivery.body).tenant
    assert tenant == "padaria"
    assert sender_of(settings.whatsapp, tenant).token == "EAAJ-own"


async def test_a_voice_note_becomes_a_transcription_that_knows_its_chat(client: Client, broker: Broker) -> None:
    await post_event(client, event(Said("5511987654321", voice="obrigado.ogg")))
    (delivery,) = await fetched(broker, "transcribe")
    payload = msgspec.msgpack.decode(unseal(delivery.body).payload)
    assert payload["source"] == "whatsapp:obrigado"
    assert payload["message"]["chat"] == "5511987654321"


async def test_messages_of_an_event_keep_their_order_though_they_were_sent_in_the_same_second(
    client: Client, broker: Broker
) -> None:
    content = event(Said("5511987654321", text="Olá"))
    told = content["entry"][0]["changes"][0]["value"]["messages"]
    told[:] = [told[0] | {"id": id_} for id_ in "cab"]
    before = now_ms()
    await post_event(client, content)
    jobs = await fetched(broker, "process-conversation")
    said = [msgspec.msgpack.decode(unseal(job.body).payload)["message"] for job in jobs]
    assert [one["id"] for one in sorted(said, key=lambda one: one["received_ms"])] == ["c", "a", "b"]
    assert all(before <= one["received_ms"] <= now_ms() + 2 for one in said)


async def test_an_event_sent_again_adds_nothing_and_names_the_same_jobs(client: Client, broker: Broker) -> None:
    content = event(Said("5511987654321", text="Olá"))
    first = await (await post_event(client, content)).json()
    again = await (await post_event(client, content)).json()
    assert (again["accepted"], again["duplicates"], again["jobs"]) == (0, 1, first["jobs"])
    assert len(await fetched(broker, "process-conversation")) == 1


async def test_a_message_of_an_unknown_shape_does_not_take_its_neighbours_with_it(
    client: Client, broker: Broker
) -> None:
    content = event(Said("5511987654321", text="Olá"))
    messages = content["entry"][0]["changes"][0]["value"]["messages"]
    good = messages[0]
    messages[:] = [
        {"id": 7},
        good | {"id": "w6", "timestamp": "9" * 25},
        good | {"id": "w7", "text": {"body": "x" * 100_001}},
        good | {"id": "w2", "timestamp": "soon"},
        good | {"id": "w3", "type": "image", "text": None},
        good | {"id": "w4", "from": ""},
        good,
        {name: value for name, value in good.items() if name != "from"} | {"id": "w5", "user_id": "BR.123"},
    ]
    answer = await (await post_event(client, content)).json()
    assert (answer["accepted"], answer["ignored"]) == (2, 6)
    assert len(await fetched(broker, "process-conversation")) == 2


async def test_a_status_no_database_can_hold_does_not_take_its_neighbours_with_it(
    client: Client, broker: Broker
) -> None:
    good: dict[str, Any] = {"id": "wamid.1", "status": "failed", "timestamp": "1800000000"}
    odd: list[dict[str, Any]] = [
        {"id": "wamid.\0"},
        {"biz_opaque_callback_data": "\0"},
        {"errors": [{"code": 131026, "title": "\0"}]},
        {"errors": [{"code": 2**31}]},
        {"errors": [{"code": 10**30}]},
    ]
    change = {"field": "messages", "value": {"statuses": [*(good | each for each in odd), good]}}
    entry = {"id": "0", "changes": [change]}
    answer = await (await post_event(client, {"object": "whatsapp_business_account", "entry": [entry]})).json()
    assert (answer["accepted"], answer["ignored"]) == (1, 5)
    assert len(await fetched(broker, "receipt")) == 1


async def test_statuses_and_empty_events_are_taken_and_left_out(client: Client) -> None:
    change = {"field": "messages", "value": {"statuses": [{"id": "wamid.1", "status": "read"}]}}
    for entries in ([{"id": "0", "changes": [change]}], []):
        answer = await post_event(client, {"object": "whatsapp_business_account", "entry": entries})
        assert (answer.status, (await answer.json())["jobs"]) == (200, [])


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"X-Hub-Signature-256": "sha256="},
        {"X-Hub-Signature-256": "ü"},
        signed(b"another body"),
        signed(b"{}", "another secret"),
    ],
)
async def test_a_wrong_or_missing_signature_is_refused(client: Client, headers: dict[str, str]) -> None:
    assert "X-Hub-Signature-256" in await problem(
        await client.post("/webhooks/whatsapp", data=b"{}", headers=headers), 401
    )


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"not json",
        b"[]",
        b"{}",
        b'{"object": "page", "entry": []}',
        b'{"object": 1}',
        b'"\xff"',
        b'{"object": "\xff", "entry": []}',
        b'{"entry": ' + b"[" * 9_000,
    ],
)
async def test_what_is_no_webhook_is_refused(client: Client, body: bytes) -> None:
    await problem(await client.post("/webhooks/whatsapp", data=body, headers=signed(body)), 400)


async def test_without_a_configured_secret_nothing_is_taken_unsigned(broker: Broker, settings: Settings) -> None:
    bare = replaced(settings, whatsapp={"app_secret": Secret(""), "verify_token": Secret("")})
    async with TestClient(TestServer(build_app(broker, bare, Adapters(bare).notifications.log))) as client:
        detail = await problem(await client.post("/webhooks/whatsapp", data=b"{}", headers=signed(b"{}", "")), 503)
        assert "RIACHO_WHATSAPP_APP_SECRET" in detail
        await problem(await client.get("/webhooks/whatsapp?hub.mode=subscribe&hub.verify_token="), 503)


async def test_a_body_over_the_limit_is_refused(client: Client) -> None:
    body = b" " * 200_001
    for path in ("/webhooks/whatsapp", "/queue/audio/jobs"):
        assert "200,000" in await problem(await client.post(path, data=body, headers=signed(body)), 413)


# ── the queues ───────────────────────────────────────────────────────────────────────────────────

FAR_AWAY = {"message": {"chat": "55", "id": "w", "sent_ms": 10**30}, "text": "Olá"}
SEND = {"kind": "send-client", "payload": {"to": "5511987654321", "text": "Olá"}}


async def test_a_job_is_accepted_with_its_id_and_can_be_looked_at(client: Client) -> None:
    answer = await client.post("/queue/notification/jobs", json=SEND | {"tenant": "shop"})
    assert answer.status == 202
    job_id = (await answer.json())["jobId"]
    view = await (await client.get(f"/queue/job/notification/{job_id}")).json()
    assert (view["jobId"], view["state"], view["tenant"]) == (job_id, "waiting", "shop")


async def test_what_became_of_a_message_is_told_when_its_job_is_long_forgotten(
    client: Client, settings: Settings
) -> None:
    job = "send-client.0.1795363715263-0"
    known: dict[str, Any] = {"tenant": "shop", "kind": "send-client", "recipient": "+5511987654321"}
    known |= {"channel": "whatsapp", "payload": "", "created_ms": 5, "called_ms": 6, "calls": 2}
    adapters = Adapters(settings)
    async with adapters.database:
        log = adapters.notifications.log
        await log.record(Notification(job=job, **known))
        assert (await client.get(f"/queue/job/notification/{job}")).status == 404, "its job may still be there"
        await log.receive([Receipt("wamid.1", "read", 7, job)])
    view = await (await client.get(f"/queue/job/notification/{job}")).json()
    told = {"channel": "whatsapp", "state": "accepted", "attempts": 2, "messageId": "wamid.1"}
    assert view == {
        "jobId": job,
        "queue": "notification",
        "stage": "send-client",
        "state": "completed",
        "attempt": 2,
        "tenant": "shop",
        "enqueuedAt": 5,
        "delivery": told | {"status": "read", "statusAt": 7},
    }


async def test_asking_twice_under_one_id_is_one_job(client: Client) -> None:
    first, again = [
        await (await client.post("/queue/notification/jobs", json=SEND | {"id": "order-7"})).json()
        for _ in range(2)
    ]
    assert (first["jobId"], again["duplicate"]) == (again["jobId"], True)


async def test_a_list_is_answered_one_by_one(client: Client) -> None:
    bad_payload = SEND | {"payload": {"to": "55"}}
    answer = await client.post(
        "/queue/notification/jobs", json=[SEND, bad_payload, SEND | {"kind": "send-cleint"}]
    )
    assert answer.status == 202
    good, bad, unknown = await answer.json()
    assert good["jobId"]
    assert (bad["status"], unknown["status"]) == (400, 404)
    assert "did you mean 'send-client'" in unknown["detail"]


@pytest.mark.parametrize(
    ("path", "body", "status", "said"),
    [
        ("/queue/audoi/jobs", SEND, 404, "did you mean 'audio'"),
        ("/queue/audio/jobs", SEND, 404, "queue 'audio' has no kind 'send-client'"),
        ("/queue/notification/jobs", {"kind": "send-client"}, 400, "payload"),
        ("/queue/notification/jobs", SEND | {"payload": {"to": "55", "text": ""}}, 400, "$.text"),
        ("/queue/notification/jobs", SEND | {"payload": {"to": "55", "text": "x" * 4097}}, 400, "$.text"),
        ("/queue/notification/jobs", SEND | {"tennant": "x"}, 400, "tennant"),
        ("/queue/notification/jobs", SEND | {"tenant": "a\0b"}, 400, "$.tenant"),
        ("/queue/notification/jobs", SEND | {"delay": -0.5}, 400, "delay of -0.5 s for notification.send-client"),
        ("/queue/notification/jobs", SEND | {"delay": 4e7}, 400, "delay of 4e+07 s"),
        ("/queue/notification/jobs", SEND | {"delay": "soon"}, 400, "$.delay"),
        ("/queue/notification/jobs", [], 400, "list of 0 jobs"),
        ("/queue/notification/jobs", [{"kind": "x", "payload": {}}] * 501, 400, "list of 501 jobs"),
        ("/queue/notification/jobs", "send it", 400, "neither a job nor a list"),
        ("/queue/audio/jobs", {"kind": "process-conversation", "payload": FAR_AWAY}, 400, "$.message.sent_ms"),
    ],
)
async def test_a_job_that_cannot_be_taken_is_refused_with_the_reason(
    client: Client, path: str, body: object, status: int, said: str
) -> None:
    assert said in await problem(await client.post(path, json=body), status)


@pytest.mark.parametrize("body", [b"{", b'{"kind": "\xff"}', b"[" * 10_000])
async def test_text_that_is_no_json_is_refused(client: Client, body: bytes) -> None:
    await problem(await client.post("/queue/audio/jobs", data=body), 400)


async def test_a_body_that_cannot_be_unpacked_is_refused(client: Client) -> None:
    headers = {"Content-Encoding": "gzip"}
    await problem(await client.post("/queue/audio/jobs", data=b"no gzip", headers=headers), 400)


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/queue/job/audio/transcribe.0.1-0", 404),
        ("/queue/job/notification/transcribe.0.1-0", 404),
        ("/queue/job/audio/nonsense", 400),
        ("/queue/job/audio/transcribe.0.99999999999999999999-0", 400),
        ("/nothing/here", 404),
    ],
)
async def test_what_is_not_there_is_said_so(client: Client, path: str, status: int) -> None:
    await problem(await client.get(path), status)


async def test_another_method_is_refused_and_told_which_is_right(client: Client) -> None:
    answer = await client.delete("/queue/status")
    assert answer.headers["Allow"] == "GET,HEAD"
    await problem(answer, 405)


async def test_status_shows_every_queue_and_stage(client: Client) -> None:
    await client.post("/queue/notification/jobs", json=[SEND, SEND])
    queues = {queue["queue"]: queue for queue in (await (await client.get("/queue/status")).json())["queues"]}
    assert set(queues) == {"audio", "notification", "cleanup", "sync"}
    assert queues["notification"]["waiting"] == 2
    assert [stage["stage"] for stage in queues["audio"]["stages"]] == ["transcribe", "process-conversation"]


async def test_a_delayed_job_is_counted_and_shown_with_the_time_it_is_due(client: Client) -> None:
    before = now_ms()
    sent = await client.post("/queue/notification/jobs", json=[SEND | {"delay": 60}, SEND | {"delay": -1}, SEND])
    delayed, bad, plain = await sent.json()
    assert (bad["status"], "jobId" in plain) == (400, True), "its neighbours are taken"
    view = await (await client.get(f"/queue/job/notification/{delayed['jobId']}")).json()
    assert view["state"] == "delayed"
    assert 60_000 <= view["dueAt"] - before < 80_000
    queues = (await (await client.get("/queue/status")).json())["queues"]
    assert [(queue["waiting"], queue["delayed"]) for queue in queues] == [(0, 0), (1, 1), (0, 0), (0, 0)]


async def test_status_says_which_stages_are_paused_or_draining(client: Client, broker: Broker) -> None:
    await broker.pause([broker.pipeline.stage("transcribe")])
    await broker.drain([broker.pipeline.stage("send-client")])
    queues = (await (await client.get("/queue/status")).json())["queues"]
    stages = {stage["stage"]: stage for queue in queues for stage in queue["stages"]}
    assert [name for name, stage in stages.items() if stage["paused"]] == ["transcribe"]
    assert [name for name, stage in stages.items() if stage["draining"]] == ["send-client"]


async def test_a_full_stage_says_how_full_and_when_to_come_back(client: Client, broker: Broker) -> None:
    full = msgspec.structs.replace(broker.pipeline.stage("send-client"), high_water=1)
    broker.pipeline._stages["send-client"] = full
    answers = await (await client.post("/queue/notification/jobs", json=[SEND, SEND])).json()
    assert [answer.get("status") for answer in answers] == [None, 429]
    answer = await client.post("/queue/notification/jobs", json=SEND)
    assert answer.headers["Retry-After"] == "1"
    assert "notification.send-client holds 1 unfinished jobs" in await problem(answer, 429)


async def test_a_stage_that_is_drained_is_away_for_new_jobs(client: Client, broker: Broker) -> None:
    await client.post("/queue/notification/jobs", json=SEND)
    await broker.drain([broker.pipeline.stage("send-client")])
    answer = await client.post("/queue/notification/jobs", json=SEND)
    assert answer.headers["Retry-After"] == "1"
    assert "is being drained: it takes no new jobs and holds 1 unfinished jobs" in await problem(answer, 503)


async def test_a_server_short_of_memory_takes_nothing(settings: Settings) -> None:
    short = replaced(settings, redis={"memory_share": 1e-9})
    async with (
        connector(short, Adapters(short).pipeline())() as broker,
        TestClient(TestServer(build_app(broker, short, Adapters(short).notifications.log))) as client,
    ):
        answer = await client.post("/queue/notification/jobs", json=SEND)
        assert answer.headers["Retry-After"] == "1"
        assert "memory" in await problem(answer, 503)


async def test_a_refused_event_is_to_be_sent_again_after_the_longest_wait(
    client: Client, broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = event(Said("5511987654321", text="Olá"))
    messages = content["entry"][0]["changes"][0]["value"]["messages"]
    messages[:] = [messages[0] | {"id": f"w{n}"} for n in range(3)]

    async def refuse(jobs: Sequence[Job]) -> list[Added]:
        waits = [1.0, 4.2, 2.0]
        return [Added(None, refusal=Refusal("full", 7, wait)) for _, wait in zip(jobs, waits, strict=True)]

    monkeypatch.setattr(broker, "add", refuse)
    answer = await post_event(client, content)
    assert answer.headers["Retry-After"] == "5"
    assert "audio.process-conversation holds 7 unfinished jobs" in await problem(answer, 503)


@pytest.mark.parametrize(
    ("task", "body", "kept"),
    [
        ("tts-cache", b"", {}),
        ("conversations", b'{"tenant": "shop", "dry_run": true}', {"tenant": "shop", "dry_run": True}),
        ("logs", b'{"days": 3}', {"days": 3.0}),
        ("stats", b'{"day": "2026-02-28"}', {"day": "2026-02-28"}),
        ("health", b"{}", {}),
    ],
)
async def test_a_chore_is_taken_with_the_payload_in_its_body_or_none(
    client: Client, broker: Broker, task: str, body: bytes, kept: dict[str, Any]
) -> None:
    answer = await client.post(f"/queue/cleanup/{task}", data=body)
    assert answer.status == 202, await answer.text()
    (delivery,) = await fetched(broker, task)
    assert (await answer.json()) == {"jobId": str(delivery.id)}
    assert msgspec.msgpack.decode(unseal(delivery.body).payload) == kept


@pytest.mark.parametrize(
    ("task", "body", "status", "said"),
    [
        ("tts-cahce", b"", 404, "did you mean 'tts-cache'?"),
        ("send-client", b"", 404, "queue 'cleanup' has no kind 'send-client'"),
        ("logs", b'{"dryrun": true}', 400, "no field 'dryrun'; did you mean 'dry_run'?"),
        ("logs", b'{"days": 0}', 400, "$.days"),
        ("logs", b"[]", 400, "the body is no payload"),
        ("logs", b'{"tenant": "\xff"}', 400, "the body is no payload"),
        ("stats", b'{"day": "2026-02-30"}', 400, "day is out of range"),
        ("health", b'{"days": 3}', 400, "no field 'days'"),
    ],
)
async def test_a_chore_that_cannot_be_taken_is_refused_with_the_reason(
    client: Client, task: str, body: bytes, status: int, said: str
) -> None:
    assert said in await problem(await client.post(f"/queue/cleanup/{task}", data=body), status)


async def test_a_chore_is_refused_where_its_stage_takes_nothing(client: Client, broker: Broker) -> None:
    await broker.drain([broker.pipeline.stage("logs")])
    answer = await client.post("/queue/cleanup/logs")
    assert answer.headers["Retry-After"] == "1"
    assert "cleanup.logs is being drained" in await problem(answer, 503)


async def test_jobs_of_the_queue_cleanup_are_taken_as_those_of_any_other(client: Client) -> None:
    answer = await client.post("/queue/cleanup/jobs", json={"kind": "health", "payload": {}})
    assert (answer.status, (await answer.json())["jobId"][:7]) == (202, "health.")


async def test_a_dead_letter_is_put_back_to_work_once(client: Client, broker: Broker) -> None:
    dead = (await (await client.post("/queue/notification/jobs", json=SEND)).json())["jobId"]
    (delivery,) = await fetched(broker, "send-client")
    stage = broker.pipeline.stage("send-client")
    assert await broker.bury(stage, 0, "test", [(delivery, Bury("no such number"))]) == [True]
    answer = await client.post(f"/queue/retry/{dead}")
    assert answer.status == 202
    (again,) = await fetched(broker, "send-client")
    assert await answer.json() == {"jobId": str(again.id)}
    assert again.body == delivery.body
    detail = await problem(await client.post(f"/queue/retry/{dead}"), 404)
    assert detail == f"{dead} is not among the dead letters."


@pytest.mark.parametrize(
    ("job", "status", "said"),
    [
        ("send-client.0.1-0", 404, "not among the dead letters"),
        ("send-client.7.1-0", 404, "not among the dead letters"),
        ("send-cleint.0.1-0", 404, "did you mean 'send-client'?"),
        ("nonsense", 400, "is not a job id"),
    ],
)
async def test_what_is_no_dead_letter_is_not_put_back(client: Client, job: str, status: int, said: str) -> None:
    assert said in await problem(await client.post(f"/queue/retry/{job}"), status)


async def test_a_service_that_lives_and_can_work_says_both(client: Client) -> None:
    for path in ("/healthz", "/readyz"):
        assert (await client.get(path)).status == 200


async def test_a_service_with_workers_is_ready_once_every_stage_has_had_one(
    broker: Broker, settings: Settings
) -> None:
    app = build_app(broker, settings, Adapters(settings).notifications.log, with_workers=True)
    pipeline = Pipeline(msgspec.structs.replace(stage, prepare=None) for stage in broker.pipeline)
    connect = connector(settings, pipeline)
    *others, last = pipeline
    async with TestClient(TestServer(app)) as client, working(connect, Pipeline(others)):
        detail = f"No worker is ready yet for {last.name}."

        async def all_but_one() -> bool:
            return await problem(await client.get("/readyz"), 503) == detail

        async def ready() -> bool:
            return (await client.get("/readyz")).status == 200

        await eventually(all_but_one, what="all but one stage being worked")
        async with working(connect, Pipeline([last])):
            await eventually(ready, what="readiness")
        assert await ready(), "jobs can wait for a worker that is away"


async def test_a_service_whose_server_is_gone_is_alive_but_not_ready(settings: Settings, tmp_path: Any) -> None:
    gone = replaced(settings, redis={"url": Secret(f"unix://{tmp_path}/gone.sock")})
    async with (
        connector(gone, Adapters(gone).pipeline())() as broker,
        TestClient(TestServer(build_app(broker, gone, Adapters(gone).notifications.log))) as client,
    ):
        assert (await client.get("/healthz")).status == 200
        for answer in (
            await client.get("/readyz"),
            await client.get("/queue/status"),
            await client.post("/queue/notification/jobs", json=SEND),
            await post_event(client, event(Said("55", text="Olá"))),
        ):
            assert answer.headers["Retry-After"]
            assert str(tmp_path) not in await problem(answer, 503), "where the server is, is nobody's business"
