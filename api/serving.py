"""How connections are served: within bounds of size, time and number, whatever a client does."""

import asyncio
import contextlib
import logging
import resource
from typing import Any, cast

from aiohttp import web
from aiohttp.web_request import BaseRequest

from api.accepting import ACCEPTING, Accepting, Lane
from api.headers import safe_headers
from api.problems import Problem
from config.settings import Http

log = logging.getLogger(__name__)

LINE_LIMIT = 8_190  # bytes of a request's first line, and of each header
HEADER_LIMIT = 64
KEEP_ALIVE = 75.0  # seconds a connection may rest between two requests; longer than most proxies keep theirs
LINGER = 1.0  # seconds in which a client that is refused may go on sending, so that it comes to reading why
OTHER_FILES = 256  # open at a time: Redis, the database, modules
FULL = b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 1\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"


class Runner(web.AppRunner):
    """Runs an application within the bounds of [http]."""

    def __init__(self, app: web.Application, http: Http) -> None:
        super().__init__(app, access_log=None, shutdown_timeout=10)
        self._http = http

    async def _make_server(self) -> web.Server:
        make_room(self._http.connections)
        return Server(await super()._make_server(), self._http, self.app.get(ACCEPTING))


class Server(web.Server):
    """Makes the connections of an application's own server, bounded."""

    def __init__(self, made: web.Server, http: Http, accepting: Accepting | None) -> None:
        super().__init__(self._answer, request_factory=made.request_factory)
        self._inner = made.request_handler
        self._http = http
        self._accepting = accepting

    def __call__(self) -> "Connection":
        return Connection(self, self._http.read_timeout, self._http.connections, self._accepting)

    async def _answer(self, request: BaseRequest) -> web.StreamResponse:
        connection = cast("Connection", request.protocol)
        connection.begin()
        try:
            return await self._inner(request)
        finally:
            connection.end()


class Connection(web.RequestHandler):
    """Has to bring the head of a request within `read_timeout` seconds of its first byte, and of connecting; for
    a body see problems.read_body. One of more than `most` at a time is sent away. Requests that come whole take
    the short way where they can; after the first that does not come whole, only aiohttp knows where the next one
    begins, and gets them all."""

    def __init__(self, server: Server, read_timeout: float, most: int, accepting: Accepting | None) -> None:
        super().__init__(
            server,
            loop=asyncio.get_running_loop(),
            access_log=None,  # type: ignore[arg-type] # which aiohttp takes for no log
            keepalive_timeout=KEEP_ALIVE,
            lingering_time=LINGER,
            max_line_size=LINE_LIMIT,
            max_field_size=LINE_LIMIT,
            max_headers=HEADER_LIMIT,
        )
        self._server, self._read_timeout, self._most = server, read_timeout, most
        self._late: asyncio.TimerHandle | None = None
        self._answering = False
        self._accepting = accepting
        self._lane: Lane | None = None
        self._unanswered = 0  # requests that came whole, and went on to aiohttp
        self._held = b""  # what came before the request before it was answered

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self._expect_head()
        if self._accepting:
            remote = str(self.peername[0]) if isinstance(self.peername, tuple) else ""
            self._lane = Lane(self._accepting, remote, "https" if self.ssl_context else "http", self._write)
        if len(self._server.connections) > self._most:
            cast("asyncio.Transport", transport).write(FULL)  # uvloop's is none by inheritance
            self.force_close()

    def data_received(self, data: bytes) -> None:
        if self._lane and data and self._take(self._lane, data):  # aiohttp calls it without any, to go on
            if self._late:
                self._stop_waiting()
            return
        if self._late is None and not self._answering:
            self._expect_head()
        super().data_received(data)

    def connection_lost(self, exc: BaseException | None) -> None:
        self._stop_waiting()
        if self._lane:
            self._lane.leave()
        super().connection_lost(exc)

    async def shutdown(self, timeout: float | None = 15.0) -> None:
        if self._lane:
            await self._lane.rest(timeout)
        await super().shutdown(timeout)

    def _take(self, lane: Lane, data: bytes) -> bool:
        """The short way, where these bytes can take it."""
        if lane.answering:
            self._held += data
            self._pause_transport_reading()
            return True
        body = lane.read(data)
        if body is None:
            self._lane = None
            return False
        # Only with all requests before it answered.
        if not (self._unanswered or self._close or self._force_close) and lane.take(body):
            return True
        self._unanswered += 1
        return False

    async def _handle_request(
        self, request: BaseRequest, start_time: float | None, request_handler: Any
    ) -> tuple[web.StreamResponse, bool]:
        """aiohttp's: from a request's head to the last byte of its answer."""
        try:
            return await super()._handle_request(request, start_time, request_handler)
        finally:
            self._unanswered -= 1

    def _write(self, response: bytes) -> None:
        if self.transport is None or self.transport.is_closing():
            return
        self.transport.write(response)
        self._rest()
        if held := self._held:
            self._held = b""
            self._resume_transport_reading()
            self.data_received(held)

    def _rest(self) -> None:
        self._next_keepalive_close_time = self._loop.time() + KEEP_ALIVE

    def _process_keepalive(self) -> None:
        """aiohttp's, which sees no request under way where one took the short way."""
        if self._lane and self._lane.answering:
            self._rest()
        super()._process_keepalive()

    def pause_writing(self) -> None:
        """Nor is a client read from that does not read its answers."""
        super().pause_writing()
        self._pause_transport_reading()

    def resume_writing(self) -> None:
        super().resume_writing()
        self._resume_transport_reading()

    def _resume_transport_reading(self) -> None:
        """aiohttp's, which has two reasons of its own to wait."""
        if not (self._paused or self._held or self._reading_paused or self._buffer_paused):
            super()._resume_transport_reading()

    def begin(self) -> None:
        """The head of a request is there."""
        self._stop_waiting()
        self._answering = True

    def end(self) -> None:
        """It is answered."""
        self._answering = False

    def handle_error(
        self, request: BaseRequest, status: int = 500, exc: BaseException | None = None, message: str | None = None
    ) -> web.StreamResponse:
        """What is no HTTP. The error repeats the header that is wrong, in which there may be a key: it is neither
        logged nor answered."""
        if status >= 500:
            return super().handle_error(request, status, exc, message)
        log.info("what %s sent is no HTTP request: %s", request.remote, type(exc).__name__)
        detail = f"This is no HTTP request, or a line of its head is over {LINE_LIMIT:,} bytes."
        response = Problem(status, "Bad request", detail).response()
        response.headers.update(safe_headers(request.scheme))  # no application sees to it here
        response.force_close()
        return response

    def _expect_head(self) -> None:
        self._late = asyncio.get_running_loop().call_later(self._read_timeout, self._cut)

    def _stop_waiting(self) -> None:
        if self._late:
            self._late.cancel()
            self._late = None

    def _cut(self) -> None:
        self._late = None
        self.force_close()


def make_room(connections: int) -> None:
    """Let this process have as many files open as its connections take; many systems start with 1,024."""
    wanted = connections + OTHER_FILES
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return
    allowed = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    with contextlib.suppress(ValueError, OSError):  # macOS has a limit of its own besides
        resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, hard))
    if allowed < wanted:
        log.warning("http.connections = %d, and only %d files may be open: raise ulimit -n", connections, allowed)
