"""WooCommerce's webhooks: which of a shop's records changed, at once.

Nothing but a record's id is taken from them: the stage looks at it in the shop. So who could replay one would have
the shop asked again, and no more.
"""

import base64
import hashlib
import hmac
import logging
import re
from collections.abc import Mapping
from contextlib import suppress
from typing import Literal

import msgspec
from aiohttp import web

from api.operations import Answer, Body, Operation, Parameter, in_path
from api.problems import Problem, json, read_body
from config.settings import Shop
from pipeline import Broker, Job
from stages.jobs import Changed

log = logging.getLogger(__name__)

KINDS: dict[str, Literal["orders", "products"]] = {"order": "orders", "product": "products"}
PING = re.compile(rb"webhook_id=\d{1,20}")  # what a shop sends when a webhook is made, unsigned
LONGEST_DELIVERY = 100  # characters
SIGNATURE = Parameter(
    name="X-WC-Webhook-Signature",
    where="header",
    form=str,
    description="The HMAC-SHA256 of the body with the webhook's secret, in base64.",
    example="bm90IGEgc2lnbmF0dXJl",
)
TOPIC = Parameter(
    name="X-WC-Webhook-Topic",
    where="header",
    form=str,
    description="What happened, to what: `order.updated`, `product.deleted`.",
    example="order.updated",
)


class WooCommerceRecord(msgspec.Struct):
    """A record that changed; what else is said of it is left aside."""

    id: int


class Told(msgspec.Struct, rename="camel"):
    """What became of it: the job that looks at the record, or why there is none."""

    job_id: str = ""
    ignored: str = ""


class WooCommerceWebhook:
    """Takes in what the shops of tenants tell."""

    def __init__(self, broker: Broker, shops: Mapping[str, Shop]) -> None:
        self._broker = broker
        self._secrets = {
            tenant: shop.webhook_secret.reveal() for tenant, shop in shops.items() if shop.webhook_secret
        }

    def operations(self) -> list[Operation]:
        """Everything that is here, as it is reached over HTTP."""
        return [
            Operation(
                method="POST",
                path="/webhooks/woocommerce/{tenant}",
                handler=self.receive,
                scope=None,
                group="webhooks",
                name="shopChanged",
                summary="Take in that an order or product of a tenant's shop changed",
                description="The record is looked at in the shop. A full stage is no error: after a few of those "
                "the shop would give its webhook up, and what changed is pulled every quarter of an hour anyway.",
                parameters=(in_path("tenant", str, "Whose shop it is.", "padaria"), SIGNATURE, TOPIC),
                body=Body(form=WooCommerceRecord, examples={"an order": {"id": 727}}),
                answers={200: Answer(description="What became of it.", form=Told)},
                problems={401: "The signature is missing, or not made with this shop's secret."},
            )
        ]

    async def receive(self, request: web.Request) -> web.Response:
        """POST: something changed."""
        tenant, body = request.match_info["tenant"], await read_body(request)
        if PING.fullmatch(body):
            return json(Told(ignored="a ping"))
        self._check(tenant, body, request.headers.get(SIGNATURE.name, ""))
        topic = request.headers.get(TOPIC.name, "")
        kind = KINDS.get(topic.partition(".")[0])
        if kind is None:
            return json(Told(ignored=f"the topic {topic[:80]!r}"))
        if (number := _id(body)) is None:
            return json(Told(ignored="no record in it"))
        return json(await self._add(tenant, kind, number, _delivery(request)))

    async def _add(self, tenant: str, kind: Literal["orders", "products"], number: int, delivery: str) -> Told:
        changed = Changed(kind=kind, id=number)
        once = f"{tenant}:{delivery}" if delivery.isascii() and delivery.isprintable() and delivery else ""
        job = Job(stage="changed", payload=changed, tenant=tenant, key=f"{tenant}:{kind}:{number}", dedup=once)
        (added,) = await self._broker.add([job])
        if added.refusal:
            log.warning("a shop's webhook is left to the next pull: %s", added.refusal.reason)
            return Told(ignored=f"{added.refusal.reason}: the next pull has it")
        return Told(job_id=str(added.id))

    def _check(self, tenant: str, body: bytes, offered: str) -> None:
        """Of a tenant that is not known it is not told that there is none."""
        secret = self._secrets.get(tenant, "")
        made = base64.b64encode(hmac.new(secret.encode(), body, hashlib.sha256).digest())
        if not hmac.compare_digest(made, offered.encode(errors="surrogateescape")) or not secret:
            detail = f"{SIGNATURE.name} is missing, or not made with this shop's webhook_secret (see sync.shops)."
            raise Problem(401, "Unauthorized", detail)


def _delivery(request: web.Request) -> str:
    """Which one it is. A shop's own id is the same for all of one second, so the signature is a part of it."""
    name = request.headers.get("X-WC-Webhook-Delivery-ID", "")[:LONGEST_DELIVERY]
    return f"{name}:{request.headers.get(SIGNATURE.name, '')}" if name else ""


def _id(body: bytes) -> int | None:
    """None where it is of no record: a shop signs its own error where that is gone by now, or its webhook's user
    may not see it, and gives a webhook up after a few that were not taken."""
    with suppress(ValueError, RecursionError):
        number = msgspec.json.decode(body, type=WooCommerceRecord, strict=False).id
        return number if 0 < number < 2**53 else None
    return None
