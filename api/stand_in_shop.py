"""A stand-in for a WooCommerce shop, for the demo: some products and an order, in pages as the real one's."""

import itertools
import time
from contextlib import AbstractAsyncContextManager
from datetime import UTC, datetime
from typing import Any

from aiohttp import BasicAuth, web

from api.stand_in import serving

KEY, SECRET = "ck_demo", "cs_demo"
MENU = (("Pizza de calabresa", "49.90"), ("Pizza de quatro queijos", "56.00"), ("Esfiha de carne", "8.50"))

Record = dict[str, Any]


class StandInShop:
    """All of it changed when it was made; `customer` has ordered something."""

    def __init__(self, customer: str) -> None:
        now = datetime.fromtimestamp(int(time.time()), UTC).strftime("%Y-%m-%dT%H:%M:%S")
        self._records: dict[str, list[Record]] = {
            "products": [_product(number, name, price) for number, (name, price) in enumerate(MENU, 1)],
            "orders": [
                {
                    "id": 1042,
                    "status": "processing",
                    "total": "105.90",
                    "currency": "BRL",
                    "billing": {"phone": f"+{customer}"},
                }
            ],
        }
        for record in itertools.chain(*self._records.values()):
            record["date_modified_gmt"] = now

    def running(self) -> AbstractAsyncContextManager[str]:
        """Its address, while it lasts."""
        base = "/wp-json/wc/v3"
        return serving(
            web.get(f"{base}/data/currencies/current", self._currency),
            web.get(f"{base}/{{kind:products|orders}}", self._page),
        )

    async def _currency(self, request: web.Request) -> web.Response:
        _check_login(request)
        return web.json_response({"code": "BRL"})

    async def _page(self, request: web.Request) -> web.Response:
        _check_login(request)
        after = request.query.get("modified_after", "")
        found = [each for each in self._records[request.match_info["kind"]] if each["date_modified_gmt"] > after]
        return web.json_response(found, headers={"X-WP-Total": str(len(found)), "X-WP-TotalPages": "1"})


def _product(number: int, name: str, price: str) -> Record:
    link = f"https://shop.example/p/{number}"
    return {"id": number, "name": name, "price": price, "status": "publish", "permalink": link}


def _check_login(request: web.Request) -> None:
    if request.headers.get("Authorization") != BasicAuth(KEY, SECRET).encode():
        raise web.HTTPUnauthorized
