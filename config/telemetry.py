"""The OTel SDK, set up from the standard OTEL_* variables; without an endpoint there is none."""

import atexit
import os
import uuid
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, ConsoleSpanExporter, SpanExporter
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

from config.settings import SettingsError

ENDPOINTS = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
PROTOCOLS = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
LAST_WORDS = 2_000  # ms in which the last spans have to be out when a process ends
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


def set_up(process: str) -> None:
    """Export spans, over OTLP if an endpoint is configured. `process` is the kind: api, worker.

    Raises SettingsError."""
    exporter = _exporter(os.environ)
    if exporter is None:
        return
    name = os.environ.get("OTEL_SERVICE_NAME") or f"riacho-{process}"
    resource = Resource.create({"service.name": name, "service.instance.id": str(uuid.uuid4())})
    provider = TracerProvider(_sampler(os.environ), resource, shutdown_on_exit=False)
    processor = BatchSpanProcessor(exporter)
    provider.add_span_processor(processor)
    atexit.register(_say_last_words, processor)
    trace.set_tracer_provider(provider)


def _exporter(environ: Mapping[str, str]) -> SpanExporter | None:
    kind = environ.get("OTEL_TRACES_EXPORTER", "").strip() or "otlp"
    if kind not in KINDS:
        raise SettingsError(f"OTEL_TRACES_EXPORTER = {kind!r}: expected one of {', '.join(KINDS)}")
    if kind == "none" or environ.get("OTEL_SDK_DISABLED", "").lower() == "true":
        return None
    if kind == "console":
        return ConsoleSpanExporter()
    return _otlp(environ) if any(map(environ.get, ENDPOINTS)) else None


def _otlp(environ: Mapping[str, str]) -> SpanExporter:
    """Imported only when asked for: each brings a client that other processes can do without."""
    protocol = next(filter(None, map(environ.get, PROTOCOLS)), "http/protobuf")
    match protocol:
        case "http/protobuf":
            from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter  # noqa: PLC0415

            return OTLPSpanExporter()
        case "grpc":
            from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import (  # noqa: PLC0415
                OTLPSpanExporter as OverGrpc,
            )

            return OverGrpc()
    raise SettingsError(f"{PROTOCOLS[1]} = {protocol!r}: expected http/protobuf or grpc")


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


def _sampler(environ: Mapping[str, str]) -> Sampler:
    """What OTEL_TRACES_SAMPLER says. Raises SettingsError where the SDK would sample everything instead."""
    name = environ.get("OTEL_TRACES_SAMPLER", "").strip().lower() or "parentbased_always_on"
    if name in ("always_off", "parentbased_always_off"):  # then nobody asks for any
        return SAMPLERS[name]
    if name in SAMPLERS:
        return Keeping(SAMPLERS[name])
    if name in RATIOS:
        return Keeping(RATIOS[name](_ratio(environ)))
    known = ", ".join([*SAMPLERS, *RATIOS])
    raise SettingsError(f"OTEL_TRACES_SAMPLER = {name!r}: expected one of {known}")


def _ratio(environ: Mapping[str, str]) -> float:
    said = environ.get("OTEL_TRACES_SAMPLER_ARG", "").strip() or "1"
    with suppress(ValueError):
        if 0 <= float(said) <= 1:
            return float(said)
    raise SettingsError(
        f"OTEL_TRACES_SAMPLER_ARG = {said!r}: expected a share from 0 to 1, 0.01 for one of a hundred"
    )


def _say_last_words(processor: BatchSpanProcessor) -> None:
    """A process that ends waits for no collector."""
    processor._batch_processor.shutdown(LAST_WORDS)
