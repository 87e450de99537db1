"""How many jobs the service takes in over HTTP, each durable in Redis before its answer, beside Fastify + BullMQ.

Both are one process on one embedded Valkey over its Unix socket, AOF everysec on, and take turns round by round.
wrk posts single jobs as fast as they are answered; then latency is measured at half of what Riacho took, open
loop (`benchmarks.parts.openloop`), over connections of our own: a client's library takes longer than the service.
"""

import asyncio
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict, deque
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, cast
from urllib.request import urlopen

import msgspec
import typer
import uvloop

from benchmarks.parts.contest import Rounds
from benchmarks.parts.crowd import LISTENERS, SLOW
from benchmarks.parts.openloop import Due, Offer, Pace
from benchmarks.parts.server import Server
from benchmarks.parts.settings import of_a_run
from benchmarks.parts.usage import cpu_of
from benchmarks.peers.environments import Unavailable, node_peer
from benchmarks.peers.process import Process
from benchmarks.reports.report import Report
from config import child_environment
from pipeline.embedded import EmbeddedServer

QUICK = {"rounds": 5}
PATH = "/queue/audio/jobs"
BODIES = 2_000  # of as many shops, of which each may have 60 unfinished jobs before some are held back
CONNECTIONS = 64
START = 30.0  # seconds
WARM_UP = 0.2  # seconds
PACED = 2  # times as long as a round, at half the rate
LUA = """
wrk.method = "POST"
wrk.headers["Content-Type"] = "application/json"
local requests, next = {}, 0
init = function()
  for line in io.lines(os.getenv("BODIES")) do requests[#requests + 1] = wrk.format(nil, nil, nil, line) end
end
request = function() next = next % #requests + 1; return requests[next] end
"""
CAVEATS = [
    "Load generator, service and Valkey share the machine's cores.",
    "Accepted means answered with 202 after the job was written to Redis; AOF is everysec, so a crash of the "
    "machine may lose the last second of either.",
    "Riacho checks each payload and counts each shop's jobs (its fairness); BullMQ does neither.",
    f"crowded: with {SLOW:,} connections that never finish a head, and {LISTENERS} that listen to events; p99 at "
    "the same load as without them.",
    "http_vs_fastify_bullmq is the median of the rounds' ratios.",
]


@dataclass
class Contestant:
    """A service under load."""

    name: str
    address: str
    process: int
    found: Rounds = field(default_factory=lambda: defaultdict(list))


def measure(
    *,
    rounds: Annotated[int, typer.Option(help="Rounds of which the median counts.", min=1)] = 9,
    seconds: Annotated[int, typer.Option(help="Length of a round; a stage takes 100,000 jobs.", min=1)] = 1,
) -> Report:
    """Jobs taken in over HTTP a second, and their latency at half of that; beside Fastify + BullMQ. Needs wrk."""
    wrk = shutil.which("wrk")
    if not wrk:
        raise Unavailable("the load comes from wrk, which is not installed (Debian: apt-get install wrk)")
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        url = stack.enter_context(EmbeddedServer(folder)).url
        riacho = stack.enter_context(_riacho(url, folder))
        fastify, versions = stack.enter_context(_fastify(url))
        load, server = Load(wrk, folder, seconds), Server(url)
        for contestant in (riacho, fastify):
            load.post(contestant, 1)  # warm
            contestant.found.clear()
        for _ in range(rounds):
            for contestant in (riacho, fastify):
                server.empty()
                load.post(contestant, seconds)
        accepted = statistics.median(riacho.found["accepted_per_second"])
        for _ in range(rounds):
            server.empty()
            load.pace(riacho, accepted / 2)
        crowded = Contestant("riacho", riacho.address, riacho.process)
        with _crowd(riacho.address):
            for _ in range(rounds):
                server.empty()
                load.post(crowded, seconds)
                server.empty()
                load.pace(crowded, accepted / 2)
    knobs: dict[str, float | str] = {"rounds": rounds, "seconds": seconds, "connections": CONNECTIONS, **versions}
    return Report.of("http", knobs, _rounds(riacho, fastify, crowded), CAVEATS)


def _rounds(riacho: Contestant, fastify: Contestant, crowded: Contestant) -> Rounds:
    taken, others = riacho.found["accepted_per_second"], fastify.found["accepted_per_second"]
    return {
        "accepted_per_second": taken,
        "fastify_bullmq_accepted_per_second": others,
        "http_vs_fastify_bullmq": [ours / theirs for ours, theirs in zip(taken, others, strict=True)],
        "accept_p50_ms_at_half_load": riacho.found["p50_ms"],
        "accept_p99_ms_at_half_load": riacho.found["p99_ms"],
        "generator_behind_p99_ms_at_half_load": riacho.found["generator_behind_p99_ms"],
        "crowded_accepted_per_second": crowded.found["accepted_per_second"],
        "crowded_accept_p99_ms": crowded.found["p99_ms"],
        "cpu_us_per_request": riacho.found["cpu"],
        "fastify_bullmq_cpu_us_per_request": fastify.found["cpu"],
    }


class Load:
    """Posts jobs."""

    def __init__(self, wrk: str, folder: Path, seconds: int) -> None:
        self._wrk = wrk
        self._seconds = seconds
        self._bodies = [_body(number) for number in range(BODIES)]
        self._file, self._script = folder / "bodies", folder / "post.lua"
        self._file.write_bytes(b"\n".join(self._bodies))
        self._script.write_text(LUA)

    def post(self, contestant: Contestant, seconds: int) -> None:
        """As many as are answered."""
        command = [self._wrk, "-t1", f"-c{CONNECTIONS}", f"-d{seconds}s", "-s", str(self._script)]
        before = cpu_of(contestant.process)
        ended = subprocess.run(  # noqa: S603 - as it was found
            [*command, contestant.address + PATH],
            env={**os.environ, "BODIES": str(self._file)},
            check=True,
            capture_output=True,
            text=True,
        )
        requests, took = _counted(ended.stdout)
        contestant.found["accepted_per_second"].append(requests / took)
        contestant.found["cpu"].append((cpu_of(contestant.process) - before) / requests * 1e6)

    def pace(self, contestant: Contestant, rate: float) -> None:
        """So many a second, whatever the answers do."""
        sending = Sending(Pace(rate, self._seconds * PACED, WARM_UP), self._requests(contestant))
        for figure, value in uvloop.run(sending.over(contestant)).figures().items():
            contestant.found[figure].append(value)

    def _requests(self, contestant: Contestant) -> list[bytes]:
        return [_request(contestant.address.removeprefix("http://"), body) for body in self._bodies]


class Sending:
    """What is due waits here for a connection that is free."""

    def __init__(self, pace: Pace, requests: list[bytes]) -> None:
        self._requests = requests
        self._offer = Offer(pace)
        self._due: deque[Due] = deque()
        self._free: list[Poster] = []
        self._left = pace.count

    async def over(self, contestant: Contestant) -> Offer:
        """Once all are answered. Raises Unavailable where one is refused, or not answered."""
        loop = asyncio.get_running_loop()
        self._end: asyncio.Future[None] = loop.create_future()
        host, _, port = contestant.address.removeprefix("http://").partition(":")
        connections = [
            (await loop.create_connection(lambda: Poster(self), host, int(port)))[0] for _ in range(CONNECTIONS)
        ]
        async for due in self._offer.due():
            if self._end.done():
                break
            self._due.append(due)
            self._send()
        try:
            await asyncio.wait_for(self._end, START)
        except TimeoutError:
            raise Unavailable(f"{self._left} jobs had no answer {START:g} s after the last was due") from None
        finally:
            for connection in connections:
                connection.abort()
        return self._offer

    def free(self, poster: "Poster", answered: Due | None) -> None:
        """A connection has nothing to do."""
        if answered:
            self._offer.answered(answered)
            self._left -= 1
        if not self._left and not self._end.done():
            self._end.set_result(None)
        self._free.append(poster)
        self._send()

    def lost(self, poster: "Poster") -> None:
        """A connection is gone."""
        if poster in self._free:
            self._free.remove(poster)
        else:
            self.fail("the service closed a connection in place of an answer")

    def fail(self, why: str) -> None:
        """`over` raises it: what a protocol raises is only logged."""
        if not self._end.done():
            self._end.set_exception(Unavailable(why))

    def _send(self) -> None:
        while self._due and self._free:
            due = self._due.popleft()
            self._free.pop().post(due, self._requests[due.number % len(self._requests)])


class Poster(asyncio.Protocol):
    """A connection with a request at a time."""

    def __init__(self, sending: Sending) -> None:
        self._sending = sending
        self._due: Due | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is none by inheritance
        self._sending.free(self, None)

    def post(self, due: Due, request: bytes) -> None:
        self._due = due
        self._transport.write(request)

    def data_received(self, data: bytes) -> None:
        if not data.startswith(b"HTTP/1.1 202 "):  # these answers are small: one comes whole
            self._sending.fail(f"a job was refused: {data[:300]!r}")
        self._sending.free(self, self._due)

    def connection_lost(self, _: Exception | None) -> None:
        self._sending.lost(self)


def _body(number: int) -> bytes:
    message = {"chat": f"55119{number:08}", "id": f"wamid.{number}", "sent_ms": 1_795_363_715_263}
    payload = {"message": message, "text": "Olá, quanto custa o bolo de cenoura?"}
    job = {"kind": "process-conversation", "tenant": f"shop-{number}", "key": f"chat-{number}", "payload": payload}
    return msgspec.json.encode(job)


def _request(host: str, body: bytes) -> bytes:
    head = f"POST {PATH} HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\nContent-Length: {len(body)}"
    return head.encode() + b"\r\n\r\n" + body


def _counted(said: str) -> tuple[int, float]:
    """Requests, and in how many seconds, by what wrk printed."""
    if "Non-2xx" in said or "Socket errors" in said:
        raise Unavailable(f"not every job was taken:\n{said}")
    found = re.search(r"(\d+) requests in ([\d.]+)s", said)
    if not found:
        raise Unavailable(f"wrk said something unexpected:\n{said}")
    return int(found[1]), float(found[2])


@contextmanager
def _riacho(url: str, folder: Path) -> Iterator[Contestant]:
    settings = of_a_run(folder, url)
    command = [sys.executable, "-P", "-m", "api", "api"]
    process = subprocess.Popen(command, env=child_environment(settings))  # noqa: S603 - our own
    try:
        address = f"http://{settings.http.host}:{settings.http.port}"
        _wait_for(address)
        yield Contestant("riacho", address, process.pid)
    finally:
        process.terminate()
        process.wait()


def _wait_for(address: str) -> None:
    end = time.monotonic() + START
    while True:
        try:
            urlopen(f"{address}/healthz").close()  # noqa: S310 - loopback
            return
        except OSError:
            if time.monotonic() > end:
                raise Unavailable(f"{address} did not answer within {START:g} s") from None
            time.sleep(0.05)


@contextmanager
def _crowd(address: str) -> Iterator[None]:
    host, port = address.removeprefix("http://").split(":")
    command = [sys.executable, "-P", "-m", "benchmarks.parts.crowd", host, port]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)  # noqa: S603 - our own
    try:
        if not process.stdout or not process.stdout.readline():
            raise Unavailable("the crowd did not come; is 'ulimit -n' under 2,000?")
        yield
    finally:
        process.kill()
        process.communicate()


@contextmanager
def _fastify(url: str) -> Iterator[tuple[Contestant, dict[str, str]]]:
    with Process(node_peer("fastify"), url) as process:
        versions = dict(process.versions)
        yield Contestant("fastify", f"http://127.0.0.1:{versions.pop('port')}", process.pid), versions
