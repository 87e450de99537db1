"""A stand-in for a WooCommerce shop: strict about what it is asked, with pages and errors as the real one's.

What it does is as the controllers of WooCommerce 10 do it: `wc/v3/products`, `orders` (with notes), their `batch`,
and `data/currencies/current`; and as WordPress does `wp/v2/media`, for a user with an application password.
"""

import base64
import bisect
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any

from aiohttp import web

KEY, SECRET = "ck_0123456789abcdef", "cs_fedcba9876543210"
USER, PASSWORD = "riacho", "abcd efgh ijkl mnop qrst uvwx"
MEDIA_TYPES = {"image/jpeg": "jpg", "image/png": "png", "application/pdf": "pdf"}
PER_PAGE = 100
ORDERS_BY = {"date", "id", "include", "title", "slug", "modified", "price", "popularity", "rating", "menu_order"}
COLLECTION = {
    *("page", "per_page", "orderby", "order", "modified_after", "modified_before", "dates_are_gmt", "_fields"),
    *("status", "include", "exclude"),
}
STATUSES = {"pending", "processing", "on-hold", "completed", "cancelled", "refunded", "failed"}
UNLISTED = {"trash", "auto-draft"}  # drafts of checkouts are listed, as with HPOS

Record = dict[str, Any]
Answer = Callable[[web.Request], Awaitable[web.Response | None]]


def gmt(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S")


class Collection:
    """Records in the order in which they were changed."""

    def __init__(self) -> None:
        self.records: dict[int, Record] = {}
        self.by_local_time = False  # whether they are listed by `date_modified`, which may say something else
        self._order: list[tuple[str, int]] = []

    def put(self, record: Record) -> None:
        self.drop(record["id"])
        self.records[record["id"]] = record
        if _is_listed(record):
            bisect.insort(self._order, (str(record["date_modified_gmt"]), record["id"]))

    def drop(self, id: int) -> None:  # noqa: A002
        old = self.records.pop(id, None)
        if old and _is_listed(old):
            self._order.remove((str(old["date_modified_gmt"]), id))

    def find(self, after: str, before: str) -> range:
        """Which of `ids` were modified between the two, neither included."""
        first = bisect.bisect_left(self._order, (f"{after}\x00", 0)) if after else 0
        last = bisect.bisect_left(self._order, (before, 0)) if before else len(self._order)
        return range(first, last)

    def otherwise(self, places: Sequence[int]) -> list[int]:
        """The same, of one time in another order: a database has none of its own for these."""
        return sorted(places, key=lambda place: (self._order[place][0], -place))

    def local_time(self, place: int) -> str:
        """Of the record there."""
        return str(self.records[self._order[place][1]]["date_modified"])

    def at(self, places: Iterable[int]) -> list[int]:
        """The ids there."""
        return [self._order[place][1] for place in places]


class Shop:
    """What the shop has, and what it was asked. `before` may answer a request in place of the shop, or change
    something first."""

    def __init__(self) -> None:
        self.products, self.orders = Collection(), Collection()
        self.notes: dict[int, list[Record]] = {}
        self.media: dict[str, Record] = {}
        self.asked: list[str] = []
        self.before: Answer | None = None
        self.closed = False
        self.url = ""

    def product(self, id: int, modified: float, **fields: Any) -> None:  # noqa: A002
        """Put one, with what a real one has beside."""
        record = {
            "id": id,
            "name": f"Bolo {id}",
            "sku": f"B-{id}",
            "price": "12.50",
            "regular_price": "15.00",
            "status": "publish",
            "stock_status": "instock",
            "stock_quantity": None,
            "type": "simple",
            "parent_id": 0,
            "permalink": f"https://shop.example/p/{id}",
            "short_description": "",
            "description": "<p>Bom</p>",
            "date_modified_gmt": gmt(modified),
            "date_modified": gmt(modified - 10_800),
            "meta_data": [],
        }
        self.products.put(record | fields)

    def order(self, id: int, modified: float, **fields: Any) -> None:  # noqa: A002
        record = {
            "id": id,
            "number": str(id),
            "status": "processing",
            "total": "25.00",
            "currency": "BRL",
            "date_modified_gmt": gmt(modified),
            "date_created_gmt": gmt(modified),
            "date_paid_gmt": None,
            "billing": {
                "first_name": "Ana",
                "last_name": "Souza",
                "phone": "(11) 98765-4321",
                "email": "a@b.example",
            },
            "line_items": [{"id": 1, "name": "Bolo 1", "quantity": 2, "total": "25.00", "price": 12.5}],
        }
        self.orders.put(record | fields)

    def application(self) -> web.Application:
        app = web.Application(client_max_size=2**20, middlewares=[self._guard])
        for name in ("products", "orders"):
            base = f"/wp-json/wc/v3/{name}"
            app.router.add_get(base, self._list)
            app.router.add_post(f"{base}/batch", self._batch)
            app.router.add_get(base + r"/{id:\d+}", self._one)
            app.router.add_put(base + r"/{id:\d+}", self._change)
            app.router.add_post(base + r"/{id:\d+}", self._change)
        app.router.add_get(r"/wp-json/wc/v3/orders/{id:\d+}/notes", self._notes)
        app.router.add_post(r"/wp-json/wc/v3/orders/{id:\d+}/notes", self._note)
        app.router.add_get("/wp-json/wc/v3/data/currencies/current", self._currency)
        app.router.add_get("/wp-json/wp/v2/media", self._media)
        app.router.add_post("/wp-json/wp/v2/media", self._upload)
        app.router.add_get("/wp-json/wp/v2/users/me", self._me)
        return app

    @web.middleware
    async def _guard(self, request: web.Request, handler: Any) -> web.StreamResponse:
        self.asked.append(f"{request.method} {request.path_qs}")
        if request.match_info.http_exception is not None:
            return problem(404, "rest_no_route", "No route was found matching the URL and request method.")
        login = f"{USER}:{PASSWORD}" if "/wp/" in request.path else f"{KEY}:{SECRET}"
        given = base64.b64encode(login.encode()).decode()
        if self.closed or request.headers.get("Authorization") != f"Basic {given}":
            return problem(401, "woocommerce_rest_cannot_view", "Sorry, you cannot list resources.")
        if self.before and (answer := await self.before(request)):
            return answer
        answered: web.StreamResponse = await handler(request)
        return answered

    def _of(self, request: web.Request) -> Collection:
        return self.orders if "/orders" in request.path else self.products

    async def _list(self, request: web.Request) -> web.Response:
        query, collection = request.query, self._of(request)
        for name, value in query.items():
            if not _is_good(name, value):
                return problem(400, "rest_invalid_param", f"Invalid parameter(s): {name}")
        found: Sequence[int] = collection.find(query.get("modified_after", ""), query.get("modified_before", ""))
        if include := query.get("include"):
            wanted = {int(number) for number in include.split(",")}
            found = [place for place in found if collection.at([place])[0] in wanted]
        if query.get("order", "desc") == "desc":
            found = found[::-1]
        per_page, page = int(query.get("per_page", "10")), int(query.get("page", "1"))
        if query.get("orderby") == "modified" and collection.by_local_time:
            found = sorted(found, key=collection.local_time)
        if query.get("orderby") == "modified" and page % 2 == 0:
            found = collection.otherwise(found)
        chosen = [
            collection.records[each] for each in collection.at(found[(page - 1) * per_page : page * per_page])
        ]
        headers = {"X-WP-Total": str(len(found)), "X-WP-TotalPages": str(-(-len(found) // per_page))}
        return web.json_response([_with_fields(record, query) for record in chosen], headers=headers)

    async def _one(self, request: web.Request) -> web.Response:
        record = self._of(request).records.get(int(request.match_info["id"]))
        if record is None:
            kind = "shop_order" if "/orders" in request.path else "product"
            return problem(404, f"woocommerce_rest_{kind}_invalid_id", "Invalid ID.")
        return web.json_response(_with_fields(record, request.query))

    async def _change(self, request: web.Request) -> web.Response:
        changed = self._changed(self._of(request), int(request.match_info["id"]), await request.json())
        return web.json_response(changed) if "code" not in changed else problem(400, changed["code"], "No.")

    async def _batch(self, request: web.Request) -> web.Response:
        wanted = await request.json()
        if sum(map(len, wanted.values())) > PER_PAGE:
            return problem(
                413, "woocommerce_rest_request_entity_too_large", "Unable to accept more than 100 items."
            )
        done = []
        for item in wanted.get("update", []):
            changed = self._changed(self._of(request), item["id"], item)
            failed = {
                "id": item["id"],
                "error": {"code": changed.get("code"), "message": "No.", "data": {"status": 400}},
            }
            done.append(failed if "code" in changed else changed)
        return web.json_response({"update": done})

    def _changed(self, collection: Collection, id: int, wanted: Record) -> Record:  # noqa: A002
        if id not in collection.records:
            return {"code": "woocommerce_rest_shop_order_invalid_id"}
        if wanted.get("status", "processing") not in STATUSES:
            wanted |= {"status": "pending"}  # in a batch nothing is checked
        collection.put(collection.records[id] | wanted | {"date_modified_gmt": gmt(datetime.now(UTC).timestamp())})
        return collection.records[id]

    async def _notes(self, request: web.Request) -> web.Response:
        return web.json_response(self.notes.get(int(request.match_info["id"]), []))

    async def _note(self, request: web.Request) -> web.Response:
        id, wanted = int(request.match_info["id"]), await request.json()  # noqa: A001
        if id not in self.orders.records:
            return problem(404, "woocommerce_rest_order_invalid_id", "Invalid order ID.")
        if not isinstance(wanted.get("note"), str):
            return problem(400, "rest_missing_callback_param", "Missing parameter(s): note")
        notes = self.notes.setdefault(id, [])
        notes.append(
            {"id": len(notes) + 1, "note": wanted["note"], "customer_note": bool(wanted.get("customer_note"))}
        )
        return web.json_response(notes[-1], status=201)

    async def _media(self, request: web.Request) -> web.Response:
        found = self.media.get(request.query["slug"])
        if not found or found["status"] != request.query.get("status", "inherit"):
            return web.json_response([])
        return web.json_response([_with_fields(found, request.query)])

    async def _upload(self, request: web.Request) -> web.Response:
        """The file as the body, its fields in the query."""
        named = re.fullmatch(
            r'attachment; filename="([\w.-]+)"', request.headers.get("Content-Disposition", ""), re.ASCII
        )
        if not named:
            return problem(400, "rest_upload_no_content_disposition", "No Content-Disposition supplied.")
        ending = MEDIA_TYPES.get(request.content_type)
        if ending is None or not named[1].endswith(f".{ending}"):
            return problem(500, "rest_upload_sideload_error", "Sorry, you are not allowed to upload this.")
        query = request.query
        record = {
            "id": len(self.media) + 1,
            "slug": query["slug"],
            "status": query.get("status", "inherit"),
            "title": {"raw": query.get("title", "")},
            "source_url": f"{self.url}/wp-content/uploads/{named[1]}",
            "content": await request.read(),
        }
        self.media[query["slug"]] = record
        return web.json_response({name: value for name, value in record.items() if name != "content"}, status=201)

    async def _me(self, _: web.Request) -> web.Response:
        return web.json_response({"id": 2, "name": USER, "slug": USER})

    async def _currency(self, _: web.Request) -> web.Response:
        return web.json_response({"code": "BRL", "name": "Brazilian real", "symbol": "R$"})


def problem(status: int, code: str, message: str, **headers: str) -> web.Response:
    body = {"code": code, "message": message, "data": {"status": status}}
    return web.json_response(body, status=status, headers=headers)


def _is_listed(record: Record) -> bool:
    """Others are found by their id alone."""
    return record["status"] not in UNLISTED and record.get("type") != "variation"


def _is_good(name: str, value: str) -> bool:
    match name:
        case "page":
            return value.isdecimal() and int(value) >= 1
        case "per_page":
            return value.isdecimal() and 1 <= int(value) <= PER_PAGE
        case "orderby":
            return value in ORDERS_BY
        case "order":
            return value in ("asc", "desc")
        case "modified_after" | "modified_before":
            return bool(datetime.fromisoformat(value))
    return name in COLLECTION


def _with_fields(record: Record, query: Any) -> Record:
    fields = query.get("_fields")
    return {name: record[name] for name in fields.split(",") if name in record} if fields else record


@asynccontextmanager
async def serving(shop: Shop) -> AsyncIterator[Shop]:
    """The shop on a port of its own, while it lasts."""
    runner = web.AppRunner(shop.application(), shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    assert site._server
    shop.url = "http://{}:{}".format(*site._server.sockets[0].getsockname())  # type: ignore[attr-defined]
    try:
        yield shop
    finally:
        await runner.cleanup()
