"""A stand-in for WhatsApp, for the demo: it has the sample notes, and takes messages like the real one."""

import asyncio
import secrets
import time
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
from aiohttp import web

from api.signatures import sign

STATUSES = ("sent", "delivered")


class StandIn:
    """Gives a media id's note, and for each message it takes tells the webhook that it was sent and delivered.

    `webhook` and `app_secret` are to be set before the first message; `taken` is what was said to whom.
    """

    def __init__(self, notes: Path) -> None:
        self.webhook = self.app_secret = ""
        self.taken: list[tuple[str, str]] = []
        self._notes = notes
        self._telling: set[asyncio.Task[None]] = set()

    def running(self) -> AbstractAsyncContextManager[str]:
        """Its address, while it lasts."""
        return serving(
            web.get("/media/{file}", self._download),
            web.get("/{version}/{media_id}", self._describe),
            web.post("/{version}/{number}/messages", self._take),
        )

    async def _describe(self, request: web.Request) -> web.Response:
        _check_login(request)
        name = request.match_info["media_id"]
        return web.json_response({"url": str(request.url.with_path(f"/media/{name}.ogg"))})

    async def _download(self, request: web.Request) -> web.Response:
        note = self._notes / request.match_info["file"]
        if not note.is_file():
            raise web.HTTPNotFound
        return web.Response(body=note.read_bytes(), content_type="audio/ogg")

    async def _take(self, request: web.Request) -> web.Response:
        _check_login(request)
        message = await request.json()
        self.taken.append((message["to"], message["text"]["body"]))
        wamid = f"wamid.demo.{secrets.token_hex(4)}"  # another each time: receipts are known by it for a week
        told = asyncio.create_task(self._tell(request.match_info["number"], wamid, message))
        self._telling.add(told)
        told.add_done_callback(self._telling.discard)
        return web.json_response({"messaging_product": "whatsapp", "messages": [{"id": wamid}]})

    async def _tell(self, number: str, wamid: str, message: dict[str, Any]) -> None:
        async with aiohttp.ClientSession() as http:
            for status in STATUSES:
                about = {
                    "id": wamid,
                    "status": status,
                    "timestamp": str(int(time.time())),
                    "recipient_id": message["to"].removeprefix("+"),
                    "biz_opaque_callback_data": message["biz_opaque_callback_data"],
                }
                body = msgspec.json.encode(event(number, statuses=[about]))
                headers = {"X-Hub-Signature-256": sign(body, self.app_secret)}
                async with http.post(self.webhook, data=body, headers=headers) as answer:
                    answer.raise_for_status()


@asynccontextmanager
async def serving(*routes: web.RouteDef) -> AsyncIterator[str]:
    """These on a port of this machine; its address."""
    app = web.Application()
    app.add_routes(routes)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


def event(number: str, **what: list[dict[str, Any]]) -> dict[str, Any]:
    """An event as WhatsApp sends it, about messages or statuses of a number."""
    value = {
        "messaging_product": "whatsapp",
        "metadata": {"display_phone_number": "551130001000", "phone_number_id": number},
        **what,
    }
    change = {"field": "messages", "value": value}
    return {"object": "whatsapp_business_account", "entry": [{"id": "0", "changes": [change]}]}


def _check_login(request: web.Request) -> None:
    if not request.headers.get("Authorization", "").startswith("Bearer "):
        raise web.HTTPUnauthorized
