"""Products and orders pulled from a shop, into SQLite and PostgreSQL."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

import msgspec
import pytest
import pytest_asyncio
from aiohttp import web
from sqlalchemy import func, select, update

from pipeline import Context, Done, Permanent, RetryLater
from pipeline.message import now_ms
from stages.jobs import Pull
from stages.store import Database
from stages.sync.pull import OVERLAP, PRODUCTS, Pulled, PullHandler, orders_feed
from stages.sync.rest import Shop as Address
from stages.sync.rest import WordPress
from stages.sync.store import HeldByAnother, ShopStore, orders, product_words, products, pulls
from tests.support import context_of
from tests.woocommerce import KEY, SECRET, Shop, gmt, problem

pytestmark = pytest.mark.integration

MINUTE, HOUR, DAY = 60, 3_600, 86_400
LONG_AGO = time.time() - 60 * DAY


@pytest_asyncio.fixture
async def wordpress() -> AsyncIterator[WordPress]:
    async with WordPress(timeout=5) as client:
        yield client


class Desk:
    """Pulls from one shop, by jobs with a number each."""

    def __init__(self, database: Database, shop: Shop, wordpress: WordPress) -> None:
        self.store, self.database = ShopStore(database), database
        self.shop, self.wordpress = shop, wordpress
        self.address = Address("padaria", shop.url, KEY, SECRET)
        self.full_every = float(DAY)
        self._jobs = 0

    async def pull(self, feed: Any = PRODUCTS, *, full: bool = False, job: int = 0, attempt: int = 1) -> Pulled:
        self._jobs += 1
        handler = PullHandler(feed, {"padaria": self.address}, self.wordpress, self.store, self.full_every)
        done = await handler(context(job or self._jobs, attempt), Pull(full=full))
        assert isinstance(done, Done)
        assert isinstance(done.result, Pulled)
        return done.result

    async def kill(self, at: int, counted: Callable[[web.Request], bool], **pull: Any) -> None:
        """Pull, and be killed when the shop is asked the `at`-th of these requests."""
        asked, reached = 0, asyncio.Event()

        async def stall(request: web.Request) -> None:
            nonlocal asked
            asked += counted(request)
            if asked == at:
                reached.set()
                await asyncio.Event().wait()

        self.shop.before = stall
        killed = asyncio.create_task(self.pull(**pull))
        await reached.wait()
        killed.cancel()
        with pytest.raises(asyncio.CancelledError):
            await killed
        self.shop.before = None

    async def names(self) -> list[str]:
        rows = await self.database.read(select(products.c.name).order_by(products.c.id))
        return [row["name"] for row in rows]

    async def check_words(self) -> None:
        """Products are found by the names that they have, and nothing else is."""
        named = await self.database.read(select(products.c.id, products.c.words).where(products.c.published))
        found = await self.database.read(select(product_words.c.id, product_words.c.word))
        wanted = {(row["id"], word) for row in named for word in row["words"].split()}
        assert {(row["id"], row["word"]) for row in found} == wanted

    async def count(self, table: Any = products) -> int:
        (row,) = await self.database.read(select(func.count().label("n")).select_from(table))
        return int(row["n"])


@pytest.fixture
def desk(database: Database, shop: Shop, wordpress: WordPress) -> Desk:
    return Desk(database, shop, wordpress)


def context(number: int, attempt: int = 1) -> Context:
    return context_of("products", Pull(), tenant="padaria", number=number, attempt=attempt)


async def test_all_there_is_and_then_what_changed(desk: Desk) -> None:
    for number in range(1, 251):
        desk.shop.product(number, LONG_AGO + number * 3 * HOUR)
    first = await desk.pull()
    assert (first.state, first.full, first.kept, first.bad) == ("done", True, 250, 0)
    assert await desk.count() == 250

    desk.shop.product(7, time.time() - MINUTE, name="Bolo de <b>milho</b> &amp; coco", price="1234.5")
    desk.shop.product(999, time.time() - MINUTE)
    asked = len(desk.shop.asked)
    second = await desk.pull()
    assert (second.full, second.kept, second.pages) == (False, 3, 1), "the newest of before is looked at again"
    assert len(desk.shop.asked) - asked == 2, "its currency, and one page"
    (found,) = await desk.store.products_named("padaria", ["milho"], 5)
    assert (found.name, found.price, found.currency) == ("Bolo de milho & coco", "1234.5", "BRL")
    assert await desk.count() == 251


async def test_pulling_the_same_again_changes_nothing(desk: Desk) -> None:
    for number in range(1, 130):
        desk.shop.product(number, LONG_AGO + number)
    await desk.pull(full=True)
    rows = select(products.c.id, products.c.words, products.c.modified_ms).order_by(products.c.id)
    before = await desk.database.read(rows)
    assert (await desk.pull(full=True)).deleted == 0
    assert await desk.database.read(rows) == before


async def test_more_than_a_page_of_the_same_second_are_all_pulled(desk: Desk) -> None:
    for number in range(1, 351):
        desk.shop.product(number, LONG_AGO)
    for number in range(351, 361):
        desk.shop.product(number, LONG_AGO + 1)
    assert (await desk.pull()).state == "done"
    assert await desk.count() == 360


async def test_what_changes_while_pages_are_turned_is_not_missed(desk: Desk) -> None:
    """After every page something that was pulled moves to the end, something yet to come does so, too, or goes."""
    for number in range(1, 501):
        desk.shop.product(number, LONG_AGO + number // 40)
    changed = 0

    async def meanwhile(request: web.Request) -> None:
        nonlocal changed
        if "/products" in request.path and changed < 40:
            changed += 1
            desk.shop.product(changed, time.time() - DAY + changed)
            desk.shop.products.drop(500 - changed)
            desk.shop.product(1_000 + changed, LONG_AGO + 5)

    desk.shop.before = meanwhile
    await desk.pull()
    assert changed > 5
    desk.shop.before = None
    kept = {row["id"] for row in await desk.database.read(select(products.c.id))}
    missing = set(desk.shop.products.records) - kept
    assert all(number > 1_000 for number in missing), "what was there all the time is there"
    await desk.pull(full=True)
    rows = await desk.database.read(select(products.c.id))
    assert {row["id"] for row in rows} == set(desk.shop.products.records), "and a full pull has it to the letter"
    await desk.check_words()


async def test_a_product_is_found_by_the_name_it_has_now(desk: Desk) -> None:
    for number in range(1, 5):
        desk.shop.product(number, LONG_AGO, name=f"Bolo de milho {number} " + "x" * 65)
    await desk.pull()
    assert await desk.store.products_named("padaria", ["x" * 65], 5) == [], "nobody asks for that"
    desk.shop.product(1, time.time(), name="Torta de limão")
    desk.shop.product(2, time.time(), name="Bolo de milho 2", status="draft")
    desk.shop.product(3, time.time(), status="trash")
    desk.shop.products.drop(4)
    await desk.pull(full=True)
    await desk.check_words()
    assert await desk.store.products_named("padaria", ["milho"], 5) == []
    assert [product.id for product in await desk.store.products_named("padaria", ["limao"], 5)] == [1]
    older = msgspec.structs.replace((await desk.store.products_named("padaria", ["limao"], 5))[0], modified_ms=1)
    await desk.store.keep_one("padaria", "products", msgspec.structs.replace(older, name="Bolo"))
    assert await desk.store.products_named("padaria", ["bolo"], 5) == [], "an older version changes nothing"


async def test_a_product_is_read_however_its_price_is_written(desk: Desk) -> None:
    for number, price in enumerate(("12.50", 12.5, 12, "", None), 1):
        desk.shop.product(number, LONG_AGO, price=price, sku=None, type="variable" if number == 2 else "simple")
    assert (await desk.pull()).bad == 0
    found = await desk.store.products_named("padaria", ["bolo"], 5)
    assert {product.id: product.price for product in found} == {1: "12.50", 2: "12.5", 3: "12", 4: None, 5: None}
    assert [product.id for product in found if product.varies] == [2]


async def test_a_date_that_is_yet_to_come_hides_no_change_before_it(desk: Desk) -> None:
    desk.shop.product(1, LONG_AGO)
    desk.shop.product(2, time.time() + 300 * DAY)
    await desk.pull()
    desk.shop.product(1, time.time(), price="30.00")
    assert (await desk.pull()).full is False
    found = await desk.store.products_named("padaria", ["bolo"], 5)
    assert {product.id: product.price for product in found} == {1: "30.00", 2: "12.50"}


async def test_after_a_date_that_is_yet_to_come_pulls_go_on_from_a_whole_second(desk: Desk) -> None:
    desk.shop.product(1, time.time() + DAY)
    await desk.pull()
    pull = await desk.store.pull("padaria", "products")
    assert pull
    desk.shop.product(2, (pull.position_ms - OVERLAP) // 1_000)
    assert (await desk.pull()).kept == 2


async def test_a_shop_that_cannot_make_a_page_is_asked_for_smaller_ones(desk: Desk) -> None:
    for number in range(1, 201):
        desk.shop.product(number, LONG_AGO + number * HOUR)

    async def small(request: web.Request) -> web.Response | None:
        large = int(request.query.get("per_page", "1")) > 25
        return problem(500, "internal_server_error", "There has been a critical error.") if large else None

    desk.shop.before = small
    for _ in range(2):
        with pytest.raises(RetryLater, match="500"):
            await desk.pull()
        await desk.database.write(update(pulls).values(next_ms=0))
    assert (await desk.pull()).kept == 200


async def test_what_is_gone_from_the_shop_goes_with_a_full_pull(desk: Desk) -> None:
    for number in range(1, 121):
        desk.shop.product(number, LONG_AGO + number)
    await desk.pull()
    for number in range(1, 51):
        desk.shop.products.drop(number)
    assert (await desk.pull()).deleted == 0
    assert await desk.count() == 120
    assert (await desk.pull(full=True)).deleted == 50
    assert await desk.count() == 70


async def test_what_a_page_jumped_over_is_not_taken_for_gone(desk: Desk) -> None:
    for number in range(1, 301):
        desk.shop.product(number, LONG_AGO + number * HOUR)
    await desk.pull()
    # A shop lists by the one time and leaves out by the other: when this one's turn comes, it is too old.
    desk.shop.products.by_local_time = True
    late = gmt(LONG_AGO + 250 * HOUR)
    desk.shop.product(150, LONG_AGO + 150 * HOUR, name="Bolo de fubá", date_modified=late)
    desk.shop.products.drop(7)
    desk.shop.product(8, time.time(), status="trash")
    told = await desk.pull(full=True)
    assert (told.kept, told.deleted) == (297, 2)
    assert await desk.count() == 298
    assert len(await desk.store.products_named("padaria", ["fuba"], 5)) == 1, "it is kept as it is now"
    assert sum("include=" in asked for asked in desk.shop.asked) == 1


async def test_a_record_whose_times_disagree_hides_no_other(desk: Desk) -> None:
    desk.shop.products.by_local_time = True
    for number in range(1, 301):
        desk.shop.product(number, LONG_AGO + number * HOUR)
    early = gmt(LONG_AGO + 50 * HOUR - 3 * HOUR)
    desk.shop.product(50, LONG_AGO + 250 * HOUR, date_modified=early)
    await desk.pull()
    assert await desk.count() == 300


async def test_one_killed_while_it_deletes_goes_on(desk: Desk) -> None:
    for number in range(1, 351):
        desk.shop.product(number, LONG_AGO + number * HOUR)
    await desk.pull()
    for number in range(1, 301):
        desk.shop.products.drop(number)
    await desk.kill(2, lambda request: "include" in request.query, job=77, full=True)
    assert await desk.count() == 250
    again = await desk.pull(job=77, attempt=2)
    assert (again.full, again.pages, again.deleted) == (True, 1, 200)
    assert await desk.count() == 50


async def test_one_killed_half_way_goes_on_where_it_was(desk: Desk) -> None:
    for number in range(1, 1_001):
        desk.shop.product(number, LONG_AGO + number)
    await desk.kill(5, lambda request: "/products" in request.path, job=77)
    kept = await desk.count()
    assert 300 <= kept <= 400
    # The worker is gone, and took nothing back: its hold on the pull, and what it knew.
    held = {"held_until_ms": now_ms() + 60_000, "next_ms": 0, "failures": 0}
    await desk.database.write(pulls.update().values(held))
    asked = len(desk.shop.asked)
    other = await desk.pull()
    assert "another job" in other.state
    again = await desk.pull(job=77, attempt=2)
    assert (again.state, again.full) == ("done", True)
    assert len(desk.shop.asked) - asked <= 9, "those that were kept are not pulled again"
    assert await desk.count() == 1_000


async def test_a_worker_that_was_thought_dead_writes_nothing_more(desk: Desk) -> None:
    for number in range(1, 301):
        desk.shop.product(number, LONG_AGO + number)
    taken = asyncio.Event()

    async def slow(request: web.Request) -> None:
        if "page=1" in request.path_qs and not taken.is_set():
            taken.set()
            await asyncio.sleep(0.2)

    desk.shop.before = slow
    first = asyncio.create_task(desk.pull(job=5, attempt=1))
    await taken.wait()
    second = await desk.pull(job=5, attempt=2)
    assert second.state == "done"
    assert "another job" in (await first).state
    assert await desk.count() == 300


async def test_nor_does_it_delete_anything_more(desk: Desk) -> None:
    desk.shop.product(1, LONG_AGO)
    await desk.pull()
    pull = await desk.store.begin_full(await desk.store.begin("padaria", "products", "one 1"))
    await desk.database.write(update(pulls).values(held_until_ms=0))
    await desk.store.begin("padaria", "products", "other 1")
    with pytest.raises(HeldByAnother):
        await desk.store.sweep(pull, [1])
    assert await desk.count() == 1


async def test_a_bad_record_is_named_and_the_others_are_kept(desk: Desk) -> None:
    for number in range(1, 201):
        desk.shop.product(number, LONG_AGO + number)
    desk.shop.product(17, LONG_AGO + 17, price="um real")
    desk.shop.product(18, LONG_AGO + 18, name=None)
    told = await desk.pull()
    assert (told.kept, told.bad) == (198, 2)
    assert [skipped.id for skipped in told.skipped] == ["17", "18"]
    assert "'um real', which is no amount" in told.skipped[0].why
    assert await desk.count() == 198


async def test_pages_without_a_record_that_can_be_kept_are_gone_through_once(desk: Desk) -> None:
    for number in range(1, 301):
        desk.shop.product(number, LONG_AGO + number * HOUR, price="1,50")
    desk.shop.product(301, LONG_AGO + 301 * HOUR, stock_quantity=1e20)
    desk.shop.product(302, LONG_AGO + 302 * HOUR)
    told = await desk.pull()
    assert (told.kept, told.bad) == (1, 304), "a page begins with what the last one ended with"
    assert len(desk.shop.asked) < 10
    assert await desk.count() == 1


async def test_a_page_of_which_nobody_knows_when_ends_the_pull(desk: Desk) -> None:
    for number in range(1, 301):
        desk.shop.product(number, LONG_AGO + number)
        desk.shop.products.records[number]["date_modified_gmt"] = None
    with pytest.raises(Permanent, match="does not say when"):
        await desk.pull()
    assert len(desk.shop.asked) < 5


async def test_what_a_shop_refuses_is_told_once(desk: Desk) -> None:
    async def older(request: web.Request) -> web.Response | None:
        if request.query.get("orderby") != "modified":
            return None
        return problem(400, "rest_invalid_param", "Invalid parameter(s): orderby")

    desk.shop.before = older
    with pytest.raises(Permanent, match="orderby"):
        await desk.pull()
    assert "left alone: " in (await desk.pull()).state


async def test_a_shop_that_is_away_is_left_alone_longer_each_time(desk: Desk) -> None:
    desk.shop.product(1, LONG_AGO)

    async def busy(_: web.Request) -> web.Response:
        return problem(503, "busy", "Briefly unavailable for scheduled maintenance.")

    desk.shop.before = busy
    pauses = []
    for number in range(4):
        await desk.database.write(pulls.update().values(next_ms=0))
        with pytest.raises(RetryLater) as told:
            await desk.pull(job=number + 1)
        pauses.append(told.value.seconds)
    assert pauses == [30, 60, 120, 240]
    asked = len(desk.shop.asked)
    assert "503" in (await desk.pull()).state
    assert len(desk.shop.asked) == asked, "another job asks for nothing meanwhile"
    desk.shop.before = None
    await desk.database.write(pulls.update().values(next_ms=0))
    assert (await desk.pull()).kept == 1
    pull = await desk.store.pull("padaria", "products")
    assert pull
    assert (pull.failures, pull.problem, pull.next_ms) == (0, "", 0)


async def test_a_shop_says_itself_how_long_to_wait(desk: Desk) -> None:
    async def limited(_: web.Request) -> web.Response:
        return problem(429, "rate_limited", "Slow down.", **{"Retry-After": "90"})

    desk.shop.before = limited
    with pytest.raises(RetryLater) as told:
        await desk.pull()
    assert told.value.seconds == 90


async def test_a_wrong_key_is_told_once_and_has_no_secret_in_it(desk: Desk) -> None:
    desk.address = Address("padaria", desk.shop.url, KEY, "cs_wrong")
    with pytest.raises(Permanent, match=r"woocommerce_rest_cannot_view.*shops\.padaria") as told:
        await desk.pull()
    assert "cs_wrong" not in str(told.value)
    await desk.database.write(pulls.update().values(next_ms=0))
    assert "401" in (await desk.pull()).state, "said before"


async def test_a_tenant_without_a_shop_is_told_who_has_one(desk: Desk) -> None:
    handler = PullHandler(PRODUCTS, {}, desk.wordpress, desk.store, DAY)
    with pytest.raises(Permanent, match=r"tenant 'padaria' has no shop \(with one: none\)"):
        await handler(context(1), Pull())


async def test_a_shop_too_old_for_modified_after_is_not_asked_for_ever(desk: Desk) -> None:
    for number in range(1, 301):
        desk.shop.product(number, LONG_AGO + number)
    find = desk.shop.products.find
    desk.shop.products.find = lambda *_: find("", "")  # type: ignore[method-assign]
    with pytest.raises(Permanent, match=r"WooCommerce 5\.8"):
        await desk.pull()


async def test_orders_have_what_the_chat_needs(desk: Desk) -> None:
    desk.shop.order(41, time.time() - MINUTE, status="on-hold")
    desk.shop.order(42, time.time(), date_paid_gmt="2026-11-23T10:00:00")
    assert (await desk.pull(orders_feed("BR"))).kept == 2
    assert await desk.count(orders) == 2
    order, _ = await desk.store.orders_of("padaria", "+5511987654321", 5)
    assert (order.status, order.total, order.currency, order.paid_ms) == (
        "processing",
        "25.00",
        "BRL",
        1795428000000,
    )
    assert [(item.name, item.quantity, item.total) for item in order.items] == [("Bolo 1", 2, "25.00")]


async def test_checkouts_under_way_are_no_orders(desk: Desk) -> None:
    for number in range(1, 251):
        desk.shop.order(number, LONG_AGO + number * HOUR, status="checkout-draft")
    desk.shop.order(251, LONG_AGO + 251 * HOUR)
    assert (await desk.pull(orders_feed("BR"))).kept == 1
    assert [order.id for order in await desk.store.orders_of("padaria", "+5511987654321", 5)] == [251]
    desk.shop.order(251, time.time(), status="checkout-draft")
    told = await desk.pull(orders_feed("BR"))
    assert (told.full, told.bad) == (False, 0)
    assert await desk.count(orders) == 0, "nor is what was one before"


async def test_orders_are_kept_for_so_long_after_their_last_change(desk: Desk) -> None:
    for number, days in ((1, 400), (2, 29.99), (3, 1)):
        desk.shop.order(number, time.time() - days * DAY)
    month = orders_feed("BR", 30.0 * DAY)
    assert (await desk.pull(orders_feed("BR"))).kept == 3
    told = await desk.pull(month, full=True)
    assert (told.kept, told.deleted) == (2, 1)
    assert not any("include=" in asked for asked in desk.shop.asked), "what is that old is not asked for"
    assert [order.id for order in await desk.store.orders_of("padaria", "+5511987654321", 5)] == [3, 2]
