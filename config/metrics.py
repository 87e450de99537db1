"""The OTel SDK for figures, set up from the standard OTEL_* variables: for Prometheus where it is served, and over
OTLP where an endpoint is configured."""

import functools
import logging
import math
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from opentelemetry import metrics
from opentelemetry.sdk.metrics import (
    AlwaysOffExemplarFilter,
    Counter,
    Histogram,
    MeterProvider,
    ObservableCounter,
    ObservableGauge,
)
from opentelemetry.sdk.metrics.export import (
    MetricExporter,
    MetricExportResult,
    MetricReader,
    MetricsData,
    PeriodicExportingMetricReader,
)
from opentelemetry.sdk.metrics.view import View
from prometheus_client import CollectorRegistry

from config.otel import GRPC, HTTP, disabled, endpoint, protocol, resource, said
from config.tallies import Tallying

log = logging.getLogger(__name__)

DEFAULT_ENDPOINTS = {HTTP: "http://localhost:4318", GRPC: "http://localhost:4317"}
EXPORTERS = {"otlp", "prometheus", "none"}
LAST_FLUSH = 1_000  # ms that a process which ends waits for the collector
WARN_EVERY = 60.0  # seconds
SCOPE = "riacho"  # the meter of our own figures
MOST_SERIES = 500  # of one instrument; what is over goes into one series of its own
# Whatever else is said of a figure of ours goes no further: nobody else's number of values is known.
ATTRIBUTES = {
    *("queue", "stage", "state", "outcome", "script", "model", "device"),
    *(
        "messaging.system",
        "messaging.operation.name",
        "messaging.destination.name",
        "messaging.consumer.group.name",
    ),
    *("http.request.method", "http.route", "http.response.status_code", "error.type"),
}
LOGGERS = (
    "opentelemetry.exporter.otlp.proto.http.metric_exporter",
    "opentelemetry.exporter.otlp.proto.grpc.exporter",
    "opentelemetry.sdk.metrics._internal.export",
)


def _nothing() -> None:
    """There is nothing to end."""


class Metering(NamedTuple):
    """What was set up: where Prometheus finds this process's figures, if it does; whether they are sent, too; and
    what sends the last ones."""

    registry: CollectorRegistry | None = None
    pushed: bool = False
    end: Callable[[], None] = _nothing


UNMETERED = Metering()


@contextmanager
def metering(process: str, *, served: bool) -> Iterator[Metering]:
    """Collect figures while it lasts, for Prometheus if they are `served`. `process` is the kind: api, worker.

    On leaving, what is collected is sent, within LAST_FLUSH; a collector that is away is not waited for longer.
    """
    made = set_up_metrics(process, served=served)
    try:
        yield made
    finally:
        made.end()


def set_up_metrics(process: str, *, served: bool) -> Metering:
    """As `metering`, for whoever ends it. Where nobody would get the figures, nothing is collected."""
    if disabled():
        return UNMETERED
    readers: list[MetricReader] = []
    registry = CollectorRegistry() if served else None
    if registry:
        readers.append(_prometheus(registry))
    if pushed := _pushing() if _is_pushed() else None:
        readers.append(pushed)
    if not readers:
        return UNMETERED
    provider = provider_of(process, readers)
    metrics.set_meter_provider(provider)
    return Metering(registry, pushed is not None, functools.partial(_shut_down, provider))


def provider_of(process: str, readers: Sequence[MetricReader]) -> MeterProvider:
    """A provider as ours are: with bounds on what may be said of a figure, and histograms that cost little."""
    options: dict[str, Any] = {
        "metric_readers": readers,
        "resource": resource(process),
        "shutdown_on_exit": False,
        "views": [View(instrument_name="*", meter_name=SCOPE, attribute_keys=ATTRIBUTES)],
    }
    if "OTEL_METRICS_EXEMPLAR_FILTER" in os.environ:  # which example of a figure belongs to which trace
        return MeterProvider(**options)
    return Tallying(SCOPE, ATTRIBUTES, MOST_SERIES, exemplar_filter=AlwaysOffExemplarFilter(), **options)


def _prometheus(registry: CollectorRegistry) -> MetricReader:
    # Imported here, as the exporters are: not every process needs it.
    from opentelemetry.exporter.prometheus import PrometheusMetricReader  # noqa: PLC0415

    return PrometheusMetricReader(scope_info_enabled=False, registry=registry, cardinality_limits=_limits())


def _pushing() -> MetricReader | None:
    try:
        return PeriodicExportingMetricReader(Patient(*_exporter()), cardinality_limits=_limits())
    except Exception as error:  # noqa: BLE001 - whatever a library makes of variables that are wrong
        # Its words may have a header's value in them.
        log.error("figures are not sent: look at OTEL_EXPORTER_OTLP_* (%s)", type(error).__name__)
        return None


def _limits() -> dict[type, int]:
    return dict.fromkeys((Counter, Histogram, ObservableCounter, ObservableGauge), MOST_SERIES)


def _is_pushed() -> bool:
    """Whether figures go out over OTLP: where OTEL_METRICS_EXPORTER says so, or an endpoint is configured."""
    exporters = said("OTEL_METRICS_EXPORTER").lower()
    if not exporters:
        return bool(endpoint("METRICS"))
    names = {name.strip() for name in exporters.split(",")}
    for name in sorted(names - EXPORTERS):
        log.warning("OTEL_METRICS_EXPORTER names %r, which is left out; known: none, otlp, prometheus", name)
    return "otlp" in names


def _exporter() -> tuple[MetricExporter, str]:
    """The exporter, and where it sends to, as may be shown."""
    how = protocol("METRICS")
    if how not in DEFAULT_ENDPOINTS:
        log.warning("figures are sent as %s: OTEL_EXPORTER_OTLP_PROTOCOL = %r is not known", HTTP, how)
        how = HTTP
    address = endpoint("METRICS") or DEFAULT_ENDPOINTS[how]
    made: MetricExporter
    if how == GRPC:
        from opentelemetry.exporter.otlp.proto.grpc.metric_exporter import (  # noqa: PLC0415
            OTLPMetricExporter as Grpc,
        )

        made = Grpc()
    else:
        from opentelemetry.exporter.otlp.proto.http.metric_exporter import (  # noqa: PLC0415
            OTLPMetricExporter as Http,
        )

        made = Http()
    return made, _without_password(address)


class Patient(MetricExporter):
    """Sends figures by another exporter, and says in a line, once in WARN_EVERY, that it cannot: what does not go
    out is in the next figures, as they add up. The other's own words for each try go nowhere."""

    def __init__(self, exporter: MetricExporter, address: str) -> None:
        super().__init__(
            preferred_temporality=exporter._preferred_temporality,
            preferred_aggregation=exporter._preferred_aggregation,
        )
        self._exporter, self._address = exporter, address
        self._warned_at = -math.inf
        for name in LOGGERS:
            logging.getLogger(name).addFilter(_not_of_metrics)

    def export(
        self, metrics_data: MetricsData, timeout_millis: float = 10_000, **kwargs: Any
    ) -> MetricExportResult:
        """See MetricExporter."""
        try:
            result = self._exporter.export(metrics_data, timeout_millis=timeout_millis, **kwargs)
        except Exception as error:
            log.debug("an exporter failed", exc_info=error)
            result = MetricExportResult.FAILURE
        if result is not MetricExportResult.SUCCESS:
            self._warn()
        return result

    def force_flush(self, timeout_millis: float = 10_000) -> bool:
        """See MetricExporter."""
        return self._exporter.force_flush(timeout_millis)

    def shutdown(self, timeout_millis: float = 30_000, **kwargs: Any) -> None:
        """See MetricExporter."""
        self._exporter.shutdown(timeout_millis, **kwargs)

    def _warn(self) -> None:
        if time.monotonic() - self._warned_at >= WARN_EVERY:
            self._warned_at = time.monotonic()
            log.warning("figures cannot be sent to %s; nothing else is held up by it", self._address)


def _not_of_metrics(record: logging.LogRecord) -> bool:
    """Exporters of traces write to some of the same loggers."""
    return "metric" not in record.name and "metrics" not in (record.args or ())


def _shut_down(provider: MeterProvider) -> None:
    try:
        provider.shutdown(LAST_FLUSH)
    except Exception as error:
        log.debug("figures were not flushed", exc_info=error)


def _without_password(endpoint: str) -> str:
    try:
        parts = urlsplit(endpoint)
        return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"
    except ValueError:
        return "the collector"
