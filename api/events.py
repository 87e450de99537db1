"""Server-sent events of what becomes of jobs (GET /queue/events)."""

import asyncio
import socket
from collections.abc import AsyncGenerator
from contextlib import aclosing, suppress
from typing import cast

from aiohttp import web
from redis.exceptions import RedisError

from api.hub import Client, Hub, Wanted, block, gap, wanted_event, wanted_of
from api.operations import Answer, Operation, Parameter, in_query
from pipeline import Broker
from pipeline.errors import ServerUnavailable
from pipeline.events import cursor_of, order, position_of

HEADERS = {
    "Content-Type": "text/event-stream; charset=utf-8",
    "Cache-Control": "no-store",
    "X-Accel-Buffering": "no",  # nginx would keep it until there is enough of it
}
COMMENT_EVERY = 15.0  # seconds without an event
WRITE_TIMEOUT = 30.0  # seconds for which a client may take nothing
END_TIMEOUT = 1.0  # seconds for which a client may take nothing when all is said
RECONNECT = b"retry: 1000\n"  # ms after which a browser comes back


class EventEndpoint:
    """Give it to an application's `on_shutdown`, too: listeners end only then."""

    def __init__(self, broker: Broker, listeners: int) -> None:
        self._broker = broker
        self._hub = Hub(broker, listeners)

    def operations(self) -> list[Operation]:
        """Everything that is here, as it is reached over HTTP."""
        seen = "Go on after this event: the id of the last one that was seen."
        return [
            Operation(
                method="GET",
                path="/queue/events",
                handler=self.listen,
                scope="read",
                group="look",
                name="events",
                summary="Jobs going from one state to the next, as it happens",
                description="Server-sent events: `job`, and `gap` where some were left out.",
                parameters=(
                    in_query("queue", str, "Only of this queue.", "audio"),
                    in_query("job", str, "Only of this job."),
                    in_query("lastEventId", str, seen),
                    Parameter(name="Last-Event-ID", where="header", form=str, description=seen),
                ),
                answers={
                    200: Answer(
                        description="Events without end.", form=str, content_types=(HEADERS["Content-Type"],)
                    )
                },
                problems={404: "No such queue or stage.", 503: "As many listen as may, or Redis is away."},
                head=False,
            )
        ]

    async def close(self, _: web.Application) -> None:
        """The service stops: nobody is to wait for listeners."""
        await self._hub.close()

    async def listen(self, request: web.Request) -> web.StreamResponse:
        """GET /queue/events?queue=Q&job=ID, from Last-Event-ID on."""
        named = request.query.get("queue", ""), request.query.get("job", "")
        wanted, seen = wanted_of(self._broker.pipeline, *named), _last_seen(request)
        transport = cast("asyncio.WriteTransport", request.transport)
        _notice_silence(transport)
        response = web.StreamResponse(headers=HEADERS)
        async with self._hub.joined(wanted, transport) as client:
            with suppress(ConnectionResetError, TimeoutError):
                await self._send(request, response, client, wanted, seen)
        return response

    async def _send(
        self,
        request: web.Request,
        response: web.StreamResponse,
        client: Client,
        wanted: Wanted,
        seen: list[bytes] | None,
    ) -> None:
        await response.prepare(request)
        await _write(response, client, RECONNECT)
        async with aclosing(self._missed(client, wanted, seen)) as pages:
            async for page in pages:
                await _write(response, client, page)
        while True:
            chunk = await client.take(COMMENT_EVERY)
            if client.ended:
                await _end(response, client)
                return
            await _write(response, client, chunk or _comment(self._hub.handed_out))

    async def _missed(self, client: Client, wanted: Wanted, seen: list[bytes] | None) -> AsyncGenerator[bytes]:
        """What a client that was here before has missed, up to where its live events begin."""
        try:
            known = await self._is_kept(seen) if seen else False
            if seen and known:
                await self._hub.catch_up(seen)
            position = self._hub.begin(client)
            if seen and known:
                for partition, until in enumerate(position):
                    async with aclosing(self._kept(wanted, seen, partition, until)) as pages:
                        async for page in pages:
                            yield page
        except (ServerUnavailable, RedisError):
            known, position = False, self._hub.begin(client)
        yield gap(cursor_of(position), "lost") if seen and not known else _comment(position)

    async def _is_kept(self, seen: list[bytes]) -> bool:
        """Whether everything that came after is still there."""
        spans = await self._broker.follow()
        return len(seen) == len(spans) and all(
            order(first) <= order(here) <= order(last) for here, (first, last) in zip(seen, spans, strict=True)
        )

    async def _kept(
        self, wanted: Wanted, seen: list[bytes], partition: int, until: bytes
    ) -> AsyncGenerator[bytes]:
        """A partition's events after `seen`, which goes along with them."""
        async with aclosing(self._broker.events_between(partition, seen[partition], until)) as pages:
            async for page in pages:
                blocks = []
                for told in page:
                    seen[partition] = told.id
                    if told.said is None:
                        blocks.append(gap(cursor_of(seen), "lost"))
                    elif event := wanted_event(self._hub.queues, told, wanted):
                        blocks.append(block(event, cursor_of(seen)))
                yield b"".join(blocks)


def _last_seen(request: web.Request) -> list[bytes] | None:
    """Raises BadInput."""
    cursor = request.headers.get("Last-Event-ID") or request.query.get("lastEventId")
    return position_of(cursor) if cursor else None


def _comment(position: list[bytes]) -> bytes:
    """Keeps proxies from ending a quiet connection; who comes back begins there."""
    return b":\nid: %b\n\n" % cursor_of(position).encode()


async def _write(response: web.StreamResponse, client: Client, chunk: bytes) -> None:
    """Raises ConnectionResetError, TimeoutError."""
    if client.ended:
        return
    client.writing = True
    try:
        async with asyncio.timeout(WRITE_TIMEOUT):
            await response.write(chunk)
    except TimeoutError:
        client.cut()
        raise
    finally:
        client.writing = False


async def _end(response: web.StreamResponse, client: Client) -> None:
    """The end of it, for who has read the rest; aiohttp would wait for anybody. Raises ConnectionResetError,
    TimeoutError."""
    try:
        async with asyncio.timeout(END_TIMEOUT):
            await response.write_eof()
    except TimeoutError:
        client.cut()
        raise


def _notice_silence(transport: asyncio.BaseTransport) -> None:
    """Have the system end a connection whose other side is gone without a word; by itself it tries for longer."""
    option = getattr(socket, "TCP_USER_TIMEOUT", None)  # Linux
    connection = transport.get_extra_info("socket")
    if option and connection:
        with suppress(OSError):
            connection.setsockopt(socket.IPPROTO_TCP, option, int(WRITE_TIMEOUT * 1000))
