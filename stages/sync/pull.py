"""The stages `sync.products` and `sync.orders`: what changed in a tenant's shop, into the database.

Records come in the order in which they were changed, a page at a time from the newest one that is kept on: always
the first page from there, so that what changes meanwhile moves no other record out of sight. Of those changed in
the same second (an import) there may be more than a page; these are paged through, again from their first where
their number changed.
"""

import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from typing import NamedTuple

import msgspec

from pipeline import Context, Done, Permanent, RetryLater
from pipeline.message import now_ms
from stages.jobs import Pull as PullJob
from stages.sync import records
from stages.sync.errors import ShopAway, ShopClosed, ShopError
from stages.sync.records import BadRecord, Order, Product
from stages.sync.rest import PER_PAGE, WOOCOMMERCE, Page, Shop, WordPress
from stages.sync.store import HeldByAnother, Pull, ShopStore

log = logging.getLogger(__name__)

# Shops sort by their local time, in which an hour comes twice a year, and what is saved may show some time later.
OVERLAP = 2 * 3_600_000  # ms that each pull looks back
SECOND = 1_000  # ms, as fine as a shop tells when something changed
FIRST_PAUSE, LONGEST_PAUSE = 30.0, 3_600.0  # seconds that a shop that is away is left alone
LEAST_PER_PAGE = 10
MOST_NAMED = 20  # records that a result names as skipped


class Feed(NamedTuple):
    """A kind of records: which of their fields are asked for, how one is read, in which status one is as good as
    gone, and for how many seconds after it was last changed one is kept; 0: for as long as it is there."""

    kind: str
    fields: str
    query: Mapping[str, str]
    read: Callable[[msgspec.Raw, str], Product | Order]
    gone: Collection[str]
    keep: float = 0.0

    def since_ms(self) -> int:
        """When what is kept was last changed, at the earliest; a whole second."""
        return (now_ms() // SECOND - int(self.keep)) * SECOND if self.keep else 0


UNLISTED = {"trash", "auto-draft"}
# A checkout under way is a draft, and among the orders of a shop that has them in tables of their own (HPOS).
DRAFTS = {"draft", "checkout-draft"}
PRODUCTS = Feed("products", records.PRODUCT_FIELDS, {"status": "any"}, records.product, UNLISTED)


def orders_feed(region: str, keep: float = 0.0) -> Feed:
    """Orders, their customers' phone numbers as `normalised` has those of a region."""
    fields, gone = records.ORDER_FIELDS, UNLISTED | DRAFTS
    return Feed("orders", fields, {"status": "any"}, lambda raw, _: records.order(raw, region), gone, keep)


class Skipped(msgspec.Struct, frozen=True):
    """A record that could not be kept, by its id, and why."""

    id: str
    why: str


class Pulled(msgspec.Struct, kw_only=True, rename="camel"):
    """What a job did. `kept` counts records, not how often they came; `skipped` names the first of the `bad` ones.
    `state`: done, or why not."""

    state: str = "done"
    full: bool = False
    pages: int = 0
    kept: int = 0
    bad: int = 0
    deleted: int = 0
    skipped: list[Skipped] = []


class _Currency(msgspec.Struct):
    code: str


class PullHandler:
    """Pulls one kind of records, and does what follows `after` them.

    Where the last full pull is `full_every` seconds ago, one is made of all there is, which deletes what it did
    not meet. One that is interrupted goes on where it was."""

    def __init__(
        self,
        feed: Feed,
        shops: Mapping[str, Shop],
        wordpress: WordPress,
        store: ShopStore,
        full_every: float,
        after: Callable[[Context], Awaitable[object]] | None = None,
    ) -> None:
        self._feed, self._shops, self._store = feed, shops, store
        self._wordpress, self._after = wordpress, after
        self._full_every = int(full_every * 1000)

    async def __call__(self, ctx: Context, job: PullJob) -> Done:
        shop = shop_of(self._shops, ctx.tenant)
        try:
            pull = await self._store.begin(ctx.tenant, self._feed.kind, f"{ctx.job_id} {ctx.attempt}")
        except HeldByAnother as error:
            return Done(Pulled(state=str(error)))
        if pull.next_ms > now_ms() + SECOND and not job.full:
            await self._store.release(pull)
            return Done(Pulled(state=f"left alone: {pull.problem}"))
        return Done(await self._pull_or_wait(ctx, shop, pull, full=job.full))

    async def _pull_or_wait(self, ctx: Context, shop: Shop, pull: Pull, *, full: bool) -> Pulled:
        try:
            if not pull.full and (full or (pull.full_ended_ms or 0) + self._full_every < now_ms()):
                pull = await self._store.begin_full(pull, self._feed.since_ms())
            return await self._pull(ctx, shop, pull)
        except HeldByAnother as error:
            return Pulled(state=str(error))
        except ShopAway as error:
            pause = error.after or FIRST_PAUSE * 2 ** min(pull.failures, 7)
            pause = min(max(pause, FIRST_PAUSE), LONGEST_PAUSE)
            await self._fail(pull, error, pause)
            raise RetryLater(pause, str(error)) from None
        except ShopError as error:
            await self._fail(pull, error, LONGEST_PAUSE)
            if pull.problem == str(error):  # it has been said
                return Pulled(state=str(error))
            raise Permanent(str(error)) from None

    async def _fail(self, pull: Pull, error: ShopError, pause: float) -> None:
        with suppress(HeldByAnother):  # then it is for that one to say
            await self._store.fail(pull, str(error), now_ms() + int(pause * 1000))

    async def _pull(self, ctx: Context, shop: Shop, pull: Pull) -> Pulled:
        told, before = Pulled(full=pull.full), frozenset[int]()
        # A page may be more than a shop can make, or have one record in it that its plugins stumble over.
        per_page = max(PER_PAGE >> pull.failures, LEAST_PER_PAGE)
        listing = _Listing(self._wordpress, shop, self._feed, per_page)
        reading = _Reading(self._feed, await currency_of(self._wordpress, shop, self._feed), told)
        position = pull.position_ms if pull.full else max(0, pull.position_ms - OVERLAP)
        async for read, last, left in _pages(listing, position, reading):
            # A date that is yet to come would hide what changes until then.
            reached = min(max(last, pull.position_ms), now_ms() // SECOND * SECOND)
            pull = await self._store.keep(pull, read.found, reached, read.gone)
            ids = frozenset(record.id for record in read.found)
            told.pages, told.kept = told.pages + 1, told.kept + len(ids - before)
            before = ids  # a page begins with what the last one ended with
            await ctx.progress(100 * told.pages // (told.pages + left + 1), f"{told.kept:,} {self._feed.kind}")
        told.deleted = await self._sweep(listing, pull, reading) if pull.full else 0
        if self._after:
            await self._after(ctx)
        await self._store.end(pull)
        return told

    async def _sweep(self, listing: "_Listing", pull: Pull, reading: "_Reading") -> int:
        """Delete what a full pull did not meet; how many. The shop is asked for it first: where the times that it
        filters and sorts by disagree, a page jumps over records. Not for what is too old to be kept."""
        deleted, since = 0, self._feed.since_ms()
        while unseen := await self._store.unseen(pull, listing.per_page):
            if ids := [number for number, modified_ms in unseen if modified_ms >= since]:
                pull = await self._store.keep(pull, reading(await listing.of(ids)).found, pull.position_ms)
            deleted += await self._store.sweep(pull, [number for number, _ in unseen])
        return deleted


async def _pages(
    listing: "_Listing", position: int, reading: "_Reading"
) -> AsyncIterator[tuple["_Read", int, int]]:
    """The records of each page, when the last was modified, and how many pages there are after it."""
    while True:
        page = await listing.since(position)
        read = reading(page)
        if min(read.times, default=position) < position:
            raise ShopClosed(f"{listing} overlooks modified_after: it needs WooCommerce 5.8 or later")
        if page.pages > 1 and not read.times:
            raise ShopClosed(f"of a whole page {listing} does not say when they were modified")
        # Not the greatest: one record whose two times disagree would have the next page begin behind all others.
        last = read.times[-1] if read.times else position
        yield read, last, page.pages - 1
        if page.pages <= 1:
            return
        if last == position:
            async for page in listing.of_second(position):
                yield reading(page), position, page.pages
            last += SECOND
        position = last


class _Listing:
    """Asks a shop for pages of one kind of records."""

    def __init__(self, wordpress: WordPress, shop: Shop, feed: Feed, per_page: int) -> None:
        self._wordpress, self._shop, self._feed = wordpress, shop, feed
        self.per_page = per_page

    def __str__(self) -> str:
        return f"the list of {self._feed.kind} of the shop of {self._shop.tenant!r}"

    async def since(self, position: int) -> Page:
        """What was modified from then on, a second at least; in this order."""
        return await self._page(orderby="modified", **_after(position))

    async def of_second(self, second: int) -> AsyncIterator[Page]:
        """All that was modified in one second."""
        within = {**_after(second), "modified_before": _iso(second + SECOND)}
        number, total = 1, None
        while True:
            page = await self._page(orderby="id", page=str(number), **within)
            if total not in (None, page.total):  # one of them is gone, and what came after it has moved up
                number, total = 1, None
                continue
            yield page
            total, number = page.total, number + 1
            if number > page.pages:
                return

    async def of(self, ids: Sequence[int]) -> Page:
        """Those of these that there are."""
        return await self._page(include=",".join(map(str, ids)))

    async def _page(self, **query: str) -> Page:
        common = {"order": "asc", "dates_are_gmt": "true", "_fields": self._feed.fields}
        common["per_page"] = str(self.per_page)
        path = f"{WOOCOMMERCE}/{self._feed.kind}"
        return await self._wordpress.page(self._shop, path, {**self._feed.query, **common, **query})


class _Read(NamedTuple):
    """Of a page: what can be kept, the ids of what is as good as gone, and when all were modified, those that
    cannot be read, too."""

    found: list[Product | Order]
    gone: list[int]
    times: list[int]


class _Reading:
    """Reads pages, and tells of what cannot be read: one bad record is no reason to lose the others."""

    def __init__(self, feed: Feed, currency: str, told: Pulled) -> None:
        self._feed, self._currency, self._told = feed, currency, told

    def __call__(self, page: Page) -> _Read:
        found: list[Product | Order] = []
        gone: list[int | None] = []
        times: list[int | None] = []  # in the page's order
        for raw in page.records:
            if records.status_of(raw) in self._feed.gone:
                gone.append(records.id_of(raw))
                times.append(records.modified_ms(raw))
                continue
            try:
                record = self._feed.read(raw, self._currency)
                found.append(record)
                times.append(record.modified_ms)
            except BadRecord as error:
                self._skip(str(records.id_of(raw) or "without id"), str(error))
                times.append(records.modified_ms(raw))
        return _Read(found, list(filter(None, gone)), list(filter(None, times)))

    def _skip(self, name: str, why: str) -> None:
        self._told.bad += 1
        if len(self._told.skipped) < MOST_NAMED:
            self._told.skipped.append(Skipped(name, why))
            log.warning("a record of %s is left out: %s: %s", self._feed.kind, name, why)


async def currency_of(wordpress: WordPress, shop: Shop, feed: Feed) -> str:
    """The shop's, of which products say nothing; orders have their own."""
    if feed.kind != PRODUCTS.kind:
        return ""
    return (await wordpress.get(shop, f"{WOOCOMMERCE}/data/currencies/current", {}, _Currency)).code


def shop_of(shops: Mapping[str, Shop], tenant: str) -> Shop:
    """Raises Permanent where there is none."""
    if tenant not in shops:
        known = ", ".join(sorted(shops)) or "none"
        raise Permanent(f"tenant {tenant!r} has no shop (with one: {known}); see the setting sync.shops")
    return shops[tenant]


def _after(position: int) -> dict[str, str]:
    """A shop leaves out what was modified at the time itself."""
    return {"modified_after": _iso(position - SECOND)} if position else {}


def _iso(ms: int) -> str:
    return datetime.fromtimestamp(ms / 1000, UTC).strftime("%Y-%m-%dT%H:%M:%S")
