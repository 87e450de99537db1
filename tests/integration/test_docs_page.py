"""/docs in a real browser: all of the document, by keyboard, on a phone, in the dark."""

import pytest
from playwright.async_api import Browser, expect

from tests.browser import needs_chromium, visit
from tests.desk import Serve
from tests.document import read

pytestmark = [pytest.mark.integration, needs_chromium, pytest.mark.asyncio(loop_scope="session")]


async def test_all_of_the_document_is_there_to_be_read(browser: Browser, serve: Serve) -> None:
    async with serve() as client:
        told = read(await (await client.get("/openapi.json")).read())
        async with visit(browser, str(client.make_url("/"))) as visited:
            page = visited.page
            await page.get_by_role("link", name="The HTTP interface").click()
            await expect(page.locator(".operation")).to_have_count(len(told.operations))
            await expect(page.locator(".schema")).to_have_count(len(told.body["components"]["schemas"]))
            enqueue = page.locator("#enqueueNotification")
            await expect(enqueue).to_contain_text("Needs a key with the scope enqueue.")
            await expect(enqueue).to_contain_text("Idempotency-Key")
            await enqueue.get_by_text("Example: send-client").click()
            await expect(enqueue.get_by_text('"kind": "send-client"')).to_be_visible()
            broken = await page.evaluate(
                "[...document.querySelectorAll('a[href^=\"#\"]')].filter("
                "(link) => !document.getElementById(link.hash.slice(1))).map((link) => link.hash)"
            )
            assert broken == []
            for width in (360, 768, 1440):
                await page.set_viewport_size({"width": width, "height": 800})
                assert await visited.fits(), f"{width} px"
            await page.get_by_role("link", name="Live page").click()
            await expect(page.get_by_role("heading", name="Queues and stages")).to_be_visible()


async def test_it_is_found_and_gone_to_by_keyboard(browser: Browser, serve: Serve) -> None:
    async with serve() as client, visit(browser, str(client.make_url("/")), color_scheme="dark") as visited:
        page = visited.page
        await page.goto(str(client.make_url("/docs")))
        await expect(page.locator(".operation").first).to_be_visible()
        await page.get_by_role("searchbox", name="Find").focus()
        await page.keyboard.type("queue/purge")
        await expect(page.locator("#found")).to_have_text("1 found")
        await expect(page.locator(".operation:visible")).to_have_count(1)
        await page.keyboard.press("Tab")
        await page.keyboard.press("Enter")
        await expect(page.locator("#purge")).to_be_focused()
        await page.keyboard.press("Tab")
        await page.keyboard.press("Enter")
        await expect(page.locator("#schema-Confirmation")).to_be_focused()
        await visited.picture("docs-dark")
