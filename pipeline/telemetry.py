"""Spans of the engine, by the OTel API alone: without an SDK set up they cost next to nothing.

One chat message is one trace: `send` when a job is added, then a `process` span for every try of every stage,
its parent and link the span that handed the job on. Names follow the messaging conventions (semconv 1.44,
still in development), and are all here.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from opentelemetry import trace
from opentelemetry.trace import Link, Span, SpanKind, Status, StatusCode
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from pipeline.outcome import Bury, Ending, Retry, Settled, Throttled

if TYPE_CHECKING:
    from pipeline.message import Delivery, Envelope, Job
    from pipeline.stage import Stage

_tracer = trace.get_tracer("riacho")
_propagator = TraceContextTextMapPropagator()


def enabled() -> bool:
    """Whether anybody set up an SDK; asked before anything else here, as spans that go nowhere cost too."""
    return not isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider | trace.NoOpTracerProvider)


def send(stage: "Stage", job: "Job") -> Span:
    """A span for adding a job, to be ended when it is added."""
    attributes = {
        **_where(stage, "send"),
        "messaging.message.conversation_id": job.key,
    }
    return _tracer.start_span(f"send {stage.full_name}", kind=SpanKind.PRODUCER, attributes=attributes)


def traceparent(span: Span) -> str:
    """The W3C traceparent of a span; empty for one that is not recorded anywhere."""
    carrier: dict[str, str] = {}
    _propagator.inject(carrier, trace.set_span_in_context(span))
    return carrier.get("traceparent", "")


@contextmanager
def process(stage: "Stage", delivery: "Delivery", envelope: "Envelope[Any]") -> Iterator[Span]:
    """The span of one try; what the handler does is below it."""
    context = _propagator.extract({"traceparent": envelope.trace}) if envelope.trace else None
    creation = trace.get_current_span(context).get_span_context()
    with _tracer.start_as_current_span(
        f"process {stage.full_name}",
        context=context,
        kind=SpanKind.CONSUMER,
        links=[Link(creation)] if creation.is_valid else [],
        record_exception=False,
    ) as span:
        if span.is_recording():
            span.set_attributes(
                {
                    **_where(stage, "process"),
                    "messaging.destination.partition.id": str(delivery.partition),
                    "messaging.message.id": delivery.entry.decode(),
                    "messaging.message.conversation_id": envelope.key,
                    "riacho.attempt": delivery.attempt,
                }
            )
        yield span


@contextmanager
def process_batch(stage: "Stage", envelopes: "Sequence[Envelope[Any]]", *, enabled: bool) -> Iterator[None]:
    """The span of one try of a batch: no message's child, but linked to each."""
    if not enabled:
        yield
        return
    contexts = [_propagator.extract({"traceparent": envelope.trace}) for envelope in envelopes if envelope.trace]
    created = [trace.get_current_span(context).get_span_context() for context in contexts]
    with _tracer.start_as_current_span(
        f"process {stage.full_name}",
        kind=SpanKind.CONSUMER,
        links=[Link(creation) for creation in created if creation.is_valid],
        attributes={**_where(stage, "process"), "messaging.batch.message_count": len(envelopes)},
    ):
        yield


def ended(span: Span, ending: Ending) -> None:
    """Put the end of a try on its span."""
    match ending:
        case Retry(error=error) | Bury(reason=error):
            span.set_status(Status(StatusCode.ERROR, error))
        case Settled() | Throttled():
            pass


def _where(stage: "Stage", operation: str) -> dict[str, str]:
    return {
        "messaging.system": "redis_streams",
        "messaging.operation.name": operation,
        "messaging.operation.type": operation,
        "messaging.destination.name": stage.full_name,
        "messaging.consumer.group.name": "riacho",
    }
