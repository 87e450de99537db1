"""How the live page's files are served."""

import pytest

from api.page import POLICY, Page, PageSettings
from config import SettingsError, load
from tests.desk import Serve

pytestmark = pytest.mark.integration


async def test_its_files_are_served_and_asked_for_again_each_time(serve: Serve) -> None:
    async with serve(trace_url="http://127.0.0.1:16686/trace/{traceId}") as client:
        index = await client.get("/")
        assert index.headers["Content-Type"] == "text/html; charset=utf-8"
        assert index.headers["Content-Security-Policy"] == POLICY
        assert index.headers["Cache-Control"] == "no-cache"
        kept = await client.get("/", headers={"If-None-Match": index.headers["ETag"]})
        assert (kept.status, await kept.read()) == (304, b"")
        assert (await client.get("/", headers={"If-None-Match": '"older"'})).status == 200
        told = await client.get("/page/settings.json")
        assert await told.json() == {"traceUrl": "http://127.0.0.1:16686/trace/{traceId}"}
        for name in Page(PageSettings()).names:
            found = await client.get(f"/page/{name}")
            assert (found.status, found.headers["X-Content-Type-Options"]) == (200, "nosniff")


@pytest.mark.parametrize("path", ["nothing.js", "../page.py", "..%2Fpage.py", "page.py", ""])
async def test_nothing_else_is_served(serve: Serve, path: str) -> None:
    async with serve() as client:
        assert (await client.get(f"/page/{path}")).status == 404


def test_a_trace_is_no_script() -> None:
    with pytest.raises(SettingsError, match=r"http\.trace_url"):
        load({"http": {"trace_url": "javascript:alert(1)//{traceId}"}}, environ={})
