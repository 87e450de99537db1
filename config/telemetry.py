"""The OTel SDK, set up from the standard OTEL_* variables; without an endpoint there is none."""

import atexit
import functools
import logging
import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from urllib.parse import urlsplit

from opentelemetry import metrics, trace
from opentelemetry.context import Context
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import (
    BatchSpanProcessor,
    ConsoleSpanExporter,
    SpanExporter,
    SpanExportResult,
)
from opentelemetry.sdk.trace.sampling import (
    ALWAYS_OFF,
    ALWAYS_ON,
    DEFAULT_OFF,
    DEFAULT_ON,
    ParentBasedTraceIdRatio,
    Sampler,
    SamplingResult,
    TraceIdRatioBased,
)
from opentelemetry.trace import Link, SpanKind, TraceState
from opentelemetry.util.types import Attributes

from config.otel import disabled, endpoint, protocol, resource, said
from config.settings import SettingsError

JAEGER = 16686  # the port of its page
SILENCE = 60.0  # seconds
LAST_WORDS = 2_000  # ms in which the last spans have to be out when a process ends
LOGGERS = (
    "opentelemetry.exporter.otlp.proto.http.trace_exporter",
    "opentelemetry.exporter.otlp.proto.grpc.exporter",
    "opentelemetry.sdk._shared_internal",
)
KEPT = "riacho.kept"  # pipeline.conventions has it, too: neither of the two knows the other
KINDS = ("otlp", "console", "none")
SAMPLERS: dict[str, Sampler] = {
    "always_on": ALWAYS_ON,
    "always_off": ALWAYS_OFF,
    "parentbased_always_on": DEFAULT_ON,
    "parentbased_always_off": DEFAULT_OFF,
}
RATIOS: dict[str, Callable[[float], Sampler]] = {
    "traceidratio": TraceIdRatioBased,
    "parentbased_traceidratio": ParentBasedTraceIdRatio,
}


def set_up(process: str) -> Callable[[], None]:
    """Export spans, over OTLP if an endpoint is configured. `process` is the kind: api, worker. Returns what sends
    the last ones, for a process that ends itself without ado; any other does so anyway.

    Raises SettingsError."""
    if _kind() == "none":
        return _nothing
    os.environ.setdefault("OTEL_PYTHON_SDK_INTERNAL_METRICS_ENABLED", "true")  # they count what is dropped
    try:
        processor = _export(process)
    except ValueError as error:
        raise SettingsError(f"a variable OTEL_… cannot be used: {error}") from None
    last_words = functools.partial(_say_last_words, processor)
    atexit.register(last_words)
    return last_words


def _nothing() -> None:
    """Nothing was exported."""


def _export(process: str) -> BatchSpanProcessor:
    exporter = _exporter()
    # Its own count of spans costs more than those that are not sampled.
    uncounted = metrics.NoOpMeterProvider()
    provider = TracerProvider(_sampler(), resource(process), shutdown_on_exit=False, meter_provider=uncounted)
    processor = BatchSpanProcessor(Counting(exporter))
    provider.add_span_processor(processor)
    for logger in LOGGERS:
        logging.getLogger(logger).addFilter(Seldom())
    trace.set_tracer_provider(provider)
    return processor


def trace_url() -> str:
    """Where Jaeger shows a trace, `{traceId}` in place of its id, if spans go to a Jaeger; empty where they go
    nowhere."""
    try:
        host = urlsplit(endpoint("TRACES")).hostname
    except ValueError:
        return ""
    host = f"[{host}]" if host and ":" in host else host
    return f"http://{host}:{JAEGER}/trace/{{traceId}}" if host and _kind() == "otlp" else ""


def _kind() -> str:
    kind = said("OTEL_TRACES_EXPORTER") or "otlp"
    if kind not in KINDS:
        raise SettingsError(f"OTEL_TRACES_EXPORTER = {kind!r}: expected one of {', '.join(KINDS)}")
    return "none" if disabled() or (kind == "otlp" and not endpoint("TRACES")) else kind


def _exporter() -> SpanExporter:
    """Those of OTLP are imported only when asked for: each brings a client that other processes do without."""
    how = protocol("TRACES")
    match _kind(), how:
        case "console", _:
            return ConsoleSpanExporter()
        case _, "http/protobuf":
            from opentelemetry.exporter.otlp.proto.http import trace_exporter as over_http  # noqa: PLC0415

            if not endpoint("TRACES").startswith(("http://", "https://")):
                remedy = "expected an address with http:// or https://, as http://127.0.0.1:4318"
                raise SettingsError(f"OTEL_EXPORTER_OTLP_ENDPOINT = {endpoint('TRACES')!r}: {remedy}")
            return over_http.OTLPSpanExporter()
        case _, "grpc":
            from opentelemetry.exporter.otlp.proto.grpc import trace_exporter as over_grpc  # noqa: PLC0415

            return over_grpc.OTLPSpanExporter()
    raise SettingsError(f"OTEL_EXPORTER_OTLP_PROTOCOL = {how!r}: expected http/protobuf or grpc")


class Counting(SpanExporter):
    """Exports as another does, and counts what it could not: by the SDK's own count, spans that a collector
    refuses were exported."""

    def __init__(self, other: SpanExporter) -> None:
        self._other = other
        self._refused = metrics.get_meter("riacho").create_counter(
            "riacho.spans.refused", unit="{span}", description="Spans that their collector did not take."
        )

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        result = SpanExportResult.FAILURE
        try:
            result = self._other.export(spans)
        finally:
            if result is not SpanExportResult.SUCCESS:
                self._refused.add(len(spans))
        return result

    def shutdown(self) -> None:
        self._other.shutdown()

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        return self._other.force_flush(timeout_millis)


class Seldom(logging.Filter):
    """A line a minute: an exporter tells of each batch that its collector does not take, and of each try."""

    def __init__(self) -> None:
        super().__init__()
        self._next = 0.0

    def filter(self, record: logging.LogRecord) -> bool:
        if "metrics" in (record.args or ()):  # one exporter tells of both; config.metrics sees to these
            return True
        if record.created < self._next:
            return False
        self._next = record.created + SILENCE
        return True


class Keeping(Sampler):
    """Samples as another does, and what it is told to keep: a try that failed, of a trace that was not sampled."""

    def __init__(self, other: Sampler) -> None:
        self._other = other

    def should_sample(
        self,
        parent_context: Context | None,
        trace_id: int,
        name: str,
        kind: SpanKind | None = None,
        attributes: Attributes = None,
        links: Sequence[Link] | None = None,
        trace_state: TraceState | None = None,
    ) -> SamplingResult:
        keeps = attributes is not None and KEPT in attributes
        other = ALWAYS_ON if keeps else self._other
        return other.should_sample(parent_context, trace_id, name, kind, attributes, links, trace_state)

    def get_description(self) -> str:
        return f"Keeping{{{self._other.get_description()}}}"


def _sampler() -> Sampler:
    """What OTEL_TRACES_SAMPLER says. Raises SettingsError where the SDK would sample everything instead."""
    name = said("OTEL_TRACES_SAMPLER").lower() or "parentbased_always_on"
    if name in ("always_off", "parentbased_always_off"):  # then nobody asks for any
        return SAMPLERS[name]
    if name in SAMPLERS:
        return Keeping(SAMPLERS[name])
    if name in RATIOS:
        return Keeping(RATIOS[name](_ratio()))
    known = ", ".join([*SAMPLERS, *RATIOS])
    raise SettingsError(f"OTEL_TRACES_SAMPLER = {name!r}: expected one of {known}")


def _ratio() -> float:
    share = said("OTEL_TRACES_SAMPLER_ARG") or "1"
    with suppress(ValueError):
        if 0 <= float(share) <= 1:
            return float(share)
    raise SettingsError(
        f"OTEL_TRACES_SAMPLER_ARG = {share!r}: expected a share from 0 to 1, 0.01 for one of a hundred"
    )


def _say_last_words(processor: BatchSpanProcessor) -> None:
    """A process that ends waits for no collector."""
    processor._batch_processor.shutdown(LAST_WORDS)
