"""Servers that stall, drip, lie about how much they send, or send without end: each fetch ends, and soon."""

import asyncio
import gzip
from collections.abc import Awaitable, Callable

import pytest
from yarl import URL

from pipeline import Permanent
from stages.audio.sources import AudioSources, GraphApi, Timeouts
from stages.audio.sources.web import _next
from tests.support import RawServer, Write

pytestmark = pytest.mark.integration

LIMIT = 100_000
HEAD = b"HTTP/1.1 200 OK\r\n"


async def fetched(server: RawServer, timeouts: Timeouts) -> bytes:
    async with (
        AudioSources(
            graph=GraphApi("", "", ""),
            roots=[],
            byte_limit=LIMIT,
            networks=["127.0.0.1/32"],
            timeouts=timeouts,
        ) as fetcher,
        server.running() as url,
    ):
        try:
            return await fetcher.fetch(f"{url}/note?sig=hush")
        except Exception as error:
            if "hush" in str(error):
                pytest.fail(f"a secret is shown: {error}")
            raise


async def stalls_in_headers(write: Write) -> None:
    await write(HEAD + b"Content-Type: audio/ogg\r\n")


async def stalls_in_body(write: Write) -> None:
    await write(HEAD + b"Content-Length: 10\r\n\r\nx")


async def drips(write: Write) -> None:
    await write(HEAD + b"Content-Length: 1000\r\n\r\n")
    while True:
        await write(b"x")
        await asyncio.sleep(0.02)


async def drips_headers(write: Write) -> None:
    await write(HEAD)
    while True:
        await write(b"x")
        await asyncio.sleep(0.02)


@pytest.mark.parametrize("answer", [stalls_in_headers, stalls_in_body])
async def test_a_server_that_stalls_is_left(answer: Callable[[Write], Awaitable[None]]) -> None:
    with pytest.raises(ConnectionError, match="took too long to answer"):
        await fetched(RawServer(answer), Timeouts(read=0.1))


@pytest.mark.parametrize("answer", [drips, drips_headers])
async def test_a_server_that_drips_is_left(answer: Callable[[Write], Awaitable[None]]) -> None:
    """No pause is long, all of them together are."""
    with pytest.raises(ConnectionError, match=r"took too long: over 0\.5 s"):
        await fetched(RawServer(answer), Timeouts(read=0.4, total=0.5))


async def test_headers_without_end_are_left() -> None:
    async def answer(write: Write) -> None:
        await write(HEAD)
        for _ in range(100_000):
            await write(b"X-Header: " + b"x" * 1_000 + b"\r\n")

    server = RawServer(answer)
    with pytest.raises(ConnectionError):
        await fetched(server, Timeouts())
    assert server.sent < 50_000_000


async def test_ten_gigabytes_are_left_at_the_limit() -> None:
    async def answer(write: Write) -> None:
        await write(HEAD + b"Transfer-Encoding: chunked\r\n\r\n")
        for _ in range(100_000):
            await write(b"186a0\r\n" + b"x" * 100_000 + b"\r\n")

    server = RawServer(answer)
    with pytest.raises(Permanent, match="over the limit of 100,000 bytes"):
        await fetched(server, Timeouts())
    assert server.sent < 20_000_000  # what the buffers of both sockets hold


async def test_a_length_over_the_limit_is_not_read() -> None:
    async def answer(write: Write) -> None:
        await write(HEAD + b"Content-Length: 100001\r\n\r\n")

    with pytest.raises(Permanent, match="over the limit of 100,000 bytes"):
        await fetched(RawServer(answer), Timeouts())


async def test_more_than_the_length_says_is_no_part_of_the_note() -> None:
    async def answer(write: Write) -> None:
        await write(HEAD + b"Content-Length: 4\r\n\r\n" + b"note and more")

    with pytest.raises(ConnectionError, match="ClientResponseError"):
        await fetched(RawServer(answer), Timeouts())


async def test_less_than_the_length_says_is_worth_another_try() -> None:
    async def answer(write: Write) -> None:
        await write(HEAD + b"Content-Length: 1000\r\n\r\nx")
        raise ConnectionError

    with pytest.raises(ConnectionError, match="ClientPayloadError"):
        await fetched(RawServer(answer), Timeouts())


@pytest.mark.parametrize("encoding", [b"gzip", b"deflate", b"br", b"gzip, gzip"])
async def test_a_body_that_would_have_to_be_unpacked_is_refused(encoding: bytes) -> None:
    body = gzip.compress(bytes(20_000_000))  # 20 KB

    async def answer(write: Write) -> None:
        await write(HEAD + b"Content-Encoding: %b\r\nContent-Length: %d\r\n\r\n" % (encoding, len(body)))

    with pytest.raises(Permanent, match="sends its audio compressed"):
        await fetched(RawServer(answer), Timeouts())


async def test_a_server_that_answers_no_http_is_worth_another_try() -> None:
    async def answer(write: Write) -> None:
        await write(b"SSH-2.0-OpenSSH\r\n\r\n")

    with pytest.raises(ConnectionError):
        await fetched(RawServer(answer), Timeouts())


async def test_a_server_with_a_wrong_certificate_is_worth_another_try() -> None:
    """Or without any: certificates are renewed."""

    async def answer(write: Write) -> None:
        raise ConnectionError

    async with AudioSources(
        graph=GraphApi("", "", ""), roots=[], byte_limit=LIMIT, networks=["127.0.0.1/32"]
    ) as fetcher:
        server = await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", 0)
        async with server:
            with pytest.raises(ConnectionError):
                await fetcher.fetch(f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}/note")


def test_a_redirect_does_not_leave_https() -> None:
    with pytest.raises(Permanent, match=r"https://shop\.example/note leads from https to http"):
        _next(URL("https://login:pass@shop.example/note?sig=hush"), "http://shop.example/note")
    assert str(_next(URL("http://shop.example/a"), "https://shop.example/b")) == "https://shop.example/b"
    assert str(_next(URL("https://shop.example/a"), "//other.example/b")) == "https://other.example/b"
