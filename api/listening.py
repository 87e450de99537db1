"""Where the service listens: in plain HTTP, or over TLS with handshakes within the same bounds."""

import asyncio
import contextlib
import errno
import logging
import os
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from aiohttp import web

from api.serving import LINGER, Runner
from api.tls import LOOKED_AT_EVERY, Certificates
from config.settings import Http
from pipeline import RiachoError
from pipeline.services.ticker import every

log = logging.getLogger(__name__)

BACKLOG = 1_024  # connections that the system holds until we accept them
NO_FILES_PAUSE = 1.0  # seconds until another try to accept, when no more files may be open, say


class CannotListen(RiachoError):
    """The address is taken, or not ours."""


@asynccontextmanager
async def listening(runner: Runner, http: Http, certificates: Certificates | None) -> AsyncIterator[str]:
    """Serve while it lasts; the address. On leaving, requests under way are answered. Raises CannotListen."""
    await runner.setup()
    try:
        address = await _listen(runner, http, certificates)
        async with _renewing(certificates):
            yield address
    finally:
        await runner.cleanup()


async def _listen(runner: Runner, http: Http, certificates: Certificates | None) -> str:
    site: web.BaseSite
    if certificates:
        site = TlsSite(runner, http, certificates)
    else:
        site = web.TCPSite(runner, http.host, http.port, backlog=BACKLOG)
    try:
        await site.start()
    except (OSError, UnicodeError) as error:
        raise CannotListen(f"cannot listen on {http.host}:{http.port}: {_why(error)}") from None
    host, port = runner.addresses[0][:2]
    address = f"{'https' if certificates else 'http'}://{f'[{host}]' if ':' in host else host}:{port}"
    log.info("listening on %s", address)
    return address


def _why(error: OSError | UnicodeError) -> str:
    """With the remedy."""
    if isinstance(error, UnicodeError):
        return "that is no name of a host; choose another with --host or RIACHO_HTTP_HOST"
    if isinstance(error, socket.gaierror):
        return f"{error.strerror}; choose another with --host or RIACHO_HTTP_HOST"
    return f"{os.strerror(error.errno or 0)}; choose another with --port or RIACHO_HTTP_PORT"


@asynccontextmanager
async def _renewing(certificates: Certificates | None) -> AsyncIterator[None]:
    if certificates is None:
        yield
        return
    renewing = asyncio.create_task(every(LOOKED_AT_EVERY, certificates.renew, asyncio.Event()))
    try:
        yield
    finally:
        renewing.cancel()
        await asyncio.wait([renewing])


class TlsSite(web.BaseSite):
    """aiohttp's own would neither bound the time of a handshake nor count it among the connections."""

    def __init__(self, runner: Runner, http: Http, certificates: Certificates) -> None:
        super().__init__(runner, ssl_context=certificates.context)
        self._http, self._certificates = http, certificates

    @property
    def name(self) -> str:
        return f"https://{self._http.host}:{self._http.port}"

    async def start(self) -> None:
        sockets = await _listeners(self._http.host, self._http.port)
        await super().start()
        assert self._runner.server  # noqa: S101 - BaseSite has seen to it
        gate = Gate(sockets, self._runner.server, self._certificates, self._http)
        self._server = gate  # type: ignore[assignment] # of a server aiohttp asks for `sockets` and `close`


class Gate:
    """Accepts connections and lets those in that shake hands within `read_timeout` seconds. One of more than
    `connections` at a time, handshakes among them, is closed at once."""

    def __init__(
        self, sockets: list[socket.socket], server: web.Server, certificates: Certificates, http: Http
    ) -> None:
        self.sockets = sockets
        self._served, self._certificates = server, certificates
        self._patience, self._most = http.read_timeout, http.connections
        self._greeting: set[asyncio.Task[None]] = set()
        self._accepting = [asyncio.create_task(self._accept(each)) for each in sockets]

    def close(self) -> None:
        for task in (*self._accepting, *self._greeting):
            task.cancel()

    async def _accept(self, listener: socket.socket) -> None:
        with listener:
            while True:
                with contextlib.suppress(ConnectionError):  # it is gone already
                    self._admit(await self._next(listener))
                await asyncio.sleep(0)  # what is there already comes without waiting, and others want to run

    async def _next(self, listener: socket.socket) -> socket.socket:
        while True:
            try:
                return (await asyncio.get_running_loop().sock_accept(listener))[0]
            except ConnectionError:
                raise
            except OSError as error:
                log.warning("cannot accept connections: %s", os.strerror(error.errno or 0))
                await asyncio.sleep(NO_FILES_PAUSE)

    def _admit(self, arrived: socket.socket) -> None:
        if len(self._greeting) + len(self._served.connections) >= self._most:
            arrived.close()
            return
        greeting = asyncio.create_task(self._greet(arrived))
        self._greeting.add(greeting)
        greeting.add_done_callback(self._greeting.discard)

    async def _greet(self, arrived: socket.socket) -> None:
        try:
            await asyncio.get_running_loop().connect_accepted_socket(
                self._served,
                arrived,
                ssl=self._certificates.context,
                ssl_handshake_timeout=self._patience,
                ssl_shutdown_timeout=LINGER,
            )
        except OSError as error:  # among them those of ssl, and the time-out
            log.info("no TLS with a client: %s", getattr(error, "reason", None) or type(error).__name__)
        except asyncio.CancelledError:
            arrived.close()
            raise


async def _listeners(host: str, port: int) -> list[socket.socket]:
    """A socket for each address of the host that this machine can have: there may be no IPv6. Raises OSError."""
    found = await asyncio.get_running_loop().getaddrinfo(
        host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )
    with contextlib.ExitStack() as opened:
        sockets, missing = [], None
        for family, place in dict.fromkeys((family, place) for family, *_, place in found):
            try:
                listener = opened.enter_context(socket.create_server(place, family=family, backlog=BACKLOG))
            except OSError as error:
                if error.errno != errno.EAFNOSUPPORT:
                    raise
                missing = error
                continue
            listener.setblocking(False)
            sockets.append(listener)
        if missing and not sockets:
            raise missing
        opened.pop_all()
    return sockets
