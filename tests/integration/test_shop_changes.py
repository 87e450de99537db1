"""What a shop's webhooks tell, what vendors are told of it, and what the shop is told of the chat."""

import asyncio
import base64
import hashlib
import hmac
import json
import time
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from decimal import Decimal
from typing import Any
from unittest.mock import AsyncMock

import pytest
import pytest_asyncio
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer

from api.adapters import Adapters
from api.app import build_app
from api.root import connector
from api.shops import ShopUnusable
from pipeline import Bury, Context, Job, JobId, Permanent, Retry, RetryLater
from stages.jobs import Changed, OrderItem, PushOrder, SendVendor
from stages.notification.send import Addressed
from stages.store import Database
from stages.sync import errors
from stages.sync.changed import ChangedHandler
from stages.sync.paid import Paid
from stages.sync.pull import PRODUCTS, orders_feed
from stages.sync.push import PushHandler
from stages.sync.rest import Shop as Address
from stages.sync.rest import WordPress
from stages.sync.store import ShopStore, pulls
from tests.desk import Client, WithSettings
from tests.support import context_of
from tests.woocommerce import KEY, SECRET, Shop, gmt, problem

pytestmark = pytest.mark.integration


class Desk:
    """The handlers on one shop; `added` is what was added by them."""

    def __init__(self, shop: Shop, database: Database, wordpress: WordPress) -> None:
        self.shop, self.store = shop, ShopStore(database)
        shops = {"padaria": Address("padaria", shop.url, KEY, SECRET)}
        feeds = {"products": PRODUCTS, "orders": orders_feed("BR")}
        self.refusing, self.database = "", database
        self.checked: Callable[[str, SendVendor], SendVendor] | None = None
        self.changed = ChangedHandler(feeds, shops, wordpress, self.store, Paid(self.store, self._check))
        self.push, self.wordpress = PushHandler(shops, wordpress), wordpress
        self.added: list[Job] = []

    def _check(self, tenant: str, payload: SendVendor) -> SendVendor:
        if self.checked:
            return self.checked(tenant, payload)
        if self.refusing:
            raise ValueError(self.refusing)
        return payload

    async def _add(self, job: Job) -> JobId:
        self.added.append(job)
        return JobId("send-vendor", 0, "1-0")

    def context(self, number: int = 1, attempt: int = 1, tenant: str = "padaria") -> Context:
        job = Changed("orders", 1)
        return context_of("changed", job, tenant=tenant, number=number, attempt=attempt, add=self._add)

    async def change(self, kind: Any, number: int) -> str:
        return (await self.changed(self.context(), Changed(kind, number)))["state"]

    async def pushed(self, *jobs: PushOrder, attempt: int = 1) -> list[Any]:
        contexts = [self.context(number, attempt) for number, _ in enumerate(jobs, 1)]
        return await self.push(contexts, jobs)


@pytest_asyncio.fixture
async def desk(shop: Shop, database: Database) -> AsyncIterator[Desk]:
    async with WordPress(timeout=5) as wordpress:
        yield Desk(shop, database, wordpress)


# ── one record ───────────────────────────────────────────────────────────────────────────────────


async def test_a_changed_order_is_looked_at_in_the_shop(desk: Desk) -> None:
    desk.shop.order(7, time.time(), status="on-hold")
    assert await desk.change("orders", 7) == "kept"
    (order,) = await desk.store.orders_of("padaria", "+5511987654321", 5)
    assert (order.id, order.status, order.customer) == (7, "on-hold", "Ana Souza")
    desk.shop.order(7, time.time() + 5, status="completed")
    await desk.change("orders", 7)
    (order,) = await desk.store.orders_of("padaria", "+5511987654321", 5)
    assert order.status == "completed"


async def test_one_that_is_gone_or_in_the_trash_is_forgotten(desk: Desk) -> None:
    desk.shop.product(3, time.time())
    desk.shop.product(4, time.time())
    assert [await desk.change("products", number) for number in (3, 4)] == ["kept", "kept"]
    desk.shop.products.drop(3)
    desk.shop.product(4, time.time() + 1, status="trash")
    assert [await desk.change("products", number) for number in (3, 4)] == ["gone", "gone"]
    assert await desk.store.products_named("padaria", ["bolo"], 5) == []


async def test_of_a_variation_its_product_is_looked_at(desk: Desk) -> None:
    desk.shop.product(3, time.time(), name="Camiseta", type="variable")
    desk.shop.product(4, time.time(), name="Camiseta - Azul, M", type="variation", parent_id=3)
    assert await desk.change("products", 4) == "kept"
    found = await desk.store.products_named("padaria", ["camiseta"], 5)
    assert [product.name for product in found] == ["Camiseta"]
    desk.shop.products.drop(3)
    assert await desk.change("products", 4) == "gone"
    assert await desk.store.products_named("padaria", ["camiseta"], 5) == []


async def test_a_shop_that_is_away_is_asked_later_and_a_closed_one_not(desk: Desk) -> None:
    answers = [problem(502, "bad", "Bad gateway"), problem(403, "woocommerce_rest_cannot_view", "No.")]

    async def answer(_: web.Request) -> web.Response:
        return answers.pop(0)

    desk.shop.before = answer
    with pytest.raises(RetryLater, match="502"):
        await desk.change("orders", 1)
    with pytest.raises(Permanent, match="403"):
        await desk.change("orders", 1)


async def test_a_shop_that_stays_away_is_asked_more_and_more_seldom(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def away(_: web.Request) -> web.Response:
        return problem(502, "bad", "Bad gateway")

    desk.shop.before = away
    ctx, pauses = desk.context(), []
    for age in (0, 10, 60, 86_400):  # s; trying later is no try that counts
        monkeypatch.setattr(errors, "now_ms", lambda age=age: ctx.enqueued_ms + age * 1000)
        with pytest.raises(RetryLater) as told:
            await desk.changed(ctx, Changed("orders", 1))
        pauses.append(told.value.seconds)
    assert pauses == [2, 5, 30, 900]


def test_an_address_with_a_login_in_it_is_refused_and_not_shown(settings: WithSettings) -> None:
    mine = settings(sync={"shops": {"padaria": {"url": "https://ck_1:cs_2@shop.example"}}})
    with pytest.raises(ShopUnusable, match=r"sync\.shops\.padaria\.url is no good") as told:
        Adapters(mine)
    assert "cs_2" not in str(told.value)


async def test_a_draft_of_the_checkout_is_no_order(desk: Desk) -> None:
    desk.shop.order(7, time.time(), status="checkout-draft")
    assert await desk.change("orders", 7) == "gone"
    assert await desk.store.orders_of("padaria", "+5511987654321", 5) == []


async def test_a_number_is_of_the_country_that_the_customer_lives_in(desk: Desk) -> None:
    billing = {"first_name": "Luz", "phone": "51987654321", "country": "PE"}
    desk.shop.order(7, time.time(), billing=billing)
    await desk.change("orders", 7)
    assert await desk.store.orders_of("padaria", "+5551987654321", 5) == []
    assert len(await desk.store.orders_of("padaria", "+51987654321", 5)) == 1


# ── paid orders ──────────────────────────────────────────────────────────────────────────────────


async def test_a_vendor_is_told_once_of_a_paid_order(desk: Desk) -> None:
    desk.shop.order(7, time.time(), date_paid_gmt=gmt(time.time()))
    for _ in range(3):
        await desk.change("orders", 7)
    (job,) = desk.added
    assert (job.stage, job.tenant, job.dedup) == ("send-vendor", "padaria", "paid:padaria:7")
    told = job.payload
    assert isinstance(told, SendVendor)
    assert (told.order_id, str(told.total), told.currency, told.client_phone) == (
        "7",
        "25.00",
        "BRL",
        "+5511987654321",
    )
    assert [(item.name, item.quantity, str(item.price)) for item in told.items] == [("Bolo 1", 2, "12.50")]


async def test_nobody_is_told_of_what_was_paid_long_ago_or_is_undone(desk: Desk) -> None:
    desk.shop.order(1, time.time(), date_paid_gmt=gmt(time.time() - 3 * 86_400))
    desk.shop.order(2, time.time(), date_paid_gmt=gmt(time.time()), status="refunded")
    desk.shop.order(3, time.time())
    for number in (1, 2, 3):
        await desk.change("orders", number)
    assert desk.added == []


async def test_an_order_that_comes_back_is_not_told_of_again(desk: Desk) -> None:
    pull = await desk.store.begin("padaria", "orders", "job 1")
    await desk.store.end(pull)
    await desk.database.write(pulls.update().values(began_ms=0))
    desk.shop.order(7, time.time(), date_paid_gmt=gmt(time.time() - 6 * 86_400))
    await desk.change("orders", 7)
    assert desk.added == [], "the server knows ids for a week"


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"billing": {"phone": "ligue"}}, {"client_phone": "ligue"}),
        ({"billing": {}}, {"client_phone": "-"}),
        ({"currency": "POINTS"}, {"currency": "XXX"}),
        (
            {"line_items": [{"name": "Queijo", "quantity": 0.5, "total": "20.00"}]},
            {"items": [OrderItem("0.5 x Queijo", 1, Decimal("20.00"))]},
        ),
        (
            {"line_items": [{"name": "Desconto", "quantity": 1, "total": "-5.00"}]},
            {"items": [OrderItem("Desconto", 1, None)]},
        ),
    ],
)
async def test_an_odd_order_is_told_of_all_the_same(
    desk: Desk, fields: dict[str, Any], told: dict[str, Any]
) -> None:
    addressed = Addressed("BR", {"padaria": "+5511912345678"})
    desk.checked = addressed.paid
    desk.shop.order(7, time.time(), date_paid_gmt=gmt(time.time()), **fields)
    await desk.change("orders", 7)
    (job,) = desk.added
    assert {name: getattr(job.payload, name) for name in told} == told


async def test_one_whose_adding_failed_is_told_of_the_next_time(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk.shop.order(7, time.time(), date_paid_gmt=gmt(time.time()))
    add = AsyncMock(side_effect=ConnectionError)
    with monkeypatch.context() as broken:
        broken.setattr(desk, "_add", add)
        with pytest.raises(ConnectionError):
            await desk.change("orders", 7)
    await desk.change("orders", 7)
    assert len(desk.added) == 1


async def test_a_shop_whose_vendor_is_not_named_goes_on(desk: Desk, caplog: pytest.LogCaptureFixture) -> None:
    desk.shop.order(7, time.time(), date_paid_gmt=gmt(time.time()))
    desk.refusing = "tenant 'padaria' has no vendor"
    assert await desk.change("orders", 7) == "kept"
    assert desk.added == []
    assert "nobody is told that order 7 is paid: tenant 'padaria' has no vendor" in caplog.text


# ── what the shop is told ────────────────────────────────────────────────────────────────────────


async def test_notes_are_written_and_statuses_changed_in_one_call(desk: Desk) -> None:
    for number in (1, 2, 3):
        desk.shop.order(number, time.time(), status="pending")
    wanted = [PushOrder(number, note="Comprovante por WhatsApp", status="on-hold") for number in (1, 2, 3)]
    assert await desk.pushed(*wanted) == [{"status": "on-hold"}] * 3
    assert [desk.shop.orders.records[number]["status"] for number in (1, 2, 3)] == ["on-hold"] * 3
    assert [len(desk.shop.notes[number]) for number in (1, 2, 3)] == [1, 1, 1]
    assert sum("/orders/batch" in asked for asked in desk.shop.asked) == 1


async def test_a_job_that_comes_again_writes_no_second_note(desk: Desk) -> None:
    desk.shop.order(1, time.time(), status="pending")
    for attempt in (1, 2):
        await desk.pushed(PushOrder(1, note="Comprovante"), attempt=attempt)
    assert [note["note"] for note in desk.shop.notes[1]] == ["Comprovante [changed.0.1-0]"]
    assert not desk.shop.notes[1][0]["customer_note"]


@pytest.mark.parametrize("status", ["completed", "shipped"])
async def test_an_order_that_went_on_meanwhile_stays_as_it_is(desk: Desk, status: str) -> None:
    desk.shop.order(1, time.time(), status=status)
    wanted = PushOrder(1, status="on-hold", only=["pending", "failed"])
    assert await desk.pushed(wanted) == [{"status": status}]
    assert desk.shop.orders.records[1]["status"] == status


async def test_an_order_that_is_paid_while_its_note_is_written_stays_paid(desk: Desk) -> None:
    desk.shop.order(1, time.time(), status="pending")

    async def pays(request: web.Request) -> None:
        if request.method == "POST" and request.path.endswith("/notes"):
            desk.shop.order(1, time.time(), status="processing")

    desk.shop.before = pays
    wanted = PushOrder(1, note="Comprovante", status="on-hold", only=["pending"])
    assert await desk.pushed(wanted) == [{"status": "processing"}]
    assert desk.shop.orders.records[1]["status"] == "processing"


async def test_one_bad_order_holds_up_no_other(desk: Desk) -> None:
    for number in (1, 2):
        desk.shop.order(number, time.time(), status="pending")
    unknown, bad, good = await desk.pushed(
        PushOrder(99, note="?", status="on-hold"), PushOrder(1, status="no-such"), PushOrder(2, status="on-hold")
    )
    assert isinstance(unknown, Bury)
    assert "no order 99" in unknown.reason
    assert isinstance(bad, Bury)
    assert "no status 'no-such'" in bad.reason
    assert good == {"status": "on-hold"}


async def test_a_slow_shop_ends_its_part_of_a_batch_and_goes_on_the_next_time(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(1, 7):
        desk.shop.order(number, time.time(), status="pending")
    slow, hang = set[str](), asyncio.Event()

    async def stalls(request: web.Request) -> None:
        slow.add(request.path)
        if len(slow) == 6:
            await hang.wait()

    desk.shop.before = stalls
    monkeypatch.setattr(desk.wordpress, "timeout", 0.2)
    jobs = [PushOrder(number, note="Comprovante", status="on-hold") for number in range(1, 7)]
    outcomes = await desk.pushed(*jobs)
    assert {type(outcome) for outcome in outcomes} == {Retry}
    assert not any(outcome.counts for outcome in outcomes)
    assert "too slow" in outcomes[0].error
    hang.set()
    assert await desk.pushed(*jobs, attempt=2) == [{"status": "on-hold"}] * 6
    assert [len(desk.shop.notes[number]) for number in range(1, 7)] == [1] * 6


async def test_what_cannot_be_pushed_now_is_pushed_later(desk: Desk) -> None:
    async def busy(_: web.Request) -> web.Response:
        return problem(429, "busy", "Slow down.", **{"Retry-After": "7"})

    desk.shop.before = busy
    (outcome,) = await desk.pushed(PushOrder(1, status="on-hold"))
    assert outcome == Retry(7.0, outcome.error, counts=False)
    assert "429" in outcome.error


# ── webhooks ─────────────────────────────────────────────────────────────────────────────────────

WEBHOOK = "/webhooks/woocommerce/padaria"
SIGNED_WITH = "whsec"


def headers(
    body: bytes, topic: str = "order.updated", secret: str = SIGNED_WITH, delivery: str = "d1"
) -> dict[str, str]:
    signature = base64.b64encode(hmac.new(secret.encode(), body, hashlib.sha256).digest()).decode()
    return {
        "Content-Type": "application/json",
        "X-WC-Webhook-Signature": signature,
        "X-WC-Webhook-Topic": topic,
        "X-WC-Webhook-Delivery-ID": delivery,
    }


@pytest_asyncio.fixture
async def client(settings: WithSettings) -> AsyncIterator[Client]:
    mine = settings(sync={"shops": {"padaria": {"url": "https://shop.example", "webhook_secret": SIGNED_WITH}}})
    adapters = Adapters(mine)
    async with connector(mine, adapters.pipeline())() as broker:
        await broker.ensure_groups()
        async with aclosing(adapters.database):
            app = build_app(broker, mine, adapters.notifications.log)
            async with TestClient(TestServer(app)) as client:
                yield client


async def told(client: Client, body: bytes, **given: str) -> tuple[int, dict[str, Any]]:
    answer = await client.post(WEBHOOK, data=body, headers=headers(body, **given))
    return answer.status, await answer.json(content_type=None)


async def test_a_webhook_has_its_record_looked_at_once_a_delivery(client: Client) -> None:
    body = json.dumps({"id": 727, "status": "processing", "billing": {}}).encode()
    status, first = await told(client, body)
    _, again = await told(client, body)
    _, later = await told(client, body, delivery="d2")
    assert status == 200
    assert first == again != later
    view = await (await client.get(f"/queue/job/sync/{first['jobId']}")).json()
    assert view["state"] == "waiting"


@pytest.mark.parametrize(
    "given",
    [{"secret": "guessed"}, {"secret": ""}],
)
async def test_what_the_shop_has_not_signed_is_refused(client: Client, given: dict[str, str]) -> None:
    status, answer = await told(client, b'{"id": 1}', **given)
    assert (status, "X-WC-Webhook-Signature" in answer["detail"]) == (401, True)
    body = b'{"id": 1}'
    other = await client.post("/webhooks/woocommerce/farmacia", data=body, headers=headers(body, **given))
    assert other.status == 401, "nor is it told which tenants have a shop"


async def test_what_changed_in_the_same_second_is_all_looked_at(client: Client) -> None:
    answers = [await told(client, b'{"id": %d}' % number, delivery="of this second") for number in (7, 8)]
    assert len({answer["jobId"] for _, answer in answers}) == 2


async def test_other_topics_and_pings_are_taken_and_left_aside(client: Client) -> None:
    assert await told(client, b'{"id": 1}', topic="coupon.created") == (
        200,
        {"jobId": "", "ignored": "the topic 'coupon.created'"},
    )
    ping = await client.post(
        WEBHOOK, data=b"webhook_id=12", headers={"Content-Type": "application/x-www-form-urlencoded"}
    )
    assert (ping.status, (await ping.json())["ignored"]) == (200, "a ping")


async def test_what_is_deleted_has_its_id_in_words(client: Client) -> None:
    assert (await told(client, b'{"id": "727"}', topic="order.deleted"))[1]["jobId"]


UNSEEN = b'{"code": "woocommerce_rest_product_invalid_id", "message": "Invalid ID.", "data": {"status": 404}}'


@pytest.mark.parametrize("body", [b"", b"[]", b'{"id": "x"}', b'{"id": 0}', b"\xff", b"[" * 5_000, UNSEEN])
async def test_what_is_no_record_is_taken_and_left_aside(client: Client, body: bytes) -> None:
    assert await told(client, body) == (200, {"jobId": "", "ignored": "no record in it"})
