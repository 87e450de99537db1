"""Ten thousand products (ten times that with RIACHO_TEST_FULL, as in CI) pulled while they change, by a worker
that is killed half-way and one that goes on: nothing is missing, nothing doubled, and no memory is held for it."""

import asyncio
import os
import random
import signal
import time
from pathlib import Path

import msgspec
import psutil
import pytest
from aiohttp import web
from sqlalchemy import select

from pipeline import Broker, Job
from stages.jobs import Pull
from stages.store import Database, sqlite_file
from stages.sync.store import ShopStore, products
from tests.processes import environment, riacho, stop
from tests.support import add_one, eventually, until
from tests.woocommerce import KEY, SECRET, Shop, serving

pytestmark = [pytest.mark.faults, pytest.mark.timeout(240)]

COUNT = 100_000 if os.environ.get("RIACHO_TEST_FULL") else 10_000
PAGES = COUNT // 100
DAY = 86_400
MOST = 40 * 2**20  # bytes that a worker may grow by from a tenth of the pages on


class Busy:
    """Has products changed, one every few pages, and tells how many pages were asked for."""

    def __init__(self, shop: Shop) -> None:
        self.shop, self.pages, self.asked_after = shop, 0, list[str]()
        self._dice = random.Random(7)

    async def __call__(self, request: web.Request) -> None:
        if request.path.endswith("/products"):
            self.pages += 1
            self.asked_after.append(request.query.get("modified_after", ""))
            if self.pages % 7 == 0:
                self.shop.product(self._dice.randint(1, COUNT), time.time(), name=f"Torta {self.pages}")


async def test_a_pull_goes_on_where_it_was_killed(
    server: str, namespace: str, broker: Broker, tmp_path: Path
) -> None:
    async with serving(Shop()) as shop:
        for number in range(1, COUNT + 1):
            shop.product(number, time.time() - 10 * DAY + number // 3)
        shop.before = busy = Busy(shop)
        env = environment(
            REDIS_URL=server,
            RIACHO_REDIS_NAMESPACE=namespace,
            RIACHO_DATA_FOLDER=tmp_path,
            RIACHO_WORKER_LEASE=2,
            RIACHO_SYNC_SHOPS=msgspec.json.encode(
                {"padaria": {"url": shop.url, "key": KEY, "secret": SECRET}}
            ).decode(),
        )
        worker = "worker", "--stages", "products"
        job = await add_one(broker, Job(stage="products", payload=Pull(), tenant="padaria"))
        with riacho(*worker, env=env) as killed:
            await eventually(lambda: _asked(busy, PAGES // 2), what="half of the pages", deadline=100)
            killed.send_signal(signal.SIGKILL)
            killed.wait()
        before = len(busy.asked_after)
        async with Database(sqlite_file(tmp_path / "riacho.db")) as database:
            pull = await ShopStore(database).pull("padaria", "products")
        assert pull
        assert pull.full
        with riacho(*worker, env=env) as other:
            await eventually(lambda: _asked(busy, before + PAGES // 10), what="the second worker", deadline=60)
            early = psutil.Process(other.pid).memory_info().rss
            view = await until(broker, job, "completed", deadline=150)
            late = psutil.Process(other.pid).memory_info().rss
            assert await asyncio.to_thread(stop, other) == 0
        assert busy.asked_after[before] > busy.asked_after[0] == "", "it goes on from its cursor"
        assert busy.pages < 1.2 * PAGES
        assert view.result["bad"] == 0
        assert late - early < MOST, f"it grew from {early:,} to {late:,} bytes"
        async with Database(sqlite_file(tmp_path / "riacho.db")) as database:
            kept = await database.read(select(products.c.id, products.c.name))
        assert len(kept) == COUNT
        assert {row["id"]: row["name"] for row in kept} == {
            number: record["name"] for number, record in shop.products.records.items()
        }


async def _asked(busy: Busy, pages: int) -> bool:
    return busy.pages >= pages
