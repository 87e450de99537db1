"""Clients that send too much, too slowly, nothing at all, or come in crowds."""

import asyncio
import logging
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import msgspec
import pytest

from api.access import new_key
from tests.desk import Client, Serve, to_client
from tests.support import eventually

pytestmark = [pytest.mark.integration, pytest.mark.on_uvloop]


HEAD = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n"


class Raw:
    """A connection without any manners."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    async def answer(self) -> tuple[int, str]:
        """The status and the head of the next answer, whose body is left out."""
        head = (await self.reader.readuntil(b"\r\n\r\n")).decode()
        length = next(int(line.split()[1]) for line in head.splitlines() if line.startswith("Content-Length"))
        await self.reader.readexactly(length)
        return int(head.split()[1]), head

    async def closed_after(self) -> float:
        """Seconds until the service closes it, without another word."""
        started = time.monotonic()
        async with asyncio.timeout(10):
            assert await self.reader.read() == b""
        return time.monotonic() - started

    async def drip(self, content: bytes, every: float) -> None:
        """A byte at a time, until nobody takes it any more."""
        for byte in content:
            self.writer.write(bytes([byte]))
            await asyncio.sleep(every)


@asynccontextmanager
async def raw(client: Client) -> AsyncIterator[Raw]:
    reader, writer = await asyncio.open_connection(client.host, client.port)
    try:
        yield Raw(reader, writer)
    finally:
        writer.transport.abort()


async def test_who_sends_nothing_is_cut_off(serve: Serve) -> None:
    async with serve(read_timeout=0.3) as client, raw(client) as silent:
        assert 0.2 < await silent.closed_after() < 5


async def test_who_sends_a_head_byte_by_byte_is_cut_off(serve: Serve) -> None:
    async with serve(read_timeout=0.3) as client, raw(client) as slow:
        dripping = asyncio.create_task(slow.drip(HEAD * 20, 0.02))
        assert 0.2 < await slow.closed_after() < 5
        dripping.cancel()


async def test_who_sends_a_second_head_byte_by_byte_is_cut_off(serve: Serve) -> None:
    async with serve(read_timeout=0.3) as client, raw(client) as slow:
        slow.writer.write(HEAD + b"\r\n")
        assert (await slow.answer())[0] == 200
        dripping = asyncio.create_task(slow.drip(HEAD * 20, 0.02))
        assert 0.2 < await slow.closed_after() < 5
        dripping.cancel()


async def test_a_connection_may_rest_between_requests(serve: Serve) -> None:
    async with serve(read_timeout=0.1) as client, raw(client) as resting:
        for _ in range(3):
            resting.writer.write(HEAD + b"\r\n")
            assert (await resting.answer())[0] == 200
            await asyncio.sleep(0.25)  # longer than a head may take


async def test_who_sends_a_body_byte_by_byte_is_told_and_cut_off(serve: Serve) -> None:
    async with serve(read_timeout=0.3) as client, raw(client) as slow:
        slow.writer.write(b"POST /webhooks/whatsapp HTTP/1.1\r\nHost: x\r\nContent-Length: 3000\r\n\r\n")
        dripping = asyncio.create_task(slow.drip(b" " * 1_000, 0.02))
        status, head = await slow.answer()
        assert (status, "connection: close" in head.lower()) == (408, True)
        dripping.cancel()


async def test_slow_clients_do_not_keep_others_waiting(serve: Serve) -> None:
    async with serve(read_timeout=30.0) as client:
        slow = [await asyncio.open_connection(client.host, client.port) for _ in range(300)]
        for _, writer in slow:
            writer.write(HEAD)
        async with asyncio.timeout(5):
            assert (await client.post("/queue/notification/jobs", json=to_client("5511987654321"))).status == 202
        for _, writer in slow:
            writer.transport.abort()


async def test_one_connection_too_many_is_sent_away_and_may_come_back(serve: Serve) -> None:
    async with serve(connections=2) as client:
        async with raw(client) as first, raw(client) as second:
            for each in (first, second):
                each.writer.write(HEAD + b"\r\n")
                assert (await each.answer())[0] == 200
            async with raw(client) as third:
                status, head = await third.answer()
                assert (status, "Retry-After: 1" in head) == (503, True)
                await third.closed_after()

        async def served() -> bool:
            return (await client.get("/healthz")).status == 200

        await eventually(served, what="room for another")


@pytest.mark.parametrize(
    "head",
    [
        HEAD + b"X: " + b"x" * 8_200 + b"\r\n\r\n",
        HEAD + b"X: x\r\n" * 100 + b"\r\n",
        b"GET /" + b"x" * 8_200 + b" HTTP/1.1\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03 TLS\r\n\r\n",
        HEAD + b"Content-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
    ],
)
async def test_a_head_beyond_its_bounds_is_a_problem(serve: Serve, head: bytes) -> None:
    async with serve() as client, raw(client) as bad:
        bad.writer.write(head)
        status, told = await bad.answer()
        assert (status, "application/problem+json" in told) == (400, True)
        await bad.closed_after()


async def test_a_key_in_a_head_that_is_no_http_is_not_logged_or_answered(
    serve: Serve, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    key, hashed = new_key()
    keys = {"shop": {"hash": hashed, "scopes": ["read"]}}
    async with serve(keys=keys) as client, raw(client) as bad:
        bad.writer.write(HEAD + f"Authorization: Bearer {key}\1\r\n\r\n".encode())
        said = (await bad.reader.read()).decode()
    assert "400 Bad Request" in said
    assert "what 127.0.0.1 sent is no HTTP request" in caplog.text
    assert key not in said + caplog.text


async def test_each_key_has_a_limit_of_its_own(serve: Serve) -> None:
    made = {name: new_key() for name in ("shop", "other")}
    keys = {name: {"hash": hashed, "scopes": ["read"]} for name, (_, hashed) in made.items()}
    async with serve(keys=keys, requests_per_second=0.01) as client:

        async def ask(name: str) -> tuple[int, str | None]:
            headers = {"Authorization": f"Bearer {made[name][0]}"}
            answer = await client.get("/queue/status", headers=headers)
            return answer.status, answer.headers.get("Retry-After")

        assert await ask("shop") == (200, None)
        status, retry = await ask("shop")
        assert (status, 90 <= int(retry or 0) <= 100) == (429, True)
        assert await ask("other") == (200, None)
        assert (await client.get("/healthz")).status == (await client.get("/healthz")).status == 200


async def test_without_keys_the_limit_is_of_an_address(serve: Serve) -> None:
    async with serve(requests_per_second=0.01) as client:
        answers = [await client.get("/queue/status") for _ in range(2)]
        assert [answer.status for answer in answers] == [200, 429]
        assert msgspec.json.decode(await answers[1].read())["detail"].startswith("That is over the limit")
