"""A collector that takes spans and figures over OTLP, by HTTP or gRPC, and keeps them."""

import gzip
import threading
import zlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import grpc
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.proto.collector.metrics.v1 import metrics_service_pb2_grpc as services_of_metrics
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
    ExportMetricsServiceResponse,
)
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2_grpc as services
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.common.v1.common_pb2 import AnyValue
from opentelemetry.proto.trace.v1.trace_pb2 import Span
from opentelemetry.sdk.trace import ReadableSpan

KINDS = {number: name.removeprefix("SPAN_KIND_") for name, number in Span.SpanKind.items()}


@dataclass(frozen=True)
class Seen:
    """A span as it came in. `links` are the ids of spans, `events` names with attributes."""

    service: str
    name: str
    kind: str
    trace: str
    id: str
    parent: str
    links: tuple[str, ...]
    attributes: dict[str, Any]
    events: dict[str, dict[str, Any]]
    start: int
    end: int
    error: str | None  # its description; None where the span is of no error


class Collector:
    """What came in: spans, and by the kind of process the names of figures and what they are of. `answers` says
    with which HTTP status a request is answered, and may take its time."""

    def __init__(self, answers: Callable[[], int] = lambda: 200) -> None:
        self._lock = threading.Lock()
        self._seen: list[Seen] = []
        self.figures: dict[str, set[str]] = {}
        self.resources: dict[str, dict[str, Any]] = {}
        self.answers = answers
        self.requests = 0
        self.address = ""

    @property
    def spans(self) -> list[Seen]:
        """All so far, by when they began."""
        with self._lock:
            return sorted(self._seen, key=lambda span: span.start)

    def take(self, request: ExportTraceServiceRequest) -> None:
        found = [
            _seen(span, _attributes(resource.resource.attributes)["service.name"])
            for resource in request.resource_spans
            for scope in resource.scope_spans
            for span in scope.spans
        ]
        with self._lock:
            self._seen += found

    def take_figures(self, request: ExportMetricsServiceRequest) -> None:
        for resource in request.resource_metrics:
            about = _attributes(resource.resource.attributes)
            self.resources[about["service.name"]] = about
            names = self.figures.setdefault(about["service.name"], set())
            names.update(metric.name for scope in resource.scope_metrics for metric in scope.metrics)


def tree(spans: list[Seen], parent: str = "") -> dict[str, Any]:
    """Spans by name below their parents; several of one name and parent are numbered."""
    found: dict[str, Any] = {}
    for span in spans:
        if span.parent == parent:
            count = sum(name.split(" #")[0] == f"{span.kind} {span.name}" for name in found)
            name = f"{span.kind} {span.name}" + (f" #{count + 1}" if count else "")
            found[name] = tree(spans, span.id)
    return found


def seen(spans: Sequence[ReadableSpan]) -> list[Seen]:
    """Spans of this process, as they would come in."""
    collector = Collector()
    collector.take(encode_spans(spans))
    return collector.spans


@contextmanager
def over_http(answers: Callable[[], int] = lambda: 200) -> Iterator[Collector]:
    """A collector; its `address` is what OTEL_EXPORTER_OTLP_ENDPOINT wants."""
    collector = Collector(answers)

    class Requests(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = _unpacked(self.rfile.read(int(self.headers["Content-Length"])), self.headers)
            collector.requests += 1
            status = collector.answers()
            if status == 200 and self.path == "/v1/traces":
                collector.take(ExportTraceServiceRequest.FromString(body))
            if status == 200 and self.path == "/v1/metrics":
                collector.take_figures(ExportMetricsServiceRequest.FromString(body))
            self.send_response(status)
            self.send_header("Content-Type", "application/x-protobuf")
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Nothing to standard error."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Requests)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    collector.address = f"http://127.0.0.1:{server.server_port}"
    try:
        yield collector
    finally:
        server.shutdown()
        server.server_close()


def _unpacked(body: bytes, headers: Any) -> bytes:
    match headers.get("Content-Encoding"):
        case "gzip":
            return gzip.decompress(body)
        case "deflate":
            return zlib.decompress(body)
    return body


@contextmanager
def over_grpc() -> Iterator[Collector]:
    """As `over_http`."""
    collector = Collector()

    class Service(services.TraceServiceServicer):
        def Export(self, request: ExportTraceServiceRequest, _: object) -> ExportTraceServiceResponse:  # noqa: N802
            collector.requests += 1
            collector.take(request)
            return ExportTraceServiceResponse()

    class ServiceOfMetrics(services_of_metrics.MetricsServiceServicer):
        def Export(  # noqa: N802
            self, request: ExportMetricsServiceRequest, _: object
        ) -> ExportMetricsServiceResponse:
            collector.take_figures(request)
            return ExportMetricsServiceResponse()

    server = grpc.server(ThreadPoolExecutor(2))
    services.add_TraceServiceServicer_to_server(Service(), server)  # type: ignore[no-untyped-call]
    services_of_metrics.add_MetricsServiceServicer_to_server(ServiceOfMetrics(), server)  # type: ignore[no-untyped-call]
    collector.address = f"http://127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    server.start()
    try:
        yield collector
    finally:
        server.stop(0).wait(5)


def _seen(span: Span, service: str) -> Seen:
    return Seen(
        service=service,
        name=span.name,
        kind=KINDS[span.kind],
        trace=span.trace_id.hex(),
        id=span.span_id.hex(),
        parent=span.parent_span_id.hex(),
        links=tuple(link.span_id.hex() for link in span.links),
        attributes=_attributes(span.attributes),
        events={event.name: _attributes(event.attributes) for event in span.events},
        start=span.start_time_unix_nano,
        end=span.end_time_unix_nano,
        error=span.status.message if span.status.code == 2 else None,
    )


def _attributes(pairs: Any) -> dict[str, Any]:
    return {pair.key: _value(pair.value) for pair in pairs}


def _value(value: AnyValue) -> Any:
    return getattr(value, value.WhichOneof("value") or "string_value")
