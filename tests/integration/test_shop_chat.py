"""A shop and its customer's chat, from webhook to webhook: the service, all stages, Meta's side and the shop's."""

import hashlib
import hmac
import time
from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest
import pytest_asyncio

from api.stand_in import event
from tests.cloud_api import NUMBER
from tests.desk import ADMIN, APP_SECRET, BAKERY, VENDOR, Desk, WithSettings, working_desk
from tests.support import eventually, reached
from tests.woocommerce import KEY, PASSWORD, SECRET, USER, Shop, gmt

pytestmark = pytest.mark.integration

ANA = "5511987654321"
JPEG = b"\xff\xd8\xff\xe0 a photograph of a receipt"


@pytest_asyncio.fixture
async def desk(shop: Shop, settings: WithSettings) -> AsyncIterator[Desk]:
    address = {"url": shop.url, "key": KEY, "secret": SECRET, "user": USER, "password": PASSWORD}
    mine = settings(
        sync={"shops": {BAKERY: address}}, audio={"networks": ["127.0.0.0/8"]}, conversation={"patience": 0.0}
    )
    async with working_desk(mine, queues=("notification", "audio", "sync")) as desk:
        yield desk


async def pull(desk: Desk, kind: str) -> None:
    job = {"kind": kind, "tenant": BAKERY, "payload": {}}
    answer = await desk.client.post("/queue/sync/jobs", json=job)
    job_id = (await answer.json())["jobId"]

    async def done() -> bool:
        view = await (await desk.client.get(f"/queue/job/sync/{job_id}")).json()
        return bool(view["state"] == "completed")

    await eventually(done, what=f"the {kind} being pulled")


async def says(desk: Desk, number: int, **what: Any) -> None:
    """The customer sends something, and it is answered."""
    told = len(desk.api.delivered_to(ANA))
    said = {"id": f"wamid.{number}", "from": ANA, "timestamp": str(int(time.time())), **what}
    body = msgspec.json.encode(event(NUMBER, messages=[said]))
    signature = hmac.new(APP_SECRET.encode(), body, hashlib.sha256).hexdigest()
    answer = await desk.client.post(
        "/webhooks/whatsapp", data=body, headers={"X-Hub-Signature-256": f"sha256={signature}"}
    )
    assert (await answer.json())["accepted"] == 1
    await reached(lambda: len(desk.api.delivered_to(ANA)) > told, what="the answer")


async def test_from_a_question_to_the_proof_to_the_paid_order(desk: Desk, shop: Shop) -> None:
    shop.product(1, time.time(), name="Bolo de Cenoura", price="45.00")
    shop.order(7, time.time(), status="pending")
    await pull(desk, "products")
    await pull(desk, "orders")

    await says(desk, 1, type="text", text={"body": "Oi! Quanto custa o bolo de cenoura?"})
    assert "Bolo de Cenoura: R$ 45,00" in str(desk.api.delivered_to(ANA)[-1])
    await says(desk, 2, type="text", text={"body": "E o meu pedido, como está?"})
    assert "Pedido 7 (R$ 25,00): aguardando o pagamento." in str(desk.api.delivered_to(ANA)[-1])

    desk.api.files["8001"] = JPEG
    await says(desk, 3, type="image", image={"id": "8001", "mime_type": "image/jpeg", "caption": "Segue o pix"})
    assert "Recebemos o comprovante do pedido 7" in str(desk.api.delivered_to(ANA)[-1])
    await reached(lambda: shop.orders.records[7]["status"] == "on-hold", what="the order's status")
    ((slug, kept),) = shop.media.items()
    assert (kept["content"], kept["status"]) == (JPEG, "private")
    (note,) = shop.notes[7]
    assert f"{shop.url}/wp-content/uploads/{slug}.jpg" in note["note"]

    paid = {"status": "processing", "date_paid_gmt": gmt(time.time())}
    shop.order(7, time.time() + 5, **paid)
    await pull(desk, "orders")
    await reached(lambda: desk.api.delivered_to(VENDOR.removeprefix("+")), what="the vendor's message")
    (told,) = desk.api.delivered_to(VENDOR.removeprefix("+"))
    assert (told.type, "Comprovante: em anexo" in told.text) == ("image", True)
    (row,) = (row for row in await desk.rows() if row["kind"] == "send-vendor")
    assert f"{slug}.jpg" in row["payload"]
    await says(desk, 4, type="text", text={"body": "Cadê meu pedido?"})
    assert "Pedido 7 (R$ 25,00): pago, em preparação." in str(desk.api.delivered_to(ANA)[-1])
    desk.api.assert_clean()


async def test_administrators_are_told_once_that_a_shop_is_closed(desk: Desk, shop: Shop) -> None:
    shop.closed = True
    for _ in range(3):
        job = {"kind": "orders", "tenant": BAKERY, "payload": {"full": True}}
        await desk.client.post("/queue/sync/jobs", json=job)
    (mail,) = await desk.until_mails(ADMIN, 1)
    await desk.until_quiet()
    assert await desk.dead() == 1
    text = mail.get_content()
    assert "401" in text
    assert "sync.shops.padaria" in text
    assert SECRET not in text
