"""What travels: jobs as producers ask for them, envelopes as they lie in a stream, ids, records."""

import re
import time
from collections.abc import Callable
from typing import Any, Generic, Literal, NamedTuple, Self, TypeVar

import msgspec

from pipeline.errors import BadJobId
from pipeline.retry import RetryPolicy

WIRE_VERSION = 1
# Of an envelope without work in it. A worker that knows no probes buries it unread. A field in its place it would
# overlook, and run its handler; and every waiting job would have to carry that.
PROBE_VERSION = 0

TRACEPARENT = re.compile(r"[0-9a-f]{2}-([0-9a-f]{32})-[0-9a-f]{16}-[0-9a-f]{2}.*", re.ASCII)
JOB_ID = re.compile(r"([^.]{1,200})\.(\d{1,5})\.(\d{1,20})-(\d{1,20})", re.ASCII)

State = Literal["delayed", "waiting", "active", "retrying", "completed", "failed", "cancelled"]


def now_ms() -> int:
    """Milliseconds since the Unix epoch."""
    return time.time_ns() // 1_000_000


class Job(msgspec.Struct, frozen=True, kw_only=True):
    """Work asked for.

    `key` orders and places: jobs of one key lie in one partition. `dedup` is an id under which the stage
    takes the job once (for the stage's dedup time); empty means no check. `retry` and `timeout` (seconds)
    stand in for the stage's own. `delay` (seconds) is how long the job waits before anybody may run it.
    """

    stage: str
    payload: Any
    tenant: str = ""
    key: str = ""
    dedup: str = ""
    delay: float = 0.0
    retry: RetryPolicy | None = None
    timeout: float | None = None


P = TypeVar("P")


class Envelope(msgspec.Struct, Generic[P], array_like=True, frozen=True, gc=False):
    """The wire message, a MessagePack array. New fields go to the end with a default; types never change."""

    version: int
    payload: P
    tenant: str
    key: str
    enqueued_ms: int
    trace: str = ""  # W3C traceparent of the span that sent it
    retry: RetryPolicy | None = None
    timeout: float | None = None


class JobId(NamedTuple):
    """Where a job lies; `transcribe.0.1795363715263-0` needs no index to be found."""

    stage: str
    partition: int
    entry: str

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read `<stage>.<partition>.<entry id>`. Raises BadJobId."""
        if (found := JOB_ID.fullmatch(text)) and max(int(found[3]), int(found[4])) < 2**64:
            return cls(found[1], int(found[2]), f"{found[3]}-{found[4]}")
        raise BadJobId(f"{text[:80]!r} is not a job id; one looks like 'transcribe.0.1795363715263-0'")

    def __str__(self) -> str:
        return f"{self.stage}.{self.partition}.{self.entry}"


class Delivery(msgspec.Struct, gc=False):
    """One entry handed to this worker.

    `attempt` counts deliveries, this one included. `origin` is the id of a job that got one before it was in the
    stream; `since` is the consumer it was taken from, `late_ms` after it was due. `trace` is the traceparent of
    the try, once it ran; `parked` says that it ended in another try later, `unwanted` that somebody cancelled it.
    `taken` is when this worker got it, `started` when it last ran it, on the monotonic clock; 0 where nobody noted
    that. `tenant` is whose it is while its handler runs, and None before and after.
    """

    stage: str
    partition: int
    entry: bytes
    body: bytes
    attempt: int
    origin: bytes = b""
    since: bytes = b""
    late_ms: int = 0
    trace: str = ""
    parked: bool = False
    unwanted: bool = False
    taken: float = 0.0
    started: float = 0.0
    tenant: str | None = None

    @property
    def id(self) -> JobId:
        return JobId(self.stage, self.partition, self.job.decode())

    def waited(self) -> float:
        """Seconds since its entry came into the stream or, where it was put back, since it was due again. By the
        server's clock and ours, which may differ."""
        if self.since:
            return self.late_ms / 1000 + (time.monotonic() - self.taken if self.taken else 0.0)
        return max(0, now_ms() - int(self.entry.partition(b"-")[0])) / 1000

    @property
    def job(self) -> bytes:
        """The job's id within its stage's partition."""
        return self.origin or self.entry


class Record(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What is remembered of a job outside its entry: its last failure, or how it ended. `started_ms` is when its
    last try began, `trace_id` the W3C trace it was part of; 0 and '' where that is not known."""

    state: State
    attempt: int
    at_ms: int
    result: Any = None
    reason: str = ""
    error: str = ""
    started_ms: int = 0
    trace_id: str = ""


class Refusal(NamedTuple):
    """Why a stage takes nothing in: it is full, draining, or the server's memory is.

    `depth` is its unfinished jobs; `wait` is when to try again, in seconds (0: that is not known).
    """

    reason: Literal["full", "draining", "memory"]
    depth: int
    wait: float


class Added(NamedTuple):
    """The answer to one job offered: an id, or why there is none."""

    id: JobId | None
    duplicate: bool = False
    refusal: Refusal | None = None


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Envelope[msgspec.Raw]).decode
_decode_fields = msgspec.msgpack.Decoder(list[msgspec.Raw]).decode
TRACE = Envelope.__struct_fields__.index("trace")
encode_record = msgspec.msgpack.Encoder().encode
decode_record = msgspec.msgpack.Decoder(Record).decode


def seal(job: Job, trace: str = "") -> bytes:
    """Put a job into its envelope."""
    return _encode(
        Envelope(WIRE_VERSION, job.payload, job.tenant, job.key, now_ms(), trace, job.retry, job.timeout)
    )


def retraced(body: bytes, trace: str) -> bytes:
    """An envelope as part of another trace, and else as it is, also where a later version wrote it."""
    fields = _decode_fields(body)
    fields[TRACE : TRACE + 1] = [msgspec.Raw(_encode(trace))]  # a slice: it may have been left out
    return _encode(fields)


class IsProbe(ValueError):
    """An envelope without work in it."""


def seal_probe() -> bytes:
    """The envelope of a job without work: every stage takes it, and none runs its handler for it."""
    return _encode(Envelope(PROBE_VERSION, None, "", "", now_ms()))


def trace_id_of(traceparent: str) -> str:
    """The trace of a W3C traceparent, 32 hexadecimal digits; empty where that is none."""
    found = TRACEPARENT.fullmatch(traceparent)
    return found[1] if found else ""


def unseal(body: bytes) -> Envelope[msgspec.Raw]:
    """Read an envelope, its payload left as it is. Raises ValueError saying what is wrong with the bytes."""
    try:
        envelope = _decode(body)
    except (ValueError, RecursionError) as error:  # bad UTF-8 in a string is no DecodeError
        raise ValueError(f"not an envelope: {error}") from None
    if envelope.version not in (WIRE_VERSION, PROBE_VERSION):
        raise ValueError(f"envelope version {envelope.version}; this worker reads version {WIRE_VERSION}")
    return envelope


def opener(payload: type[P]) -> Callable[[bytes], Envelope[P]]:
    """Makes a reader of envelopes with payloads of this type, in one go. It raises ValueError as `unseal` does,
    and IsProbe."""
    decode = msgspec.msgpack.Decoder(Envelope[payload]).decode  # type: ignore[valid-type]
    decode_payload = msgspec.msgpack.Decoder(payload).decode

    def read(body: bytes) -> Envelope[P]:
        try:
            envelope = decode(body)
        except (ValueError, RecursionError):
            decode_payload(_payload(body))  # says more exactly what is wrong
            raise
        if envelope.version != WIRE_VERSION:
            _payload(body)
        return envelope

    return read


def _payload(body: bytes) -> msgspec.Raw:
    """Raises IsProbe where there is none, and what `unseal` raises."""
    envelope = unseal(body)
    if envelope.version == PROBE_VERSION:
        raise IsProbe
    return envelope.payload
