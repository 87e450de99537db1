"""A client of WordPress' REST API: WooCommerce's part of it with a consumer key, WordPress' own with an
application password.

https://woocommerce.github.io/woocommerce-rest-api-docs/, https://developer.wordpress.org/rest-api/
"""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from ipaddress import ip_address
from types import TracebackType
from typing import Any, NamedTuple, NoReturn, Self, TypeVar

import aiohttp
import msgspec
from yarl import URL

from stages.outgoing import TooLarge, body_of, session
from stages.sync.errors import RecordRefused, RecordUnknown, ShopAway, ShopClosed, ShopError

PER_PAGE = 100  # WordPress gives no more
ANSWER_LIMIT = 64 * 1024 * 1024  # bytes; a page of products with long descriptions has some megabytes
ERROR_LIMIT = 65_536  # bytes
TEXT_LIMIT = 300  # characters of the shop's own words
CONNECTIONS = 64
WOOCOMMERCE = "wc/v3"
GONE = 410
PASSING = (408, 425, 429)

T = TypeVar("T")


class Shop(msgspec.Struct, frozen=True):
    """Where a tenant's shop is (`url`, without /wp-json), and who asks: WooCommerce's consumer key and secret, a
    user of WordPress with an application password. What is empty is not used."""

    tenant: str
    url: str
    key: str = ""
    secret: str = ""
    user: str = ""
    password: str = ""

    def __repr__(self) -> str:
        return f"Shop({self.tenant!r}, {self.url!r})"  # what else there is shows nowhere

    def __rich_repr__(self) -> list[tuple[str, Any]]:
        return [("tenant", self.tenant), ("url", self.url)]


class Page(msgspec.Struct, frozen=True):
    """Records as they came, one by one: what is wrong with one is no matter of the others'. `pages` and `total`
    are how many pages and records there are at this moment."""

    records: Sequence[msgspec.Raw]
    pages: int
    total: int


class File(NamedTuple):
    """What is to be put into the shop; `kind` is its media type."""

    name: str
    kind: str
    content: bytes


class _Problem(msgspec.Struct):
    code: str
    message: str = ""


class WordPress:
    """Asks shops. A context manager: it keeps connections. A call may take `timeout` seconds; nothing is tried
    twice here. Errors are ShopError's."""

    def __init__(self, timeout: float = 30.0) -> None:
        self.timeout = timeout

    async def __aenter__(self) -> Self:
        timeout = aiohttp.ClientTimeout(total=self.timeout)
        connector = aiohttp.TCPConnector(limit=CONNECTIONS, limit_per_host=4)
        self._http = session("shop", timeout, connector, "application/json")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._http.close()

    async def page(self, shop: Shop, path: str, query: Mapping[str, str]) -> Page:
        """A page of a collection; `path` is as in `wc/v3/orders`."""
        headers, body = await self._call("GET", shop, path, query)
        pages, total = headers.get("X-WP-TotalPages", ""), headers.get("X-WP-Total", "")
        if not (pages.isdecimal() and total.isdecimal()):
            raise ShopAway(f"{_named(shop)} did not say how many pages of {path} there are")
        return Page(read(shop, body, list[msgspec.Raw]), int(pages), int(total))

    async def get(self, shop: Shop, path: str, query: Mapping[str, str], kind: type[T]) -> T:
        """One record."""
        _, body = await self._call("GET", shop, path, query)
        return read(shop, body, kind)

    async def post(self, shop: Shop, path: str, record: object, kind: type[T]) -> T:
        """Create or change something; the answer."""
        payload = aiohttp.BytesPayload(msgspec.json.encode(record), content_type="application/json")
        _, body = await self._call("POST", shop, path, {}, payload)
        return read(shop, body, kind)

    async def upload(self, shop: Shop, path: str, query: Mapping[str, str], file: File, kind: type[T]) -> T:
        """Put a file there; the answer."""
        payload = aiohttp.BytesPayload(file.content, content_type=file.kind)
        payload.set_content_disposition("attachment", filename=file.name)
        _, body = await self._call("POST", shop, path, query, payload)
        return read(shop, body, kind)

    async def _call(
        self, method: str, shop: Shop, path: str, query: Mapping[str, str], payload: aiohttp.Payload | None = None
    ) -> tuple[Mapping[str, str], bytes]:
        url, login = _address(shop, path).with_query(query), {"Authorization": _login(shop, path)}
        try:
            async with self._http.request(
                method, url, headers=login, data=payload, allow_redirects=False
            ) as answer:
                if answer.status // 100 == 2:
                    return answer.headers, await _body(shop, answer, ANSWER_LIMIT)
                await _refuse(shop, answer)
        except TimeoutError:
            raise ShopAway(f"{_named(shop)} did not answer within {self.timeout:g} s") from None
        except (aiohttp.ClientError, OSError) as error:  # its text may have the request in it
            raise ShopAway(f"cannot reach {_named(shop)}: {type(error).__name__}") from None


def usable(url: str) -> str:
    """Why a shop cannot be at this address; empty where it can. Keys go over HTTPS alone, but for this machine."""
    with suppress(ValueError):
        found = URL(url)
        if found.scheme == "http" and found.host and not _is_here(found.host):
            return "its key would go over the network for all to read: expected https://"
        if found.host and found.scheme in ("http", "https") and not (found.user or found.query_string):
            return ""
    return "expected an address, as in https://shop.example"


def _is_here(host: str) -> bool:
    with suppress(ValueError):
        return ip_address(host).is_loopback
    return host == "localhost"


def _address(shop: Shop, path: str) -> URL:
    if why := usable(shop.url):
        raise ShopClosed(f"the url of {_named(shop)} is no good: {why}; see the setting sync.shops.{shop.tenant}")
    return URL(f"{shop.url.rstrip('/')}/wp-json/{path}")


def _login(shop: Shop, path: str) -> str:
    """The value of the header Authorization."""
    woocommerce = path.startswith(WOOCOMMERCE)
    name, password = (shop.key, shop.secret) if woocommerce else (shop.user, shop.password)
    if name and password:
        return aiohttp.encode_basic_auth(name, password)
    wanted = (
        "key and secret (WooCommerce, Settings, Advanced, REST API)"
        if woocommerce
        else "user and password (an application password)"
    )
    raise ShopClosed(f"{_named(shop)} is not asked without a login: set {wanted} in sync.shops.{shop.tenant}")


async def _body(shop: Shop, answer: aiohttp.ClientResponse, limit: int) -> bytes:
    try:
        return await body_of(answer, limit)
    except TooLarge as error:
        raise ShopAway(f"an answer of {_named(shop)} is {error}") from None


def read(shop: Shop, body: bytes | msgspec.Raw, kind: type[T]) -> T:
    """Raises ShopAway where it is none."""
    try:
        return msgspec.json.decode(body, type=kind)
    except (ValueError, RecursionError):  # a plugin that prints warnings in front of it, say
        raise ShopAway(f"an answer of {_named(shop)} cannot be read as JSON of the API") from None


async def _refuse(shop: Shop, answer: aiohttp.ClientResponse) -> NoReturn:
    problem: _Problem | None = None
    with suppress(ShopError, ValueError, RecursionError):
        problem = msgspec.json.decode(await _body(shop, answer, ERROR_LIMIT), type=_Problem)
    raise _meaning(shop, answer.status, answer.headers.get("Retry-After", ""), problem)


def _meaning(shop: Shop, status: int, retry_after: str, problem: _Problem | None) -> ShopError:
    said = f": {_shown(shop, f'{problem.code}: {problem.message}')}" if problem else ""
    text, code = f"{_named(shop)} answered {status}{said}", problem.code if problem else ""
    if code.startswith("rest_upload_"):  # a file that WordPress does not take, though it says 500
        return RecordRefused(text, code)
    if status in PASSING or status >= 500 or (status == 403 and not code):  # a firewall says 403, too
        return ShopAway(text, float(retry_after) if retry_after.isdecimal() else None)
    if not code or code == "rest_no_route" or status in (401, 403):
        where = f"see the setting sync.shops.{shop.tenant}, and what its key may do in the shop"
        return ShopClosed(f"{text}; {where}; behind a proxy the shop must be told that it is asked over https")
    if status in (404, GONE) or code.endswith("invalid_id"):
        return RecordUnknown(text)
    return RecordRefused(text, code)


def _named(shop: Shop) -> str:
    with suppress(ValueError):
        if host := URL(shop.url).host:
            return f"the shop {host}"
    return f"the shop of {shop.tenant or 'the only tenant'}"


def _shown(shop: Shop, text: str) -> str:
    """The shop's words, fit for a log."""
    for secret in filter(None, (shop.key, shop.secret, shop.password)):
        text = text.replace(secret, "***")
    line = " ".join(text.split())
    return line if len(line) <= TEXT_LIMIT else line[: TEXT_LIMIT - 1] + "…"
