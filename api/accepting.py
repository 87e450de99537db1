"""The short way in for the request that comes most: one job for a queue.

A request takes it when it arrives whole, alone and plain, and there is nothing to say but that its job was taken,
or why not just now. Any other is left, byte for byte, to aiohttp: so one place answers what is wrong with a
request, and one knows the rest of HTTP. What is saved is most of what a request costs (benchmarks/http.py).
"""

import hashlib
from collections.abc import Callable, Iterable
from http import HTTPStatus
from typing import NamedTuple

import httptools
import msgspec
from aiohttp import web
from aiohttp.helpers import rfc822_formatted_time

from api.access import Access, Asking
from api.headers import safe_headers
from api.limits import place_of
from api.problems import Problem, problem_of, problem_of_refusal, unexpected
from api.queues import Accepted, JobRequest, job_of
from pipeline import Broker, RiachoError
from pipeline.intake import Answers
from pipeline.message import Added, Job

LONGEST_HEAD = 8_000  # bytes; what has more is not the request that comes most
MOST_HEADERS = 32
MOST_PASSES = 4_096
# Headers that change what a request means, or how it is to be answered.
UNUSUAL = {b"transfer-encoding", b"content-encoding", b"expect", b"upgrade", b"idempotency-key"}
SAFE_LINES = {
    scheme: "".join(f"{name}: {value}\r\n" for name, value in safe_headers(scheme).items())
    for scheme in ("http", "https")
}
ACCEPTED = {
    scheme: f"HTTP/1.1 202 Accepted\r\nContent-Type: application/json\r\n{lines}"
    for scheme, lines in SAFE_LINES.items()
}

_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(JobRequest).decode


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
        if length.isdigit():
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


class Pass(NamedTuple):
    """A head that may take the short way: what follows it is `length` bytes, a job for `queue`. `caller` is the
    name of a key; empty where there are none."""

    queue: str
    caller: str
    length: int


class Accepting:
    """Takes jobs for some queues: those to which every key with the scope `enqueue` may add whatever there is."""

    def __init__(self, broker: Broker, access: Access, queues: Iterable[str], payload_limit: int) -> None:
        self._broker = broker
        self._access = access
        self._payload_limit = payload_limit
        self._queues = {f"/queue/{queue}/jobs".encode(): queue for queue in queues}
        # By their hash, as there are keys in them: a client sends the same one again and again.
        self._passes: dict[bytes, Pass] = {}

    def known(self, head: bytes) -> Pass | None:
        """The pass that such a head got before."""
        return self._passes.get(_hashed(head))

    def admit(self, head: Head, written: bytes, remote: str, scheme: str) -> Pass | None:
        """A pass for a head that was read, as it was `written`; None where the ordinary way has to see to it."""
        queue = self._queues.get(head.path)
        if queue is None or not head.plain or head.length > self._payload_limit:
            return None
        try:
            caller = self._access.admit(_asking(head.named, remote, scheme), "enqueue")
        except Problem:  # which is found again there, and answered
            return None
        if len(self._passes) >= MOST_PASSES:
            self._passes.clear()
        found = self._passes[_hashed(written)] = Pass(queue, caller if self._access.by_keys else "", head.length)
        return found

    def take(self, passed: Pass, body: bytes, place: str) -> tuple[Job, Answers] | None:
        """A job and its answer to be; None where the ordinary way has to see to the request."""
        if not self._broker.takes_at_once:
            return None
        try:
            job = job_of(self._broker.pipeline, passed.queue, _decode(body))
            self._access.count(passed.caller or place)
            return job, self._broker.submit(job)
        except (Problem, RiachoError, ValueError, RecursionError):  # found again there, and answered
            return None

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
        self._body = b""
        self.answering: Answers | None = None

    def read(self, data: bytes) -> bool:
        """Whether these bytes are one whole request. To be asked of all that come in: else nobody knows where the
        next request begins."""
        end = data.find(b"\r\n\r\n", 0, LONGEST_HEAD) + 4
        if end < 4:
            return False
        head, self._body = data[:end], data[end:]
        self._passed = self._accepting.known(head)
        if self._passed and self._passed.length == len(self._body):
            return True
        if not self._head.read(data, end):
            return False
        self._passed = self._accepting.admit(self._head, head, self._remote, self._scheme)
        self._head.forget()
        return True

    def take(self) -> bool:
        """Answer the request that was read, when Redis has; False where it is not for here."""
        taken = self._passed and self._accepting.take(self._passed, self._body, self._place)
        if not taken:
            return False
        job, self.answering = taken
        self.answering.add_done_callback(lambda answer: self._answer(job, answer))
        return True

    def forget(self) -> None:
        """Done with the request that was read: its body may be large."""
        self._body = b""

    def leave(self) -> None:
        """Nobody waits any more: what is not on its way yet is not added."""
        if self.answering:
            self.answering.cancel()

    def _answer(self, job: Job, answer: Answers) -> None:
        self.answering = None
        if answer.cancelled():
            return
        scheme, error = self._scheme, answer.exception()
        if error:
            self._write(response_of(_problem(error), scheme))
        else:
            self._write(self._accepting.response(job, answer.result()[0], scheme))


def response_of(problem: Problem, scheme: str) -> bytes:
    """A problem as it goes over the wire."""
    lines = "".join(f"{name}: {value}\r\n" for name, value in problem.all_headers.items())
    status = f"HTTP/1.1 {problem.status} {HTTPStatus(problem.status).phrase}\r\n"
    return _response(status + lines + SAFE_LINES[scheme], problem.body)


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


def _response(head: str, body: bytes) -> bytes:
    return f"{head}Content-Length: {len(body)}\r\nDate: {rfc822_formatted_time()}\r\n\r\n".encode() + body
