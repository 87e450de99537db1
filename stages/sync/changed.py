"""The stage `sync.changed`: one record that the shop's webhook told of, at once."""

from collections.abc import Mapping

import msgspec

from pipeline import Context, Permanent, RetryLater
from stages.jobs import Changed
from stages.sync.errors import RecordUnknown, ShopAway, ShopError
from stages.sync.paid import Paid
from stages.sync.pull import Feed, currency_of, shop_of
from stages.sync.records import BadRecord, parent_of, status_of
from stages.sync.rest import WOOCOMMERCE, Shop, WordPress
from stages.sync.store import ShopStore


class ChangedHandler:
    """Looks at the record in the shop, whatever the webhook said of it: these may come late, twice and in any
    order."""

    def __init__(
        self,
        feeds: Mapping[str, Feed],
        shops: Mapping[str, Shop],
        wordpress: WordPress,
        store: ShopStore,
        paid: Paid,
    ) -> None:
        self._feeds, self._shops, self._wordpress = feeds, shops, wordpress
        self._store, self._paid = store, paid

    async def __call__(self, ctx: Context, job: Changed) -> dict[str, str]:
        shop = shop_of(self._shops, ctx.tenant)
        try:
            state = await self._look(ctx, shop, job.kind, job.id)
        except ShopAway as error:
            raise RetryLater(error.pause(ctx.enqueued_ms), str(error)) from None
        except ShopError as error:
            raise Permanent(str(error)) from None
        if job.kind == "orders":
            await self._paid(ctx)
        return {"state": state}

    async def _look(self, ctx: Context, shop: Shop, kind: str, number: int) -> str:
        feed = self._feeds[kind]
        raw = await self._found(shop, feed, number)
        if raw and (parent := parent_of(raw)):  # no list has it, and its product tells its price
            number, raw = parent, await self._found(shop, feed, parent)
        if raw is None or status_of(raw) in feed.gone:
            await self._store.forget_one(ctx.tenant, kind, number)
            return "gone"
        try:
            record = feed.read(raw, await currency_of(self._wordpress, shop, feed))
        except BadRecord as error:
            raise Permanent(f"the shop's {kind} {number} cannot be kept: {error}") from None
        await self._store.keep_one(ctx.tenant, kind, record)
        return "kept"

    async def _found(self, shop: Shop, feed: Feed, number: int) -> msgspec.Raw | None:
        path = f"{WOOCOMMERCE}/{feed.kind}/{number}"
        try:
            return await self._wordpress.get(shop, path, {"_fields": feed.fields}, msgspec.Raw)
        except RecordUnknown:
            return None
