"""A paid order in the shop becomes a notification of its vendor."""

import logging
import re
from collections.abc import Callable
from decimal import Decimal

import msgspec

from pipeline import Context, Job
from pipeline.message import now_ms
from stages.jobs import OrderItem, SendVendor
from stages.sync.records import Item, Order
from stages.sync.store import ShopStore

log = logging.getLogger(__name__)

AT_ONCE = 100
SECOND = 1_000  # ms; a shop tells in seconds when an order was paid
DAY = 86_400_000  # ms
UNDONE = {"cancelled", "refunded", "failed", "trash"}
CURRENCY, NO_CURRENCY = re.compile("[A-Z]{3}"), "XXX"  # as ISO 4217 has none
LONGEST_ITEM, LONGEST_NUMBER = 200, 100  # characters


class Paid:
    """Has vendors told of what was paid since the shop is known here, once each.

    The notification is added under an id that stays the same, and only then is it noted that the vendor is told:
    who dies in between adds it again, and the server knows it. `check` is that of the stage, see Stage.check.
    """

    def __init__(self, store: ShopStore, check: Callable[[str, SendVendor], SendVendor]) -> None:
        self._store, self._check = store, check

    async def __call__(self, ctx: Context) -> int:
        """Tell of all there are; how many. Raises StoreUnavailable, and what adding a job raises."""
        pull = await self._store.pull(ctx.tenant, "orders")
        # Longer ago no more, though it comes back from a trash, say: a stage knows the ids of its jobs for a week.
        since, told = max(pull.began_ms - SECOND if pull else now_ms() - DAY, now_ms() - 5 * DAY), 0
        while orders := await self._store.paid(ctx.tenant, since, AT_ONCE):
            for order in orders:
                told += await self._tell(ctx, order)
                await self._store.told(ctx.tenant, order.id)
        return told

    async def _tell(self, ctx: Context, order: Order) -> bool:
        if order.status in UNDONE:
            return False
        try:
            payload = self._check(ctx.tenant, notification(order))
        except ValueError as error:  # no vendor is named, say
            log.warning("nobody is told that order %s is paid: %s", order.number, error)
            return False
        once = f"paid:{ctx.tenant}:{order.id}"
        await ctx.add(Job(stage="send-vendor", payload=payload, tenant=ctx.tenant, dedup=once))
        return True


def notification(order: Order) -> SendVendor:
    """What a vendor is told of an order. Raises ValueError where that cannot be said."""
    told = SendVendor(
        order_id=order.number[:LONGEST_NUMBER],
        client_phone=order.phone or "-",
        total=Decimal(order.total),
        items=[_item(item) for item in order.items if item.quantity > 0],
        currency=order.currency if CURRENCY.fullmatch(order.currency) else NO_CURRENCY,
        proof_url=order.proof_url or None,
    )
    # Structs are not checked where they are made.
    return msgspec.convert(msgspec.to_builtins(told, builtin_types=(Decimal,)), SendVendor)


def _item(item: Item) -> OrderItem:
    total = Decimal(item.total)
    if not item.quantity.is_integer():  # a weight, say
        name, quantity = f"{item.quantity:g} x {item.name}", 1
    else:
        name, quantity = item.name, int(item.quantity)
    return OrderItem(
        name=name[:LONGEST_ITEM] or "?", quantity=quantity, price=total / quantity if total >= 0 else None
    )
