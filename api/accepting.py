"""The short way in for the request that comes most: one job for a queue.

A request takes it when it arrives whole, alone and plain, and there is nothing to say but that its job was taken,
or why not just now. Any other is left, byte for byte, to aiohttp: so one place answers what is wrong with a
request, and one knows the rest of HTTP. What is saved is most of what a request costs (see the benchmark `http`).
"""

import asyncio
import hashlib
import time
from collections.abc import Callable, Iterable
from http import HTTPStatus
from typing import Annotated, Any, Union

import httptools
import msgspec
from aiohttp import web
from aiohttp.helpers import rfc822_formatted_time
from opentelemetry.trace import Span

from api import tracing
from api.access import Access, Asking
from api.headers import safe_headers
from api.kinds import job_type
from api.limits import place_of
from api.problems import Problem, problem_of, problem_of_refusal, unexpected
from api.queues import Accepted
from api.timing import HttpFigures
from pipeline import Broker, Pipeline, RiachoError, Stage, telemetry
from pipeline.message import Added, Job
from stages.service import LONGEST_NAME

LONGEST_HEAD = 8_000  # bytes; what has more is not the request that comes most
MOST_HEADERS = 32
MOST_DIGITS = 15  # of a length; Python reads no number of thousands
MOST_PASSES = 4_096
# Headers that change what a request means, or how it is to be answered.
UNUSUAL = {b"transfer-encoding", b"content-encoding", b"expect", b"upgrade", b"idempotency-key", b"traceparent"}
SECRET = {b"authorization", b"cookie", b"proxy-authorization"}
ROUTE = "/queue/{queue}/jobs"
NUL = rb"\u0000"  # no name may have one; where else one is, is not asked here
SAFE_LINES = {
    scheme: "".join(f"{name}: {value}\r\n" for name, value in safe_headers(scheme).items()).encode()
    for scheme in ("http", "https")
}
ACCEPTED = {
    scheme: b"HTTP/1.1 202 Accepted\r\nContent-Type: application/json\r\n" + lines
    for scheme, lines in SAFE_LINES.items()
}

Short = Annotated[str, msgspec.Meta(max_length=LONGEST_NAME)]
_encode = msgspec.json.Encoder().encode


class Head:
    """One request, read by the parser that aiohttp has, too: both see it end at the same byte."""

    def __init__(self) -> None:
        self._parser = httptools.HttpRequestParser(self)
        self.forget()

    def forget(self) -> None:
        """Keep nothing of a request while its connection rests."""
        self.path, self.length, self._complete = b"", -1, 0
        self.headers: list[tuple[bytes, bytes]] = []
        self.named: dict[bytes, bytes] = {}

    def read(self, data: bytes, end: int) -> bool:
        """Whether this is a whole request, whose head ends at `end`, with nothing after it."""
        self.forget()
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade):
            return False
        self.named = dict(self.headers)
        length = self.named.get(b"content-length", b"0")
        if length.isdigit() and len(length) <= MOST_DIGITS:
            self.length = int(length)
        return self._complete == 1 and len(data) == end + self.length

    @property
    def plain(self) -> bool:
        """Whether it is a POST with nothing about it to think of."""
        parser, named = self._parser, self.named
        return (
            parser.get_method() == b"POST"
            and parser.get_http_version() == "1.1"
            and parser.should_keep_alive()
            and len(self.headers) == len(named) <= MOST_HEADERS
            and UNUSUAL.isdisjoint(named)
        )

    def on_url(self, part: bytes) -> None:
        self.path += part

    def on_header(self, name: bytes, value: bytes) -> None:
        self.headers.append((name.lower(), value))

    def on_message_complete(self) -> None:
        self._complete += 1


class Pass(msgspec.Struct, frozen=True):
    """A head that may take the short way: what follows it is `length` bytes, a job that `read` reads. `caller` is
    the name of a key; empty where there are none. `secret`: something in the head is not to be kept."""

    read: Callable[[bytes], Job | None]
    caller: str
    length: int
    secret: bool


class Accepting:
    """Takes jobs for some queues: those to which every key with the scope `enqueue` may add whatever there is."""

    def __init__(
        self,
        broker: Broker,
        access: Access,
        queues: Iterable[str],
        payload_limit: int,
        figures: HttpFigures | None = None,
    ) -> None:
        self._broker = broker
        self.figures = figures
        self._access = access
        self._payload_limit = payload_limit
        self._readers = {f"/queue/{queue}/jobs".encode(): reader(broker.pipeline, queue) for queue in queues}
        # By their hash, as there are keys in them: a client sends the same one again and again.
        self._passes: dict[bytes, Pass] = {}
        self._traced = telemetry.enabled()

    def known(self, head: bytes) -> Pass | None:
        """The pass that such a head got before."""
        return self._passes.get(_hashed(head))

    def admit(self, head: Head, written: bytes, remote: str, scheme: str) -> Pass | None:
        """A pass for a head that was read, as it was `written`; None where the ordinary way has to see to it."""
        read = self._readers.get(head.path)
        if read is None or not head.plain or head.length > self._payload_limit:
            return None
        try:
            caller = self._access.admit(_asking(head.named, remote, scheme), "enqueue")
        except Problem:  # which is found again there, and answered
            return None
        if len(self._passes) >= MOST_PASSES:
            self._passes.clear()
        name = caller if self._access.by_keys else ""
        found = self._passes[_hashed(written)] = Pass(read, name, head.length, not SECRET.isdisjoint(head.named))
        return found

    def take(self, passed: Pass, body: bytes, place: str, caller: "Lane") -> Job | None:
        """The job, which the caller is to hear of; None where the ordinary way has to see to the request."""
        if not self._broker.takes_at_once:
            return None
        try:
            job = passed.read(body)
            if job:
                if self._access.limited:
                    self._access.count(passed.caller or place)
                self._submit(job, caller)
            return job
        except (Problem, RiachoError, ValueError, RecursionError, OverflowError):  # found again there
            return None

    def _submit(self, job: Job, caller: "Lane") -> None:
        if not self._traced:
            self._broker.submit(job, caller)
            return
        caller.span = tracing.begin(ROUTE)
        with telemetry.Below(caller.span):
            self._broker.submit(job, caller)

    def response(self, job: Job, added: Added, scheme: str) -> bytes:
        if added.refusal:
            return response_of(problem_of_refusal(self._broker.pipeline.stage(job.stage), added.refusal), scheme)
        return _response(ACCEPTED[scheme], _encode(Accepted(str(added.id), added.duplicate)))


ACCEPTING = web.AppKey("accepting", Accepting)


class Lane:
    """The short way of one connection, for one request at a time. `write` sends a response."""

    def __init__(self, accepting: Accepting, remote: str, scheme: str, write: Callable[[bytes], None]) -> None:
        self._accepting = accepting
        self._remote, self._scheme, self._place = remote, scheme, place_of(remote)
        self._write = write
        self._head = Head()
        self._passed: Pass | None = None
        self._usual = b""  # the head that was read last, where there is no secret in it
        self.answering: Job | None = None
        self.span: Span | None = None  # of the request that is answered, where there is one
        self._answered: asyncio.Future[None] | None = None  # for who waits for it
        self._began = 0.0

    def read(self, data: bytes) -> bytes | None:
        """The body, where these bytes are one whole request. To be asked of all that come in: else nobody knows
        where the next request begins."""
        if self._usual and data.startswith(self._usual):
            end = len(self._usual)
        else:
            end = data.find(b"\r\n\r\n", 0, LONGEST_HEAD) + 4
            if end < 4:
                return None
            self._passed, self._usual = self._accepting.known(data[:end]), b""
        if not (self._passed and self._passed.length == len(data) - end):
            if not self._head.read(data, end):
                return None
            self._passed = self._accepting.admit(self._head, data[:end], self._remote, self._scheme)
            self._head.forget()
        if self._passed and not (self._usual or self._passed.secret):
            self._usual = data[:end]
        return data[end:]

    def take(self, body: bytes) -> bool:
        """Answer the request that was read, when Redis has; False where it is not for here."""
        if self._passed:
            if self._accepting.figures:
                self._began = time.monotonic()
            self.answering = self._accepting.take(self._passed, body, self._place, self)
        return self.answering is not None

    def leave(self) -> None:
        """Nobody waits any more: what is not on its way yet is not added."""
        if self.span:
            self.span.end()
        self.answering = self.span = None
        if self._answered:
            self._answered.set_result(None)
            self._answered = None

    async def rest(self, timeout: float | None) -> None:
        """Wait for the answer that is due."""
        if self.answering:
            answered = self._answered = asyncio.get_running_loop().create_future()
            await asyncio.wait([answered], timeout=timeout)

    # What an intake wants of a caller; a future for each request would take as long as reading it.

    def done(self) -> bool:
        return self.answering is None

    def set_result(self, answers: list[Added]) -> None:
        job = self.answering
        assert job, "a caller that is done gets no answer"  # noqa: S101
        self._answer(self._accepting.response(job, answers[0], self._scheme))

    def set_exception(self, error: Exception) -> None:
        self._answer(response_of(_problem(error), self._scheme))

    def _answer(self, response: bytes) -> None:
        if self.span or self._accepting.figures:
            self._tell(int(response[9:12]))
        self.leave()
        self._write(response)

    def _tell(self, status: int) -> None:
        if self.span:
            tracing.end(self.span, status)
            self.span = None
        if figures := self._accepting.figures:
            figures.took("POST", ROUTE, status, self._began)


def response_of(problem: Problem, scheme: str) -> bytes:
    """A problem as it goes over the wire."""
    lines = "".join(f"{name}: {value}\r\n" for name, value in problem.all_headers.items())
    status = f"HTTP/1.1 {problem.status} {HTTPStatus(problem.status).phrase}\r\n"
    return _response((status + lines).encode() + SAFE_LINES[scheme], problem.body)


class Quick(msgspec.Struct):
    """A JobRequest that is not searched for NULs, which takes longer than to read it; see NUL."""

    tenant: Short = ""
    key: Short = ""
    id: Short = ""
    delay: float = 0.0


class NoKind(msgspec.Struct, tag_field="kind", tag="."):
    """What no stage is called. Beside it msgspec asks for the kind of a queue's only stage, too."""


def reader(pipeline: Pipeline, queue: str) -> Callable[[bytes], Job | None]:
    """Reads a job for a queue as it is asked for with a JobRequest, its payload in the same go. What it returns
    None for, or raises ValueError or RiachoError, is not all in order."""
    stages: dict[type[Any], Stage] = {job_type(Quick, stage): stage for stage in pipeline.queue(queue)}
    decode = msgspec.json.Decoder(Union[NoKind, *stages]).decode

    def read(body: bytes) -> Job | None:
        asked = decode(body)
        stage = stages.get(type(asked))
        if stage is None or body.find(NUL) >= 0:  # `in` would try first whether NUL is a number
            return None
        return Job(
            stage=stage.name,
            payload=stage.check(asked.tenant, asked.payload) if stage.check else asked.payload,
            tenant=asked.tenant,
            key=asked.key,
            dedup=asked.id,
            delay=asked.delay,
        )

    return read


def _hashed(head: bytes) -> bytes:
    return hashlib.sha256(head).digest()


def _problem(error: BaseException) -> Problem:
    return problem_of(error) if isinstance(error, RiachoError) else unexpected(error)


def _asking(headers: dict[bytes, bytes], remote: str, scheme: str) -> Asking:
    def text(name: bytes) -> str | None:
        value = headers.get(name)
        return None if value is None else value.decode(errors="surrogateescape")

    key = text(b"authorization")
    return Asking(remote, scheme, text(b"host") or "", text(b"origin"), [] if key is None else [key])


def _response(head: bytes, body: bytes) -> bytes:
    date = rfc822_formatted_time().encode()
    return b"%bContent-Length: %d\r\nDate: %b\r\n\r\n%b" % (head, len(body), date, body)
