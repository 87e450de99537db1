"""The short way in beside aiohttp: the same answers, and never another idea of where a request ends."""

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import pytest
from aiohttp.test_utils import TestServer
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from redis.asyncio import Redis

from api.accepting import Lane
from api.access import new_key
from pipeline import Broker, Job, scripts
from pipeline.broker.producing import Producing
from pipeline.intake import Offer
from pipeline.keys import Keys
from pipeline.message import Added
from tests.desk import Client, Serve, to_client
from tests.integration.test_http_bounds import Raw, raw
from tests.otlp import seen
from tests.support import reached

pytestmark = [pytest.mark.integration, pytest.mark.on_uvloop]


KEY, HASHED = new_key()
KEYS = {"keys": {"shop": {"hash": HASHED, "scopes": ["enqueue"]}}}
JOB = msgspec.json.encode(to_client("5511987654321"))
FIRST = b"POST /queue/notification/jobs HTTP/1.1"


def request(body: bytes = JOB, *, first: bytes = FIRST, host: str = "localhost", **headers: str) -> bytes:
    given = {"Host": host, "Content-Length": str(len(body))} | {
        name.replace("_", "-"): value for name, value in headers.items() if value
    }
    lines = [first, *(f"{name}: {value}".encode() for name, value in given.items())]
    return b"\r\n".join([*lines, b"", body])


def ordinary(content: bytes) -> bytes:
    """The same request, left to aiohttp: with a header given twice."""
    return content.replace(b"\r\n", b"\r\nX-Twice: 1\r\nX-Twice: 2\r\n", 1)


class Taken(list[bool]):
    """Whether requests took the short way, one after the other."""


@pytest.fixture
def taken(monkeypatch: pytest.MonkeyPatch) -> Taken:
    ways, take = Taken(), Lane.take

    def noting(self: Lane, body: bytes) -> bool:
        ways.append(take(self, body))
        return ways[-1]

    monkeypatch.setattr(Lane, "take", noting)
    return ways


@asynccontextmanager
async def ready(serve: Serve, **http: Any) -> AsyncIterator[Client]:
    """The service, which has looked at the server's memory: after that it may take the short way."""
    async with serve(**http) as client:
        headers = {"Authorization": f"Bearer {KEY}"}
        assert (await client.post("/queue/notification/jobs", data=JOB, headers=headers)).status == 202
        yield client


async def answers(connection: Raw, content: bytes, count: int = 1) -> list[tuple[int, dict[str, str], bytes]]:
    """Status, headers and body of so many answers."""
    connection.writer.write(content)
    return [await _answer(connection.reader) for _ in range(count)]


async def _answer(reader: asyncio.StreamReader) -> tuple[int, dict[str, str], bytes]:
    async with asyncio.timeout(10):
        status, *lines = (await reader.readuntil(b"\r\n\r\n")).decode().rstrip().split("\r\n")
        headers = dict(line.split(": ", 1) for line in lines)
        return int(status.split()[1]), headers, await reader.readexactly(int(headers["Content-Length"]))


REQUESTS = {
    "a job": ({}, request(), True),
    "no job": ({}, request(b"{}"), False),
    "no JSON": ({}, request(b"\xff{"), False),
    "a list": ({}, request(b"[" + JOB + b"]"), False),
    "an unknown kind": ({}, request(msgspec.json.encode({"kind": "send-cleint", "payload": {}})), False),
    "an unknown queue": ({}, request(first=b"POST /queue/notificatoin/jobs HTTP/1.1"), False),
    "a query": ({}, request(first=b"POST /queue/notification/jobs?x=1 HTTP/1.1"), False),
    "another method": ({}, request(first=b"PUT /queue/notification/jobs HTTP/1.1"), False),
    "a foreign host": ({}, request(host="evil.example"), False),
    "a foreign origin": ({}, request(Origin="http://evil.example"), False),
    "our origin": ({}, request(Origin="http://localhost"), True),
    "a key": (KEYS, request(Authorization=f"Bearer {KEY}"), True),
    "a wrong key": (KEYS, request(Authorization="Bearer riacho_x"), False),
    "no key": (KEYS, request(), False),
}


@pytest.mark.parametrize(("http", "content", "short"), REQUESTS.values(), ids=REQUESTS.keys())
async def test_both_ways_answer_alike(
    serve: Serve, taken: Taken, http: dict[str, Any], content: bytes, short: bool
) -> None:
    async with ready(serve, **http) as client, raw(client) as connection:
        taken.clear()
        found = (await answers(connection, content))[0]
        assert any(taken) is short
        wanted = (await answers(connection, ordinary(content)))[0]
        assert sum(taken) is int(short)
    assert found[0] == wanted[0]
    assert {k: v for k, v in wanted[1].items() if k not in ("Server", "Date", "Content-Length")} == {
        k: v for k, v in found[1].items() if k not in ("Server", "Date", "Content-Length")
    }
    if found[0] == 202:
        assert b'"jobId":"send-client.0.' in found[2]
    else:
        assert found[2] == wanted[2]


@pytest.mark.parametrize("digits", [f"{len(JOB):016}", "0" * 5_000 + str(len(JOB)), "9" * 5_000])
async def test_a_length_of_many_digits_is_answered(serve: Serve, taken: Taken, digits: str) -> None:
    async with ready(serve) as client, raw(client) as connection:
        (answer,) = await answers(connection, request(Content_Length=digits))
    assert answer[0] in (202, 400)


async def test_a_refused_job_is_told_so_by_both_ways(
    serve: Serve, taken: Taken, namespace: str, redis: Redis
) -> None:
    async with ready(serve) as client, raw(client) as connection:
        await redis.hset(Keys(namespace).place("send-client", 0).control, "draining", "1")
        (short,) = await answers(connection, request())
        (other,) = await answers(connection, ordinary(request()))
    assert taken[-2:] == [True, False]
    assert (short[0], short[2]) == (other[0], other[2])
    assert short[0] == 503
    assert short[1]["Retry-After"] == other[1]["Retry-After"]


async def test_over_the_limit_both_ways_count_together(serve: Serve, taken: Taken) -> None:
    async with ready(serve, requests_per_second=3) as client, raw(client) as connection:
        statuses = [(await answers(connection, request()))[0][0] for _ in range(5)]
    assert statuses == [202, 202, 429, 429, 429], "the first of three was the fixture's"


async def test_a_body_over_the_limit_is_refused_by_both_ways(serve: Serve, taken: Taken) -> None:
    async with ready(serve, payload_limit=len(JOB)) as client, raw(client) as connection:
        assert (await answers(connection, request()))[0][0] == 202
        assert (await answers(connection, request(JOB + b" ")))[0][0] == 413
    assert taken[-2:] == [True, False]


async def test_a_job_is_in_the_stream_once_it_is_answered(
    serve: Serve, taken: Taken, namespace: str, redis: Redis
) -> None:
    once = msgspec.json.encode(to_client("5511987654321") | {"id": "a"})
    async with ready(serve) as client, raw(client) as connection:
        found = await answers(connection, request(once))
        again = await answers(connection, request(once))
        assert await redis.xlen(Keys(namespace).stream("send-client", 0)) == 2, "with the fixture's"
    first, second = (msgspec.json.decode(body) for _, _, body in found + again)
    assert second == first | {"duplicate": True}
    assert taken[-2:] == [True, True]


# ── where a request ends ─────────────────────────────────────────────────────────────────────────


def mixed(seed: int) -> Iterator[bytes]:
    """Requests of both ways, in any order."""
    kinds = [
        request(),
        request(b"{}"),
        b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n",
        ordinary(request()),
        request()
        .replace(b"Content-Length: %d" % len(JOB), b"Transfer-Encoding: chunked")
        .replace(JOB, b"%x\r\n%b\r\n0\r\n\r\n" % (len(JOB), JOB)),
    ]
    chance = random.Random(seed)
    while True:
        yield chance.choice(kinds)


STATUSES = {b"GET": 200, b"POS": 202}


@pytest.mark.parametrize("seed", range(5))
async def test_however_requests_are_cut_up_each_is_answered_once_and_in_order(
    serve: Serve, taken: Taken, seed: int
) -> None:
    chance, requests = random.Random(seed), mixed(seed)
    async with ready(serve) as client, raw(client) as connection:
        for _ in range(6):  # a few requests at a time, sent in pieces
            batch = [next(requests) for _ in range(chance.randint(1, 5))]
            content = b"".join(batch)
            answering = asyncio.create_task(answers(connection, b"", len(batch)))
            while content:
                cut = chance.choice([1, 10, len(batch[0]), len(content)])
                connection.writer.write(content[:cut])
                content = content[cut:]
                await asyncio.sleep(chance.choice([0, 0, 0.001]))
            wanted = [400 if one.endswith(b"\r\n\r\n{}") else STATUSES[one[:3]] for one in batch]
            assert [status for status, _, _ in await answering] == wanted


INSIDE = request(first=b"POST /queue/notification/jobs HTTP/1.1")
SMUGGLED = {
    "two lengths": request().replace(b"Host", b"Content-Length: 0\r\nHost") + INSIDE,
    "a length and chunks": request(INSIDE, Transfer_Encoding="chunked"),
    "a length with a sign": request().replace(b"Content-Length: ", b"Content-Length: +"),
    "a length in hex": request().replace(b"Content-Length: ", b"Content-Length: 0x"),
    "a line folded": request().replace(b"Host: localhost", b"Host: local\r\n host"),
    "a bare line feed": request().replace(b"\r\nHost", b"\nHost"),
    "a space before the colon": request().replace(b"Content-Length:", b"Content-Length :"),
    "a name with a NUL": request().replace(b"Host", b"Ho\0st"),
    "an absolute target": request(first=b"POST http://localhost/queue/notification/jobs HTTP/1.1"),
    "an old version": request(first=b"POST /queue/notification/jobs HTTP/1.0"),
    "a version of the future": request(first=b"POST /queue/notification/jobs HTTP/2.0"),
    "a body to a GET": request(INSIDE, first=b"GET /healthz HTTP/1.1"),
    "an upgrade": request(Connection="upgrade", Upgrade="h2c"),
    "an end that is asked for": request(Connection="close"),
    "a request and a half": request() + INSIDE[:40],
    "empty lines before": b"\r\n\r\n" + request(),
    "empty lines after": request() + b"\r\n\r\n",
    "an encoding that is none": request(Content_Encoding="gzip"),
    "an expectation": request(Expect="200-maybe"),
}


@pytest.mark.parametrize("content", SMUGGLED.values(), ids=SMUGGLED.keys())
async def test_what_is_odd_is_answered_as_aiohttp_alone_does(
    serve: Serve, monkeypatch: pytest.MonkeyPatch, content: bytes
) -> None:
    async def all_of_it() -> list[bytes]:
        """The first lines of all answers to it, and to a request behind it, until the connection is quiet."""
        async with ready(serve) as client, raw(client) as connection:
            await answers(connection, request())
            connection.writer.write(content)
            await asyncio.sleep(0.02)
            with contextlib.suppress(OSError):  # closed already
                connection.writer.write(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
                connection.writer.write_eof()
            received = b""
            with contextlib.suppress(ConnectionError):
                async with asyncio.timeout(10):
                    while some := await connection.reader.read(100_000):
                        received += some
            return [line for line in received.split(b"\r\n") if line.startswith(b"HTTP/1.1 ")]

    found = await all_of_it()
    monkeypatch.setattr(Lane, "read", lambda *_: False)
    assert found == await all_of_it()


# ── clients that go, or do not read ──────────────────────────────────────────────────────────────


def connections(client: Client) -> list[Any]:
    """The service's side of all connections."""
    served = client.server
    assert isinstance(served, TestServer)
    assert served.runner
    assert served.runner.server
    return served.runner.server.connections


async def test_who_sends_the_next_request_early_is_answered_in_order(serve: Serve, taken: Taken) -> None:
    async with ready(serve) as client, raw(client) as connection:
        connection.writer.write(request())
        await asyncio.sleep(0)
        connection.writer.write(request(b"{}"))
        assert [status for status, _, _ in await answers(connection, b"", 2)] == [202, 400]


async def test_a_client_that_goes_before_its_answer_is_no_error(
    serve: Serve, taken: Taken, caplog: pytest.LogCaptureFixture
) -> None:
    async with ready(serve) as client:
        async with raw(client) as connection:
            connection.writer.write(request())
            await reached(lambda: len(taken) > 1)
        async with raw(client) as connection:
            assert (await answers(connection, request()))[0][0] == 202
    assert not caplog.records


def hold_up_adding(monkeypatch: pytest.MonkeyPatch) -> tuple[asyncio.Event, asyncio.Event]:
    """Set when aiohttp's way comes to add a job, and to be set to let it."""
    adding, go_on, add = asyncio.Event(), asyncio.Event(), Broker.add

    async def slowly(broker: Broker, jobs: Sequence[Job]) -> list[Added]:
        adding.set()
        await go_on.wait()
        return await add(broker, jobs)

    monkeypatch.setattr(Broker, "add", slowly)
    return adding, go_on


async def test_while_aiohttp_answers_nobody_overtakes(
    serve: Serve, taken: Taken, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with ready(serve) as client, raw(client) as connection:
        adding, go_on = hold_up_adding(monkeypatch)
        taken.clear()
        connection.writer.write(ordinary(request()))
        await adding.wait()
        answering = asyncio.create_task(answers(connection, request(), 2))
        done, _ = await asyncio.wait([answering], timeout=0.1)
        assert not done
        go_on.set()
        assert [status for status, _, _ in await answering] == [202, 202]
    assert taken == [False], "both went to aiohttp, and one after the other"


@pytest.mark.parametrize("short", [True, False])
async def test_who_does_not_read_is_not_read_from(serve: Serve, taken: Taken, short: bool) -> None:
    content = request() if short else ordinary(request())
    async with ready(serve) as client, raw(client) as connection:
        assert (await answers(connection, content))[0][0] == 202
        for protocol in connections(client):
            protocol.pause_writing()  # as the loop does with a full buffer
        taken.clear()
        answering = asyncio.create_task(answers(connection, content))
        done, _ = await asyncio.wait([answering], timeout=0.1)
        assert not done
        assert not taken
        for protocol in connections(client):
            protocol.resume_writing()
        assert (await answering)[0][0] == 202


async def test_who_reads_again_is_not_read_from_before_it_is_answered(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with ready(serve) as client, raw(client) as connection:
        adding, go_on = hold_up_adding(monkeypatch)
        connection.writer.write(request() * 100)  # more than aiohttp has wait
        await adding.wait()
        (protocol,) = [each for each in connections(client) if each._buffer_paused]
        protocol.pause_writing()
        protocol.resume_writing()
        assert not protocol.transport.is_reading()
        go_on.set()
        assert [status for status, _, _ in await answers(connection, b"", 100)] == [202] * 100


async def test_a_connection_is_not_closed_as_idle_with_an_answer_on_its_way(
    serve: Serve, taken: Taken, monkeypatch: pytest.MonkeyPatch
) -> None:
    adding, go_on, send = asyncio.Event(), asyncio.Event(), Producing._send

    async def slowly(broker: Broker, partition: int, offers: list[Offer]) -> list[Added]:
        adding.set()
        await go_on.wait()
        return await send(broker, partition, offers)

    monkeypatch.setattr(Producing, "_send", slowly)
    go_on.set()
    async with ready(serve) as client, raw(client) as connection:
        assert (await answers(connection, request()))[0][0] == 202
        go_on.clear()
        adding.clear()
        for protocol in connections(client):
            protocol._next_keepalive_close_time = 0.0  # it has rested for long when the next request comes
        answering = asyncio.create_task(answers(connection, request()))
        await adding.wait()
        for protocol in connections(client):
            if protocol._lane:
                protocol._process_keepalive()
        go_on.set()
        assert (await answering)[0][0] == 202
    assert taken[-2:] == [True, True]


@pytest.mark.parametrize("http", [{}, KEYS])
async def test_neither_key_nor_body_is_kept_with_a_connection(
    serve: Serve, taken: Taken, http: dict[str, Any]
) -> None:
    async with ready(serve, **http) as client, raw(client) as connection:
        for body in (JOB, b"{}", JOB):
            await answers(connection, request(body, Authorization=f"Bearer {KEY}"))
            for lane in [each._lane for each in connections(client) if each._lane]:
                kept = repr([vars(lane), vars(lane._head)])
                assert KEY not in kept
                assert "5511987654321" not in kept
    assert any(taken)


async def test_a_client_that_goes_leaves_no_span_open(
    serve: Serve, taken: Taken, spans: InMemorySpanExporter, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone, add = asyncio.Event(), scripts.add

    async def slowly(*args: Any) -> Any:
        await gone.wait()
        return await add(*args)

    async with ready(serve) as client:
        spans.clear()
        monkeypatch.setattr(scripts, "add", slowly)
        async with raw(client) as connection:
            connection.writer.write(request())
            await reached(lambda: len(taken) > 1)
        await reached(lambda: [span.kind for span in seen(spans.get_finished_spans())] == ["SERVER"])
        gone.set()
        await reached(lambda: len(spans.get_finished_spans()) == 2, what="both spans' ends")


async def test_two_clients_at_the_same_time_are_two_traces(serve: Serve, spans: InMemorySpanExporter) -> None:
    async with ready(serve) as client, raw(client) as one, raw(client) as other:
        spans.clear()
        for connection in (one, other, one, other):  # the second request of each may have to wait for the first
            connection.writer.write(request())
            await connection.writer.drain()
        found = [*await answers(one, b"", 2), *await answers(other, b"", 2)]
        assert [status for status, *_ in found] == [202] * 4
        await reached(lambda: len(spans.get_finished_spans()) == 8, what="all spans' ends")
    servers = [span for span in seen(spans.get_finished_spans()) if span.kind == "SERVER"]
    assert [span.parent for span in servers] == [""] * 4
    assert len({span.trace for span in servers}) == 4
