"""The live page in a real browser, on the real service: what people do with it during an incident."""

from collections.abc import AsyncIterator
from contextlib import aclosing
from pathlib import Path

import pytest
import pytest_asyncio
from aiohttp import web
from aiohttp.test_utils import make_mocked_request
from playwright.async_api import Browser, Locator, Page, expect

from api.adapters import Adapters
from api.app import build_app
from api.root import connector
from config import load
from pipeline import Broker, Context, Job, Permanent, Pipeline
from tests.browser import WAIT, Visit, needs_chromium, visit
from tests.desk import Served
from tests.support import Number, add_one, stage, status, until, working

# One browser for all of them, and so one event loop.
pytestmark = [pytest.mark.acceptance, needs_chromium, pytest.mark.asyncio(loop_scope="session")]

PHONE = {"viewport": {"width": 360, "height": 780}, "color_scheme": "dark", "locale": "pt-BR"}
DESKTOP = {"viewport": {"width": 1440, "height": 900}, "color_scheme": "light"}
# What the page asks for and can do without.
ASKED = {
    "/backpressure": "GET",
    "/queue/events": "GET",
    "/queue/dead": "GET",
    "/queue/workers": "GET",
    "/queue/pause/bake": "POST",
}
CAKE = "no cake no. 7 <img src=x onerror=alert(1)>"

expect.set_options(timeout=WAIT)


class Machine:
    """The service, and a worker on two stages: the outbox, and one that fails until it is mended."""

    def __init__(self) -> None:
        self.mended = False
        self.address = ""
        self.missing: set[str] = set()

    async def bake(self, ctx: Context, payload: Number) -> int:
        if not self.mended:
            raise Permanent(CAKE)
        return payload.n

    def needs(self, *paths: str) -> None:
        """Skip where the service has no such path."""
        if lacking := self.missing & set(paths):
            pytest.skip(f"this service has no {', '.join(sorted(lacking))} yet")

    def check(self, visited: Visit) -> None:
        """That every answer was a good one, but for what the service has not."""
        assert set(visited.answers) <= self.missing


@pytest.fixture
def machine() -> Machine:
    return Machine()


@pytest_asyncio.fixture(loop_scope="session")
async def broker(machine: Machine, server: str, namespace: str, tmp_path: Path) -> AsyncIterator[Broker]:
    """The machine at work."""
    here = {"redis": {"url": server, "namespace": namespace}, "data": {"folder": str(tmp_path)}}
    settings = load(here, environ={})
    adapters = Adapters(settings)
    pipeline = Pipeline([*adapters.pipeline(), stage("bake", machine.bake, queue="kitchen")])
    connect = connector(settings, pipeline)
    async with adapters.opened(), aclosing(adapters.database), connect() as broker:
        await broker.ensure_groups()
        app = build_app(broker, settings, adapters.notifications.log)
        machine.missing = {path for path, method in ASKED.items() if not await has(app, method, path)}
        worked = Pipeline([pipeline.stage("send-client"), pipeline.stage("bake")])
        async with Served(app, settings) as served, working(connect, worked):
            machine.address = str(served.make_url("/"))
            yield broker


async def has(app: web.Application, method: str, path: str) -> bool:
    """Whether the service has such an endpoint."""
    found = await app.router.resolve(make_mocked_request(method, path))
    return found.http_exception is None


async def tab_to(page: Page, target: Locator, key: str = "Tab") -> None:
    """Press Tab until something has the focus; fails where it cannot be reached so."""
    for _ in range(100):
        if await target.evaluate("node => node === document.activeElement"):
            return
        await page.keyboard.press(key)
    raise AssertionError(f"{target} cannot be reached by keyboard")


async def test_a_job_is_put_in_by_keyboard_and_watched_until_it_is_completed(
    machine: Machine, broker: Broker, browser: Browser
) -> None:
    async with visit(browser, machine.address, **DESKTOP) as visited:
        page = visited.page
        await expect(page.locator("#overall-state")).to_have_text("Keeping up")
        await tab_to(page, page.locator("#enqueue-queue"), "Shift+Tab")  # the form is the last there is
        await page.keyboard.type("notification")
        await tab_to(page, page.locator("#enqueue-kind"))
        await page.keyboard.type("send-client")
        await tab_to(page, page.locator("#enqueue-payload"))
        await page.keyboard.press("Control+A")
        await page.keyboard.type('{"to": "5511987654321", "text": "Olá"}')
        await tab_to(page, page.get_by_role("button", name="Put in"))
        await page.keyboard.press("Enter")
        await expect(page.locator("#job .mark")).to_have_text("completed")
        await expect(page.locator("#job .stage dd")).to_have_text("send-client")
        await page.locator("#language").select_option("pt")
        await expect(page.locator("#job .mark")).to_have_text("concluída")
        await expect(page.locator("#overall-state")).to_have_text("Em dia")
        await visited.picture("desktop-light")
        machine.check(visited)


async def test_a_dead_letter_is_seen_with_its_reason_and_replayed(
    machine: Machine, broker: Broker, browser: Browser
) -> None:
    machine.needs("/queue/dead")
    dead = await add_one(broker, Job(stage="bake", payload=Number(7)))
    await until(broker, dead, "failed")
    machine.mended = True
    async with visit(browser, machine.address, **PHONE) as visited:
        page = visited.page
        await page.locator("#attention").get_by_role("button", name="Mostrar").click()
        await expect(page.locator("#letters strong")).to_have_text(CAKE)
        await expect(page.locator("#dead-stage")).to_have_value("bake")
        await visited.picture("phone-dark")
        assert await visited.fits()
        await page.get_by_role("button", name=f"Repetir {dead}").click()
        await expect(page.locator("#said")).to_contain_text(f"{dead} voltou ao trabalho")
        await expect(page.locator("#dead-note")).to_have_text("Não há nenhuma.")
        machine.check(visited)
    assert (await status(broker, "bake")).dead == 0


async def test_a_stage_is_paused_and_goes_on_again(machine: Machine, broker: Broker, browser: Browser) -> None:
    machine.needs("/queue/pause/bake")
    async with visit(browser, machine.address) as visited:
        page = visited.page
        await page.get_by_role("button", name="Pause kitchen.bake").click()
        await expect(page.locator("#attention")).to_contain_text("kitchen.bake is paused")
        assert (await status(broker, "bake")).paused
        await page.locator(".stages").get_by_role("button", name="Resume kitchen.bake").click()
        await expect(page.locator("#attention")).not_to_contain_text("kitchen.bake is paused")
        assert not (await status(broker, "bake")).paused
        machine.check(visited)
