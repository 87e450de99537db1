"""The live page in a real browser, on a service in trouble of all kinds."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from playwright.async_api import Browser, expect

from tests.browser import WAIT, Visit, needs_chromium, visit
from tests.contract import EVIL, TRACE, Service, event, letter
from tests.support import reached

# One browser for all of them, and so one event loop.
pytestmark = [pytest.mark.integration, needs_chromium, pytest.mark.asyncio(loop_scope="session")]

JOB = "send-client.0.1795395400001-0"
TOLD = {
    "jobId": JOB,
    "queue": "notification",
    "stage": "send-client",
    "attempt": 4,
    "enqueuedAt": 1_795_395_400_000,
}

expect.set_options(timeout=WAIT)


@asynccontextmanager
async def seen(browser: Browser, service: Service, **context: Any) -> AsyncIterator[Visit]:
    """The page of a service."""
    async with (
        TestServer(service.app()) as server,
        visit(browser, str(server.make_url("/")), **context) as visited,
    ):
        yield visited


async def test_what_comes_from_outside_is_shown_as_text(browser: Browser) -> None:
    service = Service()
    service.letters = [letter(1, reason=EVIL, error=EVIL, tenant=EVIL, payload={"text": EVIL})]
    service.jobs[JOB] = {**TOLD, "state": "failed", "error": EVIL, "reason": EVIL, "result": EVIL, "next": [EVIL]}
    service.jobs[JOB] |= {"traceId": TRACE, "doing": EVIL, "tenant": EVIL}
    service.told = [event("1-0", EVIL, EVIL)]
    async with seen(browser, service) as visited:
        page = visited.page
        await expect(page.locator("#letters .error")).to_have_text(EVIL)
        await expect(page.locator("#events a")).to_have_text(EVIL)
        await page.fill("#job-id", JOB)
        await page.press("#job-id", "Enter")
        await expect(page.locator("#job pre.error")).to_have_text(EVIL)
        trace = f"http://127.0.0.1:16686/trace/{TRACE}"
        await expect(page.get_by_role("link", name=TRACE)).to_have_attribute("href", trace)
        assert await page.locator("main :is(img, script)").count() == 0
        assert "stolen" not in await page.title()


async def test_a_key_is_asked_for_and_said_to_lack_a_scope(browser: Browser) -> None:
    service = Service()
    service.key, service.scopes = "riacho_right", ["read"]
    service.letters = [letter(1)]
    async with seen(browser, service) as visited:
        page = visited.page
        for wrong in ("riacho_wrong", service.key):
            await page.get_by_label("Key", exact=True).fill(wrong)
            await page.keyboard.press("Enter")
            if wrong != service.key:
                await expect(page.get_by_text("That key is not known")).to_be_visible()
        await expect(page.locator("#overall-state")).to_have_text("Keeping up")
        await expect(page.locator("#events-state")).to_have_text("as it happens")
        await page.get_by_role("button", name="Replay send-client").click()
        await expect(page.locator("#said")).to_contain_text("lacks the scope admin")
        kept = await page.evaluate("[sessionStorage['riacho.key'], localStorage.length]")
        assert kept == [service.key, 0]


async def test_trouble_is_told_with_the_age_of_the_figures(browser: Browser) -> None:
    service = Service()
    service.stages = {"transcribe": {"waiting": 9, "workers": 0, "utilisation": None, "state": "throttling"}}
    async with TestServer(service.app()) as server, visit(browser, str(server.make_url("/"))) as visited:
        page, state = visited.page, visited.page.locator("#overall-state")
        await expect(page.locator("#attention li").first).to_contain_text("9 waiting, and no worker")
        service.away = True
        await visited.hurry()
        await expect(state).to_have_text("Redis is away")
        await expect(page.locator("#overall-age")).to_contain_text("figures of")
        service.away = False
        await visited.hurry()
        await expect(state).to_have_text("Throttling")
        await server.close()
        await visited.hurry()
        await expect(state).to_have_text("Connection lost")


async def test_it_works_below_the_path_of_a_proxy_and_from_a_broken_link(browser: Browser) -> None:
    service = Service()
    service.jobs[JOB] = {**TOLD, "state": "failed"}
    outer = web.Application()
    outer.add_subapp("/riacho/", service.app())
    async with TestServer(outer) as server, visit(browser, str(server.make_url("/riacho/"))) as visited:
        page = visited.page
        await page.evaluate("location.hash = '#job=100%'")
        await expect(page.locator("#overall-state")).to_have_text("Keeping up")
        await page.fill("#job-id", JOB)
        await page.press("#job-id", "Enter")
        await expect(page.locator("#job .mark")).to_have_text("failed")


async def test_a_late_answer_to_the_last_key_costs_nobody_the_new_one(browser: Browser) -> None:
    service = Service()
    service.key = "riacho_old"
    async with seen(browser, service) as visited:
        page = visited.page
        await page.get_by_label("Key", exact=True).fill("riacho_old")
        await page.keyboard.press("Enter")
        await expect(page.locator("#overall-state")).to_have_text("Keeping up")
        service.key, service.refuse = "riacho_new", asyncio.Event()
        await visited.hurry()
        await reached(lambda: service.refusing > 0)
        await page.locator("#key-button").click()
        await page.get_by_label("Key", exact=True).fill("riacho_new")
        await page.keyboard.press("Enter")
        await expect(page.get_by_role("dialog")).to_have_count(0)
        service.refuse.set()
        await reached(lambda: service.refusing == 0)
        await visited.hurry()
        await expect(page.locator("#overall-state")).to_have_text("Keeping up")
        assert await page.evaluate("sessionStorage['riacho.key']") == "riacho_new"


async def test_all_of_a_stage_are_replayed_once_that_is_confirmed(browser: Browser) -> None:
    service = Service()
    service.letters = [letter(number) for number in range(60)]
    service.stages = {"send-client": {"dead": 60}}
    async with seen(browser, service) as visited:
        page = visited.page
        await page.locator("#attention").get_by_role("button", name="Show").click()
        every = page.get_by_role("button", name="Replay all of this stage")
        await every.click()
        await expect(page.get_by_role("dialog")).to_contain_text("put back to work: 60")
        await page.keyboard.press("Enter")  # the focus is on the one that does nothing
        assert service.asked == []
        await every.click()
        await page.get_by_role("dialog").get_by_role("button", name="Replay all").click()
        await expect(page.locator("#said")).to_contain_text("notification.send-client: put back to work: 60")
    assert len(set(service.asked)) == len(service.asked) == 60


async def test_who_looks_elsewhere_meanwhile_replays_only_what_was_confirmed(browser: Browser) -> None:
    service = Service()
    others = [letter(number, jobId=f"transcribe.0.{number:02}-0") for number in range(3)]
    service.letters = [letter(number) for number in range(120)] + others
    service.stages = {"send-client": {"dead": 120}, "transcribe": {"dead": 3}}
    second = service.slow["send-client", True] = asyncio.Event()
    async with seen(browser, service) as visited:
        page = visited.page
        await page.locator("#attention").get_by_role("button", name="Show").first.click()
        await page.locator("#dead-stage").select_option("send-client")
        await page.get_by_role("button", name="Replay all of this stage").click()
        await page.get_by_role("dialog").get_by_role("button", name="Replay all").click()
        await reached(lambda: len(service.asked) == 50)
        await page.locator("#dead-stage").select_option("transcribe")
        second.set()
        await expect(page.locator("#said")).to_contain_text("notification.send-client: put back to work: 120")
    assert not [path for path in service.asked if "transcribe" in path]


async def test_a_late_answer_about_another_stage_is_not_shown(browser: Browser) -> None:
    service = Service()
    service.letters = [letter(1), letter(2, jobId="transcribe.0.2-0")]
    service.stages = {"send-client": {"dead": 1}, "transcribe": {"dead": 1}}
    late = service.slow["send-client", False] = asyncio.Event()
    async with seen(browser, service) as visited:
        page = visited.page
        await expect(page.locator("#letters li")).to_have_count(2)
        await page.locator("#dead-stage").select_option("send-client")
        async with page.expect_response("**/queue/dead?*stage=send-client*"):
            await page.locator("#dead-stage").select_option("transcribe")
            await expect(page.locator("#letters li")).to_have_count(1)
            late.set()
        await page.evaluate("fetch('/backpressure')")  # by then the page has read it
        assert await page.locator("#letters a").all_text_contents() == ["transcribe.0.2-0"]


async def test_stages_are_paused_by_keyboard_and_the_focus_stays(browser: Browser) -> None:
    service = Service()
    async with seen(browser, service) as visited:
        page = visited.page
        await page.get_by_role("button", name="Pause audio.transcribe").focus()
        await page.keyboard.press("Enter")
        await expect(page.locator(".stages").get_by_role("button", name="Resume audio.transcribe")).to_be_focused()
        await expect(page.locator("#attention")).to_contain_text("audio.transcribe is paused; 0 waiting")
        await page.keyboard.press("Enter")
        await expect(page.get_by_role("button", name="Pause audio.transcribe")).to_be_focused()
        await page.get_by_role("button", name="Pause cleanup", exact=True).click()
        await expect(page.get_by_role("dialog")).to_contain_text("All 5 stages")
        await page.keyboard.press("Escape")
        await page.get_by_role("button", name="Run now tts-cache").click()
        await expect(page.locator("#said")).to_have_text("tts-cache fired")
    steered = ["/queue/pause/transcribe", "/queue/resume/transcribe", "/queue/schedule/tts-cache/run"]
    assert service.asked == steered


async def test_events_are_taken_up_where_they_broke_off(browser: Browser) -> None:
    service = Service()
    service.told = [event("5-0", JOB, "active"), event("7-0", "", "", "gap")]
    async with seen(browser, service) as visited:
        await expect(visited.page.locator("#events li")).to_have_count(2)
        await expect(visited.page.locator("#events li").first).to_contain_text("some were left out")
        await expect(visited.page.locator("#events-state")).to_have_text("as it happens")
        await reached(lambda: len(service.resumed_from) == 3)
    assert service.resumed_from == [None, "5-0", "7-0"]


async def test_nothing_has_to_be_scrolled_sideways_for(browser: Browser) -> None:
    async with seen(browser, busy(), locale="pt-BR") as visited:
        await expect(visited.page.locator("#letters li")).to_have_count(3)
        await visited.page.fill("#job-id", JOB)
        await visited.page.press("#job-id", "Enter")
        await expect(visited.page.locator("#job pre.error")).to_be_visible()
        for width in (360, 768, 1210, 1440):
            await visited.page.set_viewport_size({"width": width, "height": 800})
            assert await visited.fits(), f"{width} px"
        await visited.picture("incident-desktop")


def busy() -> Service:
    """A service in the middle of an incident."""
    service = Service()
    service.letters = [letter(number, error="x" * 900, tenant="t" * 200) for number in range(3)]
    many = {"waiting": 98_765, "in1m": 1234.5, "out1m": 1100.2, "oldestWaiting": 3671.0, "drainSeconds": None}
    service.stages = {
        "transcribe": {**many, "state": "throttling", "active": 32, "utilisation": 1.0, "workers": 12},
        "send-client": {"paused": True, "waiting": 1200, "dead": 12_345, "retrying": 40, "delayed": 7},
        "logs": {"draining": True},
    }
    service.jobs[JOB] = {**TOLD, "state": "failed", "error": "y" * 900, "next": ["z" * 200], "traceId": TRACE}
    service.told = [b"".join(event(f"{n}-0", f"{JOB[:-1]}{n}", "retrying") for n in range(60))]
    return service
