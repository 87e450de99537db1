"""Listening to /queue/events as a browser does."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, NamedTuple

import aiohttp
import msgspec
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer

from api.events import EventEndpoint
from api.problems import answer_with_problems
from pipeline import Broker
from tests.support import DEADLINE

Client = TestClient[Any, Any]


class Heard(NamedTuple):
    id: str
    kind: str
    data: dict[str, Any]


class Listener:
    """An open stream; `cursor` is what a browser would send as Last-Event-ID."""

    def __init__(self, response: aiohttp.ClientResponse) -> None:
        self.response = response
        self.cursor = ""

    async def block(self) -> Heard | None:
        """The next block that says something, if only where we are: None."""
        fields: dict[str, str] = {}
        while line := (await self.response.content.readline()).decode().removesuffix("\n"):
            name, _, value = line.partition(":")
            fields[name] = value.removeprefix(" ")
        self.cursor = fields.get("id", self.cursor)
        if "data" not in fields:
            return None
        return Heard(self.cursor, fields["event"], msgspec.json.decode(fields["data"]))

    async def next(self) -> Heard:
        """The next event."""
        async with asyncio.timeout(DEADLINE):
            while True:
                if found := await self.block():
                    return found

    async def take(self, count: int) -> list[Heard]:
        return [await self.next() for _ in range(count)]

    async def states(self, count: int) -> list[str]:
        """So many events as 'stage state attempt'."""
        return [said(heard) for heard in await self.take(count)]


def said(heard: Heard) -> str:
    data = heard.data
    words = [data.get("stage", heard.kind), data.get("state"), data.get("attempt"), data.get("progress")]
    return " ".join(str(word) for word in words if word is not None)


@asynccontextmanager
async def served(broker: Broker, listeners: int = 500) -> AsyncIterator[Client]:
    """Only these events over HTTP."""
    app, events = web.Application(middlewares=[answer_with_problems]), EventEndpoint(broker, listeners)
    app.router.add_get("/queue/events", events.listen, allow_head=False)
    app.on_shutdown.append(events.close)
    async with TestClient(TestServer(app)) as client:
        yield client


@asynccontextmanager
async def listening(client: Client, cursor: str = "", **wanted: str) -> AsyncIterator[Listener]:
    """A listener whose stream has begun; with a cursor, what it missed comes first."""
    headers = {"Last-Event-ID": cursor} if cursor else {}
    async with client.get("/queue/events", params=wanted, headers=headers) as response:
        assert response.status == 200, await response.text()
        listener = Listener(response)
        if not cursor and "lastEventId" not in wanted:
            while not listener.cursor:
                await listener.block()
        yield listener
