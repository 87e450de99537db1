"""Spans of the engine, by the OTel API alone: without an SDK set up they cost next to nothing.

One chat message is one trace: `send` when a job is added, then a `process` span for every try of every stage,
its parent and link the span that handed the job on. A batch has a span of its own beside, linked both ways with
those of its messages. What is not sampled has no span, but for tries that failed or took long, which get one when
they end.
"""

import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from opentelemetry import context, trace
from opentelemetry.context import Context
from opentelemetry.trace import Link, NonRecordingSpan, Span, SpanContext, SpanKind, Status, StatusCode, TraceFlags

from pipeline import conventions as names
from pipeline.keys import GROUP
from pipeline.masking import masked
from pipeline.message import TRACEPARENT
from pipeline.outcome import Bury, Ending, Retry, Settled, Throttled

if TYPE_CHECKING:
    from pipeline.intake import Caller
    from pipeline.message import Added, Delivery, Envelope
    from pipeline.stage import Stage

SLOW = 10.0  # seconds; a try that takes longer is worth a look, whatever was sampled
LONGEST_KIND = 80  # characters of an exception's name
BILLION = 1_000_000_000
NOT_SAMPLED = "-00"  # at the end of a traceparent

_tracer = trace.get_tracer("riacho")


def enabled() -> bool:
    """Whether anybody set up an SDK; asked before anything else here, as spans that go nowhere cost too."""
    return not isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider | trace.NoOpTracerProvider)


def start(name: str, kind: SpanKind, attributes: dict[str, Any], *, parent: str | None = None) -> Span:
    """A span below the current one, or below that of a traceparent; below none where that is empty."""
    above = None if parent is None else trace.set_span_in_context(continued(parent), Context())
    return _tracer.start_span(name, context=above, kind=kind, attributes=attributes)


def send(stage: "Stage", key: str, replayed: str = "") -> Span:
    """A span for adding a job with this key, to be ended when it is added; in a trace that is not sampled, the one
    it is added in. That of a dead letter is linked to the trace that it was buried in, `replayed`."""
    above = trace.get_current_span()
    of = above.get_span_context()
    if of.is_valid and not of.trace_flags.sampled:
        return above  # to hear the same from the SDK takes 7 µs, and adding a job 25
    return _tracer.start_span(
        f"send {stage.full_name}",
        kind=SpanKind.PRODUCER,
        attributes=_where(stage, "send") | {names.CONVERSATION: _shown(key)},
        links=_links(_context(replayed)),
    )


@contextmanager
def sends(stages: "Sequence[Stage]", keys: Sequence[str]) -> Iterator[list[Span]]:
    """A `send` for each of several jobs, to be ended with `sent`."""
    spans = [send(stage, key) for stage, key in zip(stages, keys, strict=True)]
    try:
        yield spans
    except BaseException as error:
        for span in spans:
            fail(span, type(error).__name__)
            span.end()
        raise


class Sending:
    """A caller of an intake, and the span of what it sends. Of a caller who is gone it ends unanswered."""

    def __init__(self, span: Span, caller: "Caller") -> None:
        self._span, self._caller = span, caller

    def done(self) -> bool:
        done = self._caller.done()
        if done and self._span.is_recording():
            self._span.end()
        return done

    def set_result(self, answers: "list[Added]") -> None:
        sent(self._span, answers[0])
        self._caller.set_result(answers)

    def set_exception(self, error: Exception) -> None:
        fail(self._span, type(error).__name__)
        self._span.end()
        self._caller.set_exception(error)


def sent(span: Span, added: "Added") -> None:
    """Put the answer to a `send` on its span, and end it."""
    if not span.is_recording():
        return
    if added.id:
        span.set_attributes({names.MESSAGE: added.id.entry, names.PARTITION: str(added.id.partition)})
    elif added.refusal:
        fail(span, added.refusal.reason)
    span.end()


def traceparent(span: Span) -> str:
    """The W3C traceparent of a span; empty for one that belongs to no trace."""
    of = span.get_span_context()
    return f"00-{of.trace_id:032x}-{of.span_id:016x}-{of.trace_flags & 1:02x}" if of.is_valid else ""


class Below:
    """What is traced meanwhile is below this span. Takes a third of the time that the API's `use_span` does, as it
    leaves the span alone."""

    __slots__ = ("_before", "_span")

    def __init__(self, span: Span) -> None:
        self._span = span

    def __enter__(self) -> None:
        self._before = context.attach(trace.set_span_in_context(self._span))

    def __exit__(self, *_: object) -> None:
        context.detach(self._before)


def continued(traceparent: str) -> Span:
    """Stands for the span of a traceparent, which is another process's; for none where it is empty."""
    return NonRecordingSpan(_context(traceparent))


class Try:
    """One try of a job, and its span if its trace is sampled. What the try hands on is below it."""

    def __init__(
        self, stage: "Stage", delivery: "Delivery", envelope: "Envelope[Any]", batch: Span | None = None
    ) -> None:
        self._stage, self._delivery, self._envelope, self._batch = stage, delivery, envelope, batch
        self._started, self._waited = time.time_ns(), delivery.waited()
        sampled = not envelope.trace.endswith(NOT_SAMPLED)
        self.span = self._span() if sampled else continued(envelope.trace)
        delivery.trace = traceparent(self.span)

    def end(self, ending: Ending) -> None:
        """Put how it ended on its span. One that is not sampled gets a span after all where it is worth that."""
        if not self.span.is_recording() and (why := self._worth_keeping(ending)):
            self.span = self._span({names.KEPT: why})
        if self.span.is_recording():
            _say_end(self.span, ending)
            self.span.end()

    def leave(self) -> None:
        """It was cancelled, as its worker stops: another one will run it."""
        self.span.end()

    def _worth_keeping(self, ending: Ending) -> str:
        if isinstance(ending, Bury) or (isinstance(ending, Retry) and ending.counts):
            return "failed"
        return "slow" if time.time_ns() - self._started > SLOW * BILLION else ""

    def _span(self, more: dict[str, str] | None = None) -> Span:
        creation, delivery = _context(self._envelope.trace), self._delivery
        span = _tracer.start_span(
            f"process {self._stage.full_name}",
            context=trace.set_span_in_context(NonRecordingSpan(creation), Context()),
            kind=SpanKind.CONSUMER,
            links=_links(creation, self._batch.get_span_context() if self._batch else None),
            # Also what the sampler goes by.
            attributes=_processing(self._stage) | {names.ATTEMPT: delivery.attempt} | (more or {}),
            start_time=self._started,
        )
        if span.is_recording():
            span.set_attributes(
                {
                    names.PARTITION: str(delivery.partition),
                    names.MESSAGE: delivery.entry.decode(),
                    names.CONVERSATION: _shown(self._envelope.key),
                    names.WAITED: self._waited,
                }
            )
            span.add_event(names.WAITED, {names.WAITED: self._waited}, timestamp=self._started)
        return span


@contextmanager
def batch(stage: "Stage", jobs: "Sequence[tuple[Delivery, Envelope[Any]]]") -> Iterator[list[Try]]:
    """One call for several jobs: a try of each, and where any is sampled a span of the call, no job's child, which
    they and it are linked by."""
    with ExitStack() as stack:
        sampled = _links(*(_context(job.trace) for _, job in jobs if not job.trace.endswith(NOT_SAMPLED)))
        span = stack.enter_context(_batch(stage, len(jobs), sampled)) if sampled else None
        tries = [Try(stage, *job, span) for job in jobs]
        try:
            yield tries
        except BaseException:
            for tried in tries:
                tried.leave()
            raise


def _batch(stage: "Stage", count: int, links: list[Link]) -> AbstractContextManager[Span]:
    return _tracer.start_as_current_span(
        f"process {stage.full_name} (batch)",
        context=Context(),
        kind=SpanKind.CONSUMER,
        links=links,
        attributes=_processing(stage) | {names.BATCH: count, names.KEPT: "batch"},
        record_exception=False,
        set_status_on_exception=False,
    )


def fail(span: Span, kind: str, about: str | None = None) -> None:
    """Mark a span as that of something that went wrong."""
    span.set_attribute(names.ERROR, kind)
    span.set_status(Status(StatusCode.ERROR, about and masked(about)))


def _say_end(span: Span, ending: Ending) -> None:
    match ending:
        case Retry(after=after, error=error, counts=True):
            span.set_attributes({names.OUTCOME: "retrying", names.RETRY_AFTER: after})
            fail(span, _kind_of(error), error)
        case Retry(after=after, error=error):  # it asked for another time, as others are before it, say
            span.set_attributes({names.OUTCOME: "deferred", names.RETRY_AFTER: after, names.REASON: masked(error)})
        case Bury(reason=reason, error=error):
            span.set_attribute(names.OUTCOME, "dead")
            fail(span, _kind_of(error), ": ".join(filter(None, (reason, error))))
        case Throttled(after=after):
            span.set_attributes({names.OUTCOME: "throttled", names.RETRY_AFTER: after})
        case Settled(cancelled=cancelled):
            span.set_attribute(names.OUTCOME, "cancelled" if cancelled else "completed")


@lru_cache(1024)  # a conversation has many messages
def _shown(key: str) -> str:
    """An ordering key without what it tells of whose it is: most are a customer's number."""
    return masked(key)


def _kind_of(error: str) -> str:
    """The exception's name, which an error begins with where it was one that the handler did not see to."""
    kind = error.partition(":")[0]
    return kind if kind.isidentifier() and len(kind) <= LONGEST_KIND and masked(kind) == kind else "failed"


def _context(traceparent: str) -> SpanContext:
    """What a traceparent says; an invalid context where it is none."""
    if not TRACEPARENT.fullmatch(traceparent):
        return trace.INVALID_SPAN_CONTEXT
    _, trace_id, span_id, flags = traceparent.split("-")[:4]
    return SpanContext(int(trace_id, 16), int(span_id, 16), True, TraceFlags(int(flags[:2], 16)))


def _links(*contexts: SpanContext | None) -> list[Link]:
    return [Link(context) for context in contexts if context and context.is_valid]


def _processing(stage: "Stage") -> dict[str, Any]:
    return _where(stage, "process") | {names.GROUP: GROUP.decode()}


def _where(stage: "Stage", operation: str) -> dict[str, Any]:
    return names.messaging(operation, stage.full_name) | {names.OPERATION_TYPE: operation}
