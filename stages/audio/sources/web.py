"""Downloads over HTTP that neither lead to where they should not, nor bring more than they should."""

import re
import socket
from collections.abc import Callable, Sequence

import aiohttp
import msgspec
from aiohttp import AddrInfoType
from yarl import URL

from pipeline import Permanent
from stages.audio.sources.guard import Forbidden, guarded_socket
from stages.outgoing import session

REDIRECTS = 5
REDIRECTED = {301, 302, 303, 307, 308}
# Worth another try although the status says the request was wrong.
PASSING = {408, 425, 429}
CHUNK = 65_536  # bytes


class Timeouts(msgspec.Struct, frozen=True):
    """Seconds: to connect, between two reads, for a source as a whole."""

    connect: float = 10.0
    read: float = 30.0
    total: float = 120.0


class Web:
    """An HTTP client that checks the address of every connection it makes. To be opened and closed."""

    def __init__(self, networks: Sequence[str], timeouts: Timeouts) -> None:
        self._socket = guarded_socket(networks)
        self._timeout = aiohttp.ClientTimeout(sock_connect=timeouts.connect, sock_read=timeouts.read)

    async def open(self) -> None:
        """Make the connection pools; the one for what the operator trusts has no guard, so they are kept apart."""
        self._guarded, self._trusting = self._session(self._socket), self._session(None)

    async def close(self) -> None:
        """Close all connections."""
        await self._guarded.close()
        await self._trusting.close()

    def _session(self, factory: Callable[[AddrInfoType], socket.socket] | None) -> aiohttp.ClientSession:
        return session("media", self._timeout, aiohttp.TCPConnector(socket_factory=factory))

    async def download(self, url: str, *, limit: int, login: str = "", trusted: URL | None = None) -> bytes:
        """The bytes at an address, after at most five redirects.

        `login` goes into the Authorization header, to the origin of `url` only. The origin `trusted` may have any
        address, all others a public one. Raises Permanent where another try would not help, over `limit` bytes
        among it, and ConnectionError where it may.
        """
        try:
            return await self._follow(URL(url), limit, login, trusted)
        except aiohttp.ClientConnectorError as error:
            if isinstance(error.__cause__, Forbidden):
                raise Permanent(_forbidden(error.host)) from None
            raise ConnectionError(f"cannot connect to {error.host}: {type(error).__name__}") from None
        except TimeoutError:
            raise ConnectionError(f"{shown(url)} took too long to answer") from None
        except (ValueError, aiohttp.NonHttpUrlClientError):
            raise Permanent(f"{shown(url)} is no address that audio can be had from, or leads to none") from None
        except aiohttp.ClientError as error:  # its text has the whole address in it
            raise ConnectionError(f"{shown(url)}: {type(error).__name__}") from None

    async def _follow(self, url: URL, limit: int, login: str, trusted: URL | None) -> bytes:
        first = url
        for _ in range(REDIRECTS + 1):
            origin = url.origin()
            session = self._trusting if origin == trusted else self._guarded
            headers = {"Authorization": login} if login and origin == first.origin() else {}
            async with session.get(url, headers=headers, allow_redirects=False) as answer:
                if answer.status not in REDIRECTED:
                    return await _body(answer, limit)
                url = _next(url, answer.headers.get("Location", ""))
        raise Permanent(f"{shown(str(first))} redirects more than {REDIRECTS} times")


def _next(url: URL, location: str) -> URL:
    """Where `location`, as answered by `url`, leads. Raises ValueError where it is no address."""
    target = url.join(URL(location))
    if target.scheme not in ("http", "https"):
        raise ValueError("not HTTP")
    if url.scheme == "https" and target.scheme == "http":
        raise Permanent(f"{shown(str(url))} leads from https to http, which anybody could read and change")
    return target


async def _body(answer: aiohttp.ClientResponse, limit: int) -> bytes:
    where = shown(str(answer.url))
    if answer.status >= 500 or answer.status in PASSING:
        raise ConnectionError(f"{where} answered {answer.status}")
    if answer.status != 200:
        raise Permanent(f"no audio at {where}: it answered {answer.status}")
    if answer.headers.get("Content-Encoding", "identity").lower() != "identity":
        raise Permanent(f"{where} sends its audio compressed, which was not asked for")
    content = bytearray()
    too_much = (answer.content_length or 0) > limit
    while not too_much and (chunk := await answer.content.read(CHUNK)):
        content += chunk
        too_much = len(content) > limit
    if too_much:
        raise Permanent(f"the audio at {where} is over the limit of {limit:,} bytes")
    return bytes(content)


def _forbidden(host: str) -> str:
    return (
        f"audio may not come from {host}: its address is not a public one; "
        "the setting audio.networks names the private networks it may come from"
    )


def shown(source: str) -> str:
    """A source without what may be secret in it: a login, a signature in the query."""
    return re.sub(r"//[^/?#]*@", "//", re.sub(r"[?#].*", "", source, flags=re.DOTALL))[:300]
