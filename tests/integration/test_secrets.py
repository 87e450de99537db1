"""No secret shows itself, whatever goes wrong: not in logs, spans, Redis, the database, answers, mails, `repr`."""

import base64
import logging
import ssl
import traceback
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote, quote_plus

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from redis.asyncio import Redis

from api.adapters import Adapters
from api.notifying import NotifyingUnusable
from config import Settings, SettingsError, load
from stages.notification.alerts import alerts
from stages.notification.log import notifications, senders
from tests.cloud_api import NUMBER, Config
from tests.desk import OTHER_NUMBER, PHARMACY, Desk, phone, settings_of, to_client, working_desk
from tests.mail import Mailbox, certificate
from tests.support import eventually, reached

pytestmark = pytest.mark.integration

# None of them looks like a token of Meta's: what hides them has to know them.
TOKEN = "tok+default/Zq9=one"
SHOP_TOKEN = "tok+shop/Wv7=two"
APP_SECRET = "app+secret/Rt5=three"
VERIFY_TOKEN = "verify+me/Uj3=four"
PASSWORD = "pass+word/Ik1=five"
SIGNING = "signing+key/Ol8=six"
HIDDEN = "hidden-path-Pm6-seven"
PREVIOUS_SECRET = "previous+secret/Nb9=eight"
SHOP_SECRET = "shop+secret/Vc2=nine"
SECRETS = (TOKEN, SHOP_TOKEN, APP_SECRET, VERIFY_TOKEN, PASSWORD, SIGNING, HIDDEN, PREVIOUS_SECRET, SHOP_SECRET)

THEIRS = ("aiohttp.access", "mail.log")  # the logs of the servers that this test has in others' places


def forms(secret: str) -> Iterator[str]:
    """A secret as it is, as in an address, and in Base64 wherever it begins there."""
    yield from (secret, quote(secret, safe=""), quote_plus(secret))
    for before, cut in ((0, 0), (1, 2), (2, 3)):
        for encode in (base64.b64encode, base64.urlsafe_b64encode):
            yield encode(b"\0" * before + secret.encode()).decode().rstrip("=")[cut:-2]


def shown_in(text: str) -> list[str]:
    """The secrets that a text shows."""
    return [secret for secret in SECRETS if any(form in text for form in forms(secret))]


@pytest.fixture(autouse=True)
def everything_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG")


def logged(caplog: pytest.LogCaptureFixture) -> str:
    form = logging.Formatter("%(name)s %(message)s")
    ours = [record for record in caplog.records if record.name not in THEIRS]
    return "\n".join(f"{form.format(record)} {record.args}" for record in ours)


async def in_redis(redis: "Redis", namespace: str) -> str:
    """All values of all keys."""

    async def gone(_: bytes) -> None: ...

    reads: dict[Any, Any] = {
        b"none": gone,  # it has expired since we listed it
        b"string": redis.get,
        b"hash": redis.hgetall,
        b"set": redis.smembers,
        b"zset": lambda key: redis.zrange(key, 0, -1),
        b"list": lambda key: redis.lrange(key, 0, -1),
        b"stream": redis.xrange,
    }
    keys = [key async for key in redis.scan_iter(f"*{namespace}*")]
    assert keys
    return "\n".join([f"{key!r} {await reads[await redis.type(key)](key)!r}" for key in keys])


def on_disk(folder: Path) -> str:
    """All that our processes wrote: the database with what was deleted there, its journal, the outbox."""
    return "\n".join(path.read_bytes().decode("latin-1") for path in folder.rglob("*") if path.is_file())


def of_parts(adapters: Adapters, settings: Settings) -> str:
    made = adapters.notifications
    parts = made.parts
    sender = [made._sender(tenant) for tenant in ("", PHARMACY)]
    inner = [parts.email, parts.webhook, parts.messenger, *parts.alert_channels, adapters.source, sender]
    return repr((settings, adapters, made, parts, inner)) + str(settings)


class Hook:
    """A webhook that repeats in its answer all that it was told, and where."""

    def __init__(self, status: int) -> None:
        self.status = status
        self.said = ""

    async def _take(self, request: web.Request) -> web.Response:
        self.said = f"{request.url} {SIGNING} {dict(request.headers)}"
        return web.Response(status=self.status, reason=f"No, {HIDDEN}", text=self.said, headers={"X-Key": SIGNING})

    @asynccontextmanager
    async def running(self) -> AsyncIterator[str]:
        application = web.Application()
        application.router.add_post("/{path:.*}", self._take)
        async with TestServer(application) as server:
            yield str(server.make_url(f"/{HIDDEN}?key={HIDDEN}"))


@pytest.fixture
def trusted(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> ssl.SSLContext:
    context, public = certificate(tmp_path_factory.mktemp("tls"))
    monkeypatch.setenv("SSL_CERT_FILE", str(public))
    return context


def secret_settings(server: str, namespace: str, folder: Path, hook: str) -> Settings:
    return settings_of(
        server,
        namespace,
        folder,
        whatsapp={
            "app_secret": APP_SECRET,
            "previous_app_secret": PREVIOUS_SECRET,
            "verify_token": VERIFY_TOKEN,
            "access_token": TOKEN,
            "phone_number_id": NUMBER,
            "senders": {PHARMACY: {"phone_number_id": OTHER_NUMBER, "access_token": SHOP_TOKEN}},
        },
        email={"security": "starttls", "user": "riacho", "password": PASSWORD},
        fallback={"url": hook, "secret": SIGNING},
        alerts={"to": [hook], "every": 0.2},
    )


async def wrong_calls(desk: Desk) -> str:
    """What somebody gets to see who knows nothing."""
    answers = [
        await desk.client.get("/webhooks/whatsapp", params={"hub.mode": "subscribe", "hub.verify_token": "x"}),
        await desk.client.post("/webhooks/whatsapp", data=b"{}", headers={"X-Hub-Signature-256": "sha256=00"}),
        await desk.client.post("/webhooks/whatsapp", data=b"{}"),
        await desk.client.post("/queue/notification/jobs", json=to_client("nobody")),
        await desk.client.get("/nothing/here"),
    ]
    assert [answer.status for answer in answers] == [403, 401, 401, 400, 404]
    return "\n".join([f"{answer.headers} {await answer.text()}" for answer in answers])


async def in_records(desk: Desk, jobs: list[str]) -> str:
    """What is shown of jobs, dead letters and the log."""
    views = [await desk.view(job) for job in jobs]
    letters = [letter async for letter in desk.broker.dead_letters(list(desk.broker.pipeline))]
    assert {letter.job_id.partition(".")[0] for letter in letters} == {"send-client", "fallback"}
    rows = [[dict(row) for row in await desk.rows(table)] for table in (notifications, senders, alerts)]
    assert all(rows)
    return repr((views, letters, rows))


async def worst_day(desk: Desk) -> list[str]:
    """Both tokens refused, by answers that repeat them; then a message that nobody takes. The jobs."""
    jobs = [
        *await desk.enqueue(to_client(phone(1), tenant="")),
        *await desk.enqueue(to_client(phone(2), tenant=PHARMACY)),
    ]
    await reached(lambda: desk.api.answers["190"] >= 4, what="both tokens being refused, again and again")
    desk.api.paused.pop(NUMBER)
    desk.api.fail_next(phone(3), ["131000", "http-500", "reset", "131026"])
    jobs += await desk.enqueue(to_client(phone(3), tenant=""))

    async def given_up() -> bool:
        return await desk.dead() >= 2

    await eventually(given_up, what="message and fallback ending among the dead letters")
    await desk.until(jobs[0], status="delivered")
    return jobs


@pytest.mark.parametrize("hook", [500, 403, 307, 0])
async def test_no_secret_shows_itself_on_the_worst_of_days(
    hook: int,
    server: str,
    namespace: str,
    redis: "Redis",
    trusted: ssl.SSLContext,
    spans: InMemorySpanExporter,
    caplog: pytest.LogCaptureFixture,
    tmp_path: Path,
) -> None:
    receiver, mailbox = Hook(hook), Mailbox()
    mailbox.answers["AUTH"] = f"535 5.7.8 the password {PASSWORD} is wrong"
    config = Config(numbers={NUMBER: TOKEN, OTHER_NUMBER: SHOP_TOKEN}, paused={NUMBER: 190, OTHER_NUMBER: 190})
    async with receiver.running() as url:
        settings = secret_settings(
            server, namespace, tmp_path, url if hook else f"http://127.0.0.1:1/{HIDDEN}?key={HIDDEN}"
        )
        async with working_desk(settings, config, mailbox=mailbox, starttls=trusted) as desk:
            jobs = await worst_day(desk)
            await reached(lambda: "an alert did not go out" in caplog.text, what="an alert failing")
            places = {
                "answers": await wrong_calls(desk),
                "records": await in_records(desk, jobs),
                "redis": await in_redis(redis, namespace),
                "repr": of_parts(desk.adapters, settings),
            }
            desk.api.assert_clean()
    places |= {
        "logs": logged(caplog),
        "spans": "\n".join(span.to_json() for span in spans.get_finished_spans()),
        "disk": on_disk(tmp_path),
        "mails": repr(mailbox.contents),
    }
    assert {place: shown_in(text) for place, text in places.items() if shown_in(text)} == {}
    assert PASSWORD in {password for _, password, _ in mailbox.logins}
    assert not hook or shown_in(receiver.said) == [SIGNING, HIDDEN]
    assert "***" in places["records"], "the error that repeats a token is told without it"
    assert "process notification.send-client" in places["spans"]


@pytest.mark.parametrize(
    "variables",
    [
        {"RIACHO_WHATSAPP_SENDERS": f'{{"shop": {{"app_secret": "{SHOP_SECRET}", "phone_number_id": 5}}}}'},
        {"RIACHO_WHATSAPP_SENDERS": f'{{"shop": {{"previous_app_secret": ["{SHOP_SECRET}"]}}}}'},
        {"RIACHO_WHATSAPP_PREVIOUS_SECRET": PREVIOUS_SECRET},
        {"RIACHO_WHATSAPP_SENDERS": f'{{"shop": {{"access_token": "{SHOP_TOKEN}", "phone_number_id": 5}}}}'},
        {"RIACHO_WHATSAPP_SENDERS": f'{{"shop": {{"access_token": "{SHOP_TOKEN}", "numero": "5"}}}}'},
        {"RIACHO_WHATSAPP_SENDERS": f'{{"shop": {{"access_token": ["{SHOP_TOKEN}"]}}}}'},
        {"RIACHO_WHATSAPP_SENDERS": f'{{"shop": "{SHOP_TOKEN}"}}'},
        {"RIACHO_WHATSAPP_SENDERS": f'{{"shop": {{"access_token": "{SHOP_TOKEN}"'},
        {"RIACHO_WHATSAPP_SENDERS": f'{{"shop": {{"graph_url": "graph.example.com/{HIDDEN}"}}}}'},
        {"RIACHO_WHATSAPP_ACCES_TOKEN": TOKEN},
        {"RIACHO_CONFIG": f"[whatsapp]\naccess_token = {TOKEN}\n"},
        {"RIACHO_CONFIG": f'[whatsapp]\naccess_token = ["{TOKEN}"]\n'},
        {"RIACHO_CONFIG": f'[alerts]\nto = "https://example.com/{HIDDEN}"\n'},
        {"RIACHO_FALLBACK_URL": f"example.com/{HIDDEN}"},
        {"RIACHO_FALLBACK_URL": f"https://{HIDDEN}:{SIGNING}@["},
        {"RIACHO_FALLBACK_URL": f"https://example.com/{HIDDEN}"},
        {"RIACHO_FALLBACK_URL": f"https:///{HIDDEN}", "RIACHO_FALLBACK_SECRET": SIGNING},
        {"RIACHO_ALERTS_TO": f"example.com/{HIDDEN}"},
        {"RIACHO_ALERTS_TO": f"{HIDDEN}@example.com"},
        {"RIACHO_ALERTS_TO": f"https://example.com/{HIDDEN}"},
        {"RIACHO_ALERTS_TO": f"https://[{HIDDEN}", "RIACHO_FALLBACK_SECRET": SIGNING},
        {"RIACHO_ALERTS_TO": f'["https://example.com/{HIDDEN}", 5]'},
    ],
)
def test_settings_that_cannot_be_used_are_refused_without_showing_them(
    variables: dict[str, str], tmp_path: Path
) -> None:
    if content := variables.get("RIACHO_CONFIG"):
        file = tmp_path / "riacho.toml"
        file.write_text(content)
        variables = {"RIACHO_CONFIG": str(file)}
    with pytest.raises((SettingsError, NotifyingUnusable)) as caught:
        Adapters(load(environ=variables))
    assert shown_in("".join(traceback.format_exception(caught.value))) == []


def test_the_forms_of_a_secret_are_found_where_it_is() -> None:
    for text in (f"Bearer {TOKEN}", f"?token={quote(TOKEN, safe='')}"):
        assert shown_in(text) == [TOKEN]
    for before in range(4):
        for encode in (base64.b64encode, base64.urlsafe_b64encode):
            assert shown_in(encode(b"x" * before + TOKEN.encode() + b"y").decode()) == [TOKEN]
