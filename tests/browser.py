"""Debian's Chromium on the live page, and what a test wants to know of it."""

import os
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from playwright.async_api import Browser, ConsoleMessage, Page, Request, async_playwright

CHROMIUM = shutil.which("chromium")
needs_chromium = pytest.mark.skipif(
    CHROMIUM is None, reason="no chromium in PATH (Debian: apt-get install chromium)"
)
ARTEFACTS = Path(os.environ.get("RIACHO_ARTEFACTS") or Path(__file__).parent.parent / ".artefacts")
WAIT = 20_000.0  # ms for what a busy machine takes long to do


@asynccontextmanager
async def chromium() -> AsyncIterator[Browser]:
    """A headless browser while it lasts."""
    assert CHROMIUM
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        await browser.close()


class Visit:
    """A tab on the page, and what went wrong in it: what was logged, and requests to anywhere else."""

    def __init__(self, page: Page, address: str) -> None:
        self.page, self.address = page, address
        self.errors: list[str] = []
        self.answers: list[str] = []  # "Failed to load": said of any answer that is no 2xx
        self.elsewhere: list[str] = []
        page.on("console", self._logged)
        page.on("pageerror", lambda error: self.errors.append(str(error)))
        page.on("request", self._asked)

    def _logged(self, message: ConsoleMessage) -> None:
        if message.text.startswith("Failed to load resource"):
            self.answers.append(urlsplit(message.location["url"]).path)
        elif message.type in {"error", "warning"}:
            self.errors.append(message.text)

    def _asked(self, request: Request) -> None:
        if not request.url.startswith((self.address, "data:")):
            self.elsewhere.append(request.url)

    async def picture(self, name: str) -> None:
        """A screenshot of the whole page."""
        await self.page.evaluate("scrollTo(0, 0)")
        ARTEFACTS.mkdir(parents=True, exist_ok=True)
        await self.page.screenshot(path=ARTEFACTS / f"{name}.png", full_page=True)

    async def hurry(self) -> None:
        """Have the page ask for everything now, as when somebody comes back to its tab."""
        await self.page.evaluate("document.dispatchEvent(new Event('visibilitychange'))")

    async def fits(self) -> bool:
        """Whether nothing has to be scrolled sideways for."""
        answer = await self.page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
        return bool(answer)


@asynccontextmanager
async def visit(browser: Browser, address: str, **context: Any) -> AsyncIterator[Visit]:
    """The page as somebody opens it (`context`: locale, viewport, color_scheme …). Fails where it logged an error,
    or asked anywhere else."""
    tab = await browser.new_context(**{"locale": "en-GB", "reduced_motion": "reduce"} | context)
    tab.set_default_timeout(WAIT)
    visited = Visit(await tab.new_page(), address)
    await visited.page.goto(address)
    yield visited
    await tab.close()
    assert visited.errors == []
    assert visited.elsewhere == []
