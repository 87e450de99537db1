"""Clients that only cost: connections that never finish the head of a request, and listeners to events.

A process of its own: `python -m benchmarks.parts.crowd HOST PORT`; says "ready" when all are there, and goes on
until its standard input ends.
"""

import asyncio
import sys
from functools import partial
from typing import cast

import uvloop

SLOW = 1_000
LISTENERS = 200
DRIP_EVERY = 2.0  # seconds for each slow client's next byte
AT_ONCE = 50  # connections being made
HEAD = b"POST /queue/audio/jobs HTTP/1.1\r\nHost: "
LISTEN = b"GET /queue/events HTTP/1.1\r\nHost: %b\r\nAccept: text/event-stream\r\n\r\n"


Lost = asyncio.Queue["type[Slow | Listener]"]


class Slow(asyncio.Protocol):
    """Half of its life half open, half of it sending a byte now and then; comes back when it is cut off."""

    def __init__(self, lost: Lost) -> None:
        self._lost = lost
        self._sent = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._drip()

    def _drip(self) -> None:
        if not self._transport.is_closing():
            self._transport.write(HEAD[self._sent : self._sent + 1])
            self._sent += 1
            asyncio.get_running_loop().call_later(DRIP_EVERY, self._drip)

    def connection_lost(self, _: Exception | None) -> None:
        self._lost.put_nowait(type(self))


class Listener(asyncio.Protocol):
    """Reads events, and forgets them."""

    def __init__(self, lost: Lost) -> None:
        self._lost = lost

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        host, port = transport.get_extra_info("peername")[:2]
        cast("asyncio.Transport", transport).write(LISTEN % f"{host}:{port}".encode())

    def connection_lost(self, _: Exception | None) -> None:
        self._lost.put_nowait(type(self))


async def crowd(host: str, port: int) -> None:
    """Keep all of them there until standard input ends."""
    loop, lost = asyncio.get_running_loop(), Lost()
    for kind, count in ((Slow, SLOW), (Listener, LISTENERS)):
        for _ in range(0, count, AT_ONCE):
            await asyncio.gather(
                *(loop.create_connection(partial(kind, lost), host, port) for _ in range(AT_ONCE))
            )
    print("ready", flush=True)  # noqa: T201 - the protocol
    end = asyncio.create_task(asyncio.to_thread(sys.stdin.read))
    coming_back = asyncio.create_task(_come_back(host, port, lost))
    await asyncio.wait([end, coming_back], return_when=asyncio.FIRST_COMPLETED)
    coming_back.cancel()


async def _come_back(host: str, port: int, lost: Lost) -> None:
    loop = asyncio.get_running_loop()
    while True:
        kind = await lost.get()
        await loop.create_connection(partial(kind, lost), host, port)


if __name__ == "__main__":
    uvloop.run(crowd(sys.argv[1], int(sys.argv[2])))
