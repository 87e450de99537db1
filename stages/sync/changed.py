"""The stage `sync.changed`: one record that the shop's webhook told of, at once."""

from collections.abc import Mapping

import msgspec

from pipeline import Context, Permanent, RetryLater
from stages.jobs import Changed
from stages.sync.errors import RecordUnknown, ShopAway, ShopError
from stages.sync.paid import Paid
from stages.sync.pull import Feed, currency_of, shop_of
from stages.sync.records import BadRecord, status_of
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
            state = await self._look(ctx, shop, job)
        except ShopAway as error:
            raise RetryLater(error.pause(ctx.enqueued_ms), str(error)) from None
        except ShopError as error:
            raise Permanent(str(error)) from None
        if job.kind == "orders":
            await self._paid(ctx)
        return {"state": state}

    async def _look(self, ctx: Context, shop: Shop, job: Changed) -> str:
        feed, path = self._feeds[job.kind], f"{WOOCOMMERCE}/{job.kind}/{job.id}"
        try:
            raw = await self._wordpress.get(shop, path, {"_fields": feed.fields}, msgspec.Raw)
        except RecordUnknown:
            raw = None
        if raw is None or status_of(raw) in feed.gone:
            await self._store.forget_one(ctx.tenant, job.kind, job.id)
            return "gone"
        try:
            record = feed.read(raw, await currency_of(self._wordpress, shop, feed))
        except BadRecord as error:
            raise Permanent(f"the shop's {job.kind} {job.id} cannot be kept: {error}") from None
        await self._store.keep_one(ctx.tenant, job.kind, record)
        return "kept"
