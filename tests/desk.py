"""The notification queue as it is configured, in one process: HTTP service, worker, Cloud API, mail server."""

import ssl
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from email.message import EmailMessage
from pathlib import Path
from typing import Any

import msgspec
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer
from sqlalchemy import Table, select

from api.adapters import Adapters
from api.app import build_app
from api.description import DOCUMENT
from api.root import PATIENCE, connector
from api.serving import Runner
from config import Settings, load, replaced
from pipeline import Broker, Pipeline, RetryPolicy
from stages.notification.alerts import alerts
from stages.notification.log import notifications
from tests.cloud_api import NUMBER, TOKEN, CloudApi, Config, Statuses
from tests.document import KEPT, Kept, read
from tests.mail import Mailbox, mail_server
from tests.support import eventually, reached, working

BAKERY, PHARMACY = "padaria", "farmacia"
OTHER_NUMBER, OTHER_TOKEN = "106540352242923", "EAAJ1standin1token1of1the1other1number1ZDZD"
NUMBERS = {NUMBER: TOKEN, OTHER_NUMBER: OTHER_TOKEN}
VENDOR = "+5511912345678"
SHOP_EMAIL, ADMIN = "loja@example.com", "admin@example.com"
APP_SECRET = "app-secret"
RECEIPTS = Statuses()
QUICK = RetryPolicy(attempts=4, base=0.05)  # 0.05, 0.1, 0.2 s in place of 2, 4, 8

Client = TestClient[Any, Any]
WithSettings = Callable[..., Settings]
Serve = Callable[..., AbstractAsyncContextManager[Client]]


def settings_of(server: str, namespace: str, folder: Path, **sections: dict[str, Any]) -> Settings:
    """Two shops with a number each, and short times; `sections` go over them."""
    senders = {
        BAKERY: {"phone_number_id": NUMBER, "access_token": TOKEN},
        PHARMACY: {"phone_number_id": OTHER_NUMBER, "access_token": OTHER_TOKEN},
    }
    here: dict[str, dict[str, Any]] = {
        "redis": {"url": server, "namespace": namespace},
        "data": {"folder": str(folder)},
        "whatsapp": {"app_secret": APP_SECRET, "verify_token": "verify", "senders": senders, "timeout": 5.0},
        "notification": {"unknown_wait": 0.4, "probe": 0.5, "vendors": {BAKERY: VENDOR}},
        "email": {"host": "127.0.0.1", "security": "none", "sender": "Riacho <riacho@example.com>"},
        "fallback": {"email": SHOP_EMAIL},
        "alerts": {"to": [ADMIN]},
    }
    for section, values in sections.items():
        here[section] = here.get(section, {}) | values
    return load(here, environ={})


class Desk:
    """What a test puts in, and what comes of it. `api` is Meta's side, `mailbox` that of the people."""

    def __init__(
        self, client: Client, broker: Broker, adapters: Adapters, api: CloudApi, mailbox: Mailbox
    ) -> None:
        self.client, self.broker, self.adapters, self.api, self.mailbox = client, broker, adapters, api, mailbox

    async def ask(self, *wanted: dict[str, Any]) -> tuple[int, Any]:
        """POST jobs, all in one call; the status and body of the answer."""
        answer = await self.client.post("/queue/notification/jobs", json=list(wanted) if wanted[1:] else wanted[0])
        return answer.status, await answer.json(content_type=None)

    async def enqueue(self, *wanted: dict[str, Any]) -> list[str]:
        """Jobs that are taken; their ids."""
        status, answer = await self.ask(*wanted)
        assert status == 202, answer
        return [job["jobId"] for job in (answer if wanted[1:] else [answer])]

    async def view(self, job: str) -> dict[str, Any]:
        """GET a job."""
        answer = await self.client.get(f"/queue/job/notification/{job}")
        assert answer.status == 200
        found: dict[str, Any] = await answer.json()
        return found

    async def until(self, job: str, *, state: str = "completed", **delivery: Any) -> dict[str, Any]:
        """A job as it looks when it has come so far."""

        async def far_enough() -> dict[str, Any] | None:
            view = await self.view(job)
            told = view.get("delivery", {})
            return view if view["state"] == state and delivery.items() <= told.items() else None

        view: dict[str, Any] = await eventually(far_enough, what=f"{job} becoming {state} {delivery}")
        return view

    def mails(self, address: str) -> list[EmailMessage]:
        """What arrived at an address."""
        return [mail for mail in self.mailbox.messages if mail["To"] == address]

    async def until_mails(self, address: str, count: int) -> list[EmailMessage]:
        await reached(lambda: len(self.mails(address)) >= count, what=f"{count} mails to {address}")
        return self.mails(address)

    async def until_sent(self, count: int) -> None:
        await reached(lambda: len(self.api.messages) >= count, what=f"{count} messages")

    async def until_quiet(self) -> None:
        """Until there is nothing left to do but alerts to carry."""

        async def nothing_left() -> bool:
            stages = await self.broker.status()
            busy = any(stage.waiting or stage.delayed or stage.active for stage in stages)
            busy |= any(stage.retrying for stage in stages if stage.stage != "alert")
            return not busy and not self.api.untold

        await eventually(nothing_left, what="the queue becoming empty")

    async def rows(self, table: Table = notifications) -> Sequence[Any]:
        return await self.adapters.database.read(select(table))

    async def untold(self) -> int:
        """Failures that are counted, and wait for the next alert of their cause."""
        return sum(row["count"] for row in await self.rows(alerts))

    async def dead(self) -> int:
        return sum([stage.dead for stage in await self.broker.status()])


def stages_of(adapters: Adapters, retry: RetryPolicy, queues: Sequence[str] = ("notification",)) -> Pipeline:
    """The stages of these queues, which try again sooner."""
    pipeline = adapters.pipeline()
    stages = [stage for queue in queues for stage in pipeline.queue(queue)]
    return Pipeline([msgspec.structs.replace(stage, retry=retry) for stage in stages])


class Served(TestServer):
    """An application served as api.processes has it."""

    def __init__(self, app: web.Application, settings: Settings) -> None:
        super().__init__(app)
        self._settings = settings

    async def _make_runner(self, **_: Any) -> Runner:
        return Runner(self.app, self._settings.http)


@asynccontextmanager
async def service(settings: Settings) -> AsyncIterator[Client]:
    """The HTTP service; fails where an answer was not as /openapi.json has it."""
    adapters = Adapters(settings)
    async with connector(settings, adapters.pipeline(), patience=PATIENCE)() as broker:
        app = build_app(broker, settings, adapters.notifications.log)
        kept = Kept(read(app[DOCUMENT]))
        app[KEPT] = kept
        app.middlewares.insert(0, kept.look)
        async with TestClient(Served(app, settings)) as client:
            yield client
    await adapters.database.aclose()
    assert kept.broken == [], kept.broken


@asynccontextmanager
async def working_desk(
    settings: Settings,
    config: Config | None = None,
    *,
    told: Statuses | None = RECEIPTS,
    mailbox: Mailbox | None = None,
    starttls: ssl.SSLContext | None = None,
    retry: RetryPolicy = QUICK,
    queues: Sequence[str] = ("notification",),
) -> AsyncIterator[Desk]:
    """All of it at work. The stand-in tells what becomes of messages as `told` has it; None: not at all."""
    mailbox = mailbox or Mailbox()
    async with (
        service(settings) as client,
        CloudApi(_telling(config or shops(), told, client, settings)) as api,
        mail_server(mailbox, starttls=starttls) as port,
    ):
        settings = replaced(settings, whatsapp={"graph_url": api.url}, email={"port": port})
        adapters = Adapters(settings)
        connect = connector(settings, stages_of(adapters, retry, queues))
        async with adapters.opened(), connect() as broker, working(connect, broker.pipeline):
            yield Desk(client, broker, adapters, api, mailbox)


def shops(**options: Any) -> Config:
    """A stand-in's configuration with the numbers of both shops."""
    return Config(numbers=NUMBERS, **options)


def _telling(config: Config, told: Statuses | None, client: Client, settings: Settings) -> Config:
    if told is None:
        return config
    url, secret = str(client.make_url("/webhooks/whatsapp")), settings.whatsapp.app_secret.reveal()
    statuses = msgspec.structs.replace(told, url=url, app_secret=secret, batch=0.02)
    return msgspec.structs.replace(config, statuses=statuses)


def to_client(to: str, text: str = "Olá", *, tenant: str = BAKERY, **other: Any) -> dict[str, Any]:
    """A job for a customer."""
    return {"kind": "send-client", "tenant": tenant, "payload": {"to": to, "text": text} | other}


def to_vendor(*, tenant: str = BAKERY, **other: Any) -> dict[str, Any]:
    """A job for a vendor: 162 reais paid."""
    order = {
        "order_id": "42",
        "client_phone": "+5511987654321",
        "total": "162.00",
        "items": [{"name": "Bolo", "quantity": 2, "price": "81"}],
    }
    return {"kind": "send-vendor", "tenant": tenant, "payload": order | other}


def phone(n: int) -> str:
    """The number of a customer, in digits."""
    return f"55119{87650000 + n}"
