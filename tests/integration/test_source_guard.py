"""No voice note is fetched from where it should not be: private addresses in every spelling, names that change
their mind, redirects. Our token goes to nobody but the origin it is meant for.
"""

import asyncio
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from aiohttp import web
from yarl import URL

from pipeline import Permanent
from stages.audio.sources import AudioSources, GraphApi, Timeouts
from stages.audio.sources.guard import Forbidden, guarded_socket
from stages.audio.sources.web import Web
from stages.audio.sources.whatsapp import WhatsApp

pytestmark = pytest.mark.integration

TOKEN = "made-up-token"
QUICK = Timeouts(connect=0.3, read=1, total=2)
PRIVATE = """
    127.0.0.1 127.255.255.254 10.0.0.1 172.16.0.1 172.31.255.255 192.168.0.1 169.254.169.254 100.64.0.1 0.0.0.0
    0.1.2.3 224.0.0.1 239.255.255.250 240.0.0.1 255.255.255.255 192.0.0.8 192.0.2.1 192.88.99.1 198.18.0.1
    198.51.100.1 203.0.113.1
    ::1 :: fe80::1 fe80::1%eth0 fc00::1 fd00:ec2::254 fec0::1 ff02::1 2001:db8::1 3fff::1 100::1 4000::1
    ::ffff:127.0.0.1 ::ffff:10.0.0.1 ::127.0.0.1 2002:7f00:1::1 2002:a9fe:a9fe::1 64:ff9b::7f00:1
    64:ff9b::10.0.0.1 64:ff9b:1::1 2001:0:7f00:1::1
    2130706433 0x7f.1 localhost
"""
PUBLIC = """
    1.1.1.1 8.8.8.8 157.240.1.1 172.32.0.1 100.128.0.1 2606:4700::1111 2a03:2880:f000::1
    ::ffff:8.8.8.8 64:ff9b::8.8.8.8 2002:808:808::1
"""
LOOPBACK = """
    127.0.0.1 localhost LOCALHOST localhost. 127.1 2130706433 017700000001 0177.0.0.1 0x7f.1 0x7f000001
    0x7F.0x0.0x0.0x1 0 0.0.0.0 127.0.0.1. [::1] [::ffff:127.0.0.1] [::ffff:7f00:1] [0:0:0:0:0:ffff:127.0.0.1]
    [::127.0.0.1] [::] [64:ff9b::127.0.0.1] [2002:7f00:1::] [::1%25lo] １２７.０.０.１ ①②⑦.⓪.⓪.① 127。0。0。1
    %31%32%37.0.0.1 user:secret@127.0.0.1 public.example@127.0.0.1
"""  # noqa: RUF001


def connectable(address: str, *networks: str) -> bool:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    try:
        guarded_socket(networks)((family, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", (address, 80))).close()
    except Forbidden:
        return False
    return True


@pytest.mark.parametrize("address", PRIVATE.split())
def test_an_address_that_is_not_public_is_not_connected_to(address: str) -> None:
    assert not connectable(address)


@pytest.mark.parametrize("address", PUBLIC.split())
def test_a_public_address_is_connected_to(address: str) -> None:
    assert connectable(address)


def test_a_network_may_be_allowed() -> None:
    assert connectable("10.1.2.3", "10.1.0.0/16")
    assert connectable("::ffff:10.1.2.3", "192.168.0.0/16", "10.1.0.0/16")
    assert connectable("fd00::1", "fd00::/8")
    assert not connectable("10.2.2.3", "10.1.0.0/16")
    assert not connectable("127.0.0.1", "::/0")


class Site:
    """A local server: what it was asked for, and with which Authorization header."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str | None]] = []
        self.redirects: dict[str, str] = {}
        self.media = ""

    async def answer(self, request: web.Request) -> web.Response:
        self.asked.append((request.path, request.headers.get("Authorization")))
        if location := self.redirects.get(request.path):
            return web.Response(status=307, headers={"Location": location})
        return web.json_response({"url": self.media}) if request.path == "/v1/1" else web.Response(body=b"note")

    @asynccontextmanager
    async def at(self, host: str) -> AsyncIterator[str]:
        app = web.Application()
        app.router.add_get("/{path:.*}", self.answer)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=1)
        await runner.setup()
        await web.TCPSite(runner, host, 0).start()
        yield f"http://{host}:{runner.addresses[0][1]}"
        await runner.cleanup()


@pytest.fixture
async def site() -> Site:
    return Site()


@pytest.fixture
async def url(site: Site) -> AsyncIterator[str]:
    async with site.at("127.0.0.1") as url:
        yield url


@asynccontextmanager
async def sources(graph: str = "", *networks: str) -> AsyncIterator[AudioSources]:
    api = GraphApi(graph, "v1", TOKEN)
    async with AudioSources(graph=api, roots=[], byte_limit=1_000, networks=networks, timeouts=QUICK) as made:
        yield made


@pytest.mark.parametrize("host", LOOPBACK.split())
async def test_no_spelling_leads_to_this_machine(site: Site, url: str, host: str) -> None:
    port = url.rpartition(":")[2]
    async with sources() as fetcher:
        with pytest.raises((Permanent, ConnectionError), match=r"audio\.networks|is no address|DNS") as raised:
            await fetcher.fetch(f"http://{host}:{port}/note?sig=hush")
    assert site.asked == []
    assert "hush" not in str(raised.value)
    assert "secret" not in str(raised.value)


async def test_a_refusal_names_the_host_and_the_remedy(url: str) -> None:
    async with sources() as fetcher:
        with pytest.raises(Permanent, match=r"from 127\.0\.0\.1: .* the setting audio\.networks"):
            await fetcher.fetch(f"{url}/note")


async def test_a_network_that_is_allowed_is_fetched_from(site: Site, url: str) -> None:
    async with sources("", "127.0.0.0/30") as fetcher:
        assert await fetcher.fetch(f"{url}/note") == b"note"


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> dict[str, Iterator[list[str]]]:
    """What names resolve to, one answer after the other."""
    answers: dict[str, Iterator[list[str]]] = {}
    real: Callable[..., Any] = socket.getaddrinfo

    def getaddrinfo(host: str, port: int, *args: Any, **options: Any) -> Any:
        if host not in answers:
            return real(host, port, *args, **options)
        addresses = next(answers[host])
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port)) for address in addresses]

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    return answers


async def test_a_name_that_changes_its_mind_is_refused(
    site: Site, url: str, names: dict[str, Iterator[list[str]]]
) -> None:
    """DNS rebinding: an allowed address when it is looked at, this machine when it is connected to."""
    port = url.rpartition(":")[2]
    other = Site()
    async with other.at("127.0.0.2") as allowed, sources("", "127.0.0.2/32") as fetcher:
        names["rebind.example"] = iter([["127.0.0.2"], ["127.0.0.1"]])
        assert await fetcher.fetch(f"http://rebind.example:{allowed.rpartition(':')[2]}/note") == b"note"
        with pytest.raises(Permanent, match=r"audio may not come from rebind\.example"):
            await fetcher.fetch(f"http://rebind.example:{port}/note")
    assert site.asked == []


async def test_a_name_with_several_private_addresses_is_refused(
    site: Site, url: str, names: dict[str, Iterator[list[str]]]
) -> None:
    names["many.example"] = iter([["127.0.0.1", "10.0.0.1", "192.168.0.1"]])
    async with sources() as fetcher:
        with pytest.raises(Permanent, match=r"audio may not come from many\.example"):
            await fetcher.fetch(url.replace("127.0.0.1", "many.example"))
    assert site.asked == []


async def test_a_private_address_among_allowed_ones_is_not_connected_to(
    site: Site, url: str, names: dict[str, Iterator[list[str]]]
) -> None:
    names["mixed.example"] = iter([["127.0.0.3", "127.0.0.1"]])  # nobody listens at the allowed one
    async with sources("", "127.0.0.3/32") as fetcher:
        with pytest.raises((ConnectionError, Permanent)):
            await fetcher.fetch(url.replace("127.0.0.1", "mixed.example"))
    assert site.asked == []


@pytest.mark.parametrize("target", ["127.0.0.1", "localhost", "2130706433", "[::ffff:127.0.0.1]"])
async def test_a_redirect_to_this_machine_is_refused(site: Site, url: str, target: str) -> None:
    outside = Site()
    outside.redirects["/note"] = f"http://{target}:{url.rpartition(':')[2]}/internal?sig=hush"
    async with outside.at("127.0.0.2") as start, sources("", "127.0.0.2/32") as fetcher:
        with pytest.raises(Permanent) as raised:
            await fetcher.fetch(f"{start}/note")
    assert [path for path, _ in outside.asked] == ["/note"]
    assert site.asked == []
    assert "hush" not in str(raised.value)


async def test_five_redirects_are_followed_and_no_more(site: Site, url: str) -> None:
    site.redirects |= {f"/{n}": f"/{n - 1}" for n in range(1, 7)}
    async with sources("", "127.0.0.1/32") as fetcher:
        assert await fetcher.fetch(f"{url}/5") == b"note"
        with pytest.raises(Permanent, match="redirects more than 5 times"):
            await fetcher.fetch(f"{url}/6")


async def test_the_media_address_may_be_where_the_graph_api_is(site: Site, url: str) -> None:
    site.media = f"{url}/note"
    async with sources(url) as fetcher:
        assert await fetcher.fetch("whatsapp:1") == b"note"
    assert site.asked == [("/v1/1", f"Bearer {TOKEN}"), ("/note", f"Bearer {TOKEN}")]


async def test_where_the_graph_api_is_nothing_else_may_come_from(site: Site, url: str) -> None:
    site.media = f"{url}/note"
    async with sources(url) as fetcher:
        await fetcher.fetch("whatsapp:1")  # leaves a connection open, which the next must not use
        with pytest.raises(Permanent, match=r"audio\.networks"):
            await fetcher.fetch(f"{url}/note")
    assert len(site.asked) == 2


async def test_a_media_address_elsewhere_has_to_be_public(site: Site, url: str) -> None:
    other = Site()
    async with other.at("127.0.0.1") as private, sources(url) as fetcher:
        site.media = f"{private}/note"
        with pytest.raises(Permanent, match=r"audio\.networks"):
            await fetcher.fetch("whatsapp:1")
    assert other.asked == []


async def test_the_token_goes_to_the_media_address_and_no_further(site: Site, url: str) -> None:
    store, other = Site(), Site()
    async with store.at("127.0.0.2") as first, other.at("127.0.0.3") as second:
        site.media = f"{first}/note"
        store.redirects = {"/note": "/there", "/there": f"{second}/note"}
        other.redirects = {"/note": f"{first}/back"}
        async with sources(url, "127.0.0.0/8") as fetcher:
            assert await fetcher.fetch("whatsapp:1") == b"note"
    login = f"Bearer {TOKEN}"
    assert store.asked == [("/note", login), ("/there", login), ("/back", login)]
    assert other.asked == [("/note", None)]


async def test_the_token_does_not_leave_the_graph_api_through_a_redirect(site: Site, url: str) -> None:
    other = Site()
    async with other.at("127.0.0.2") as elsewhere, sources(url, "127.0.0.0/8") as fetcher:
        site.redirects["/v1/1"] = f"{elsewhere}/v1/2"
        with pytest.raises(Permanent):
            await fetcher.fetch("whatsapp:1")
    assert other.asked == [("/v1/2", None)]


async def test_the_token_never_goes_with_other_sources(site: Site, url: str) -> None:
    async with sources(url, "127.0.0.1/32") as fetcher:
        assert await fetcher.fetch(f"{url}/note") == b"note"
    assert site.asked == [("/note", None)]


async def test_proxies_of_the_environment_are_not_used(
    site: Site, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, url)
    with socket.create_server(("127.0.0.2", 0)) as closed:
        port = closed.getsockname()[1]
    async with sources("", "127.0.0.0/8") as fetcher:
        with pytest.raises(ConnectionError):
            await fetcher.fetch(f"http://127.0.0.2:{port}/note")
    assert site.asked == []


async def test_cookies_are_not_kept(site: Site) -> None:
    seen: list[str | None] = []

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        seen.append("cookie" if "\r\nCookie:" in head else None)
        writer.write(
            b"HTTP/1.1 200 OK\r\nSet-Cookie: a=b; Path=/\r\nContent-Length: 1\r\nConnection: close\r\n\r\nx"
        )
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with server, sources("", "127.0.0.1/32") as fetcher:
        for _ in range(2):
            await fetcher.fetch(f"http://localhost:{server.sockets[0].getsockname()[1]}/")
    assert seen == [None, None]


async def test_the_token_does_not_go_from_https_to_http() -> None:
    class Graph(Web):
        def __init__(self) -> None:
            self.asked: list[str] = []

        async def download(self, url: str, *, limit: int, login: str = "", trusted: URL | None = None) -> bytes:
            self.asked.append(url)
            return b'{"url": "http://lookaside.example/note?sig=hush"}'

    graph = Graph()
    with pytest.raises(Permanent, match="address of media 1 is not https"):
        await WhatsApp(GraphApi("https://graph.example", "v1", TOKEN), graph).download("1", limit=10)
    assert graph.asked == ["https://graph.example/v1/1"]
