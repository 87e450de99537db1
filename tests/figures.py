"""What a test reads of the figures that were measured, and the names that dashboards and rules go by."""

from collections.abc import Iterator
from typing import Any

from opentelemetry.sdk.metrics.export import HistogramDataPoint, InMemoryMetricReader, Metric
from prometheus_client import Metric as Family
from prometheus_client.parser import text_string_to_metric_families

# By Prometheus' name, as its parser has it (a counter's without _total): the labels it may have.
WORKER = {
    "riacho_jobs_started": {"queue", "stage"},
    "riacho_jobs_ended": {"queue", "stage", "outcome"},
    "riacho_job_retries": {"queue", "stage"},
    "riacho_job_dead_letters": {"queue", "stage"},
    "riacho_job_waiting_seconds": {"queue", "stage"},
    "riacho_batch_size": {"queue", "stage"},
    "riacho_settle_size": set(),
    "riacho_worker_slots": {"queue", "stage"},
    "riacho_worker_busy": {"queue", "stage"},
    "messaging_process_duration_seconds": {
        *("messaging_system", "messaging_operation_name", "messaging_destination_name"),
        *("messaging_consumer_group_name", "error_type"),
    },
    "messaging_client_consumed_messages": {
        *("messaging_system", "messaging_operation_name", "messaging_destination_name"),
        "messaging_consumer_group_name",
    },
    "riacho_transcription_real_time_factor": {"model", "device"},
    "riacho_transcription_audio_seconds": {"model", "device"},
    "riacho_whatsapp_requests": {"outcome"},
}
EVERYONE = {
    "riacho_script_duration_seconds": {"script"},
    "messaging_client_sent_messages": {
        *("messaging_system", "messaging_operation_name", "messaging_destination_name"),
    },
    "target_info": None,  # what the process is: OTel's resource
}
TRACING: dict[str, set[str]] = {"riacho_spans_refused": set()}  # where spans are exported
API: dict[str, set[str]] = {
    "riacho_stage_jobs": {"queue", "stage", "state"},
    "riacho_stage_state": {"queue", "stage", "state"},
    "riacho_stage_oldest_waiting_seconds": {"queue", "stage"},
    "riacho_stage_workers": {"queue", "stage"},
    "riacho_stage_slots": {"queue", "stage"},
    "riacho_stage_high_water_jobs": {"queue", "stage"},
    "riacho_stage_low_water_jobs": {"queue", "stage"},
    "riacho_stage_paused": {"queue", "stage"},
    "riacho_stage_demand_jobs": {"queue", "stage"},
    "riacho_stage_added": {"queue", "stage"},
    "riacho_stage_finished": {"queue", "stage"},
    "riacho_redis_memory_used_bytes": set(),
    "riacho_redis_memory_limit_bytes": set(),
    "http_server_request_duration_seconds": {"http_request_method", "http_route", "http_response_status_code"},
}


class Figures:
    """What a provider has measured so far."""

    def __init__(self, reader: InMemoryMetricReader) -> None:
        self._reader = reader

    def metrics(self) -> dict[str, Metric]:
        """All of it, by name."""
        data = self._reader.get_metrics_data()
        if data is None:
            return {}
        scopes = [scope for resource in data.resource_metrics for scope in resource.scope_metrics]
        return {metric.name: metric for scope in scopes for metric in scope.metrics}

    def points(self, name: str, **attributes: str) -> list[Any]:
        """Those of one instrument that have these attributes; '_' stands for '.' in their names."""
        found = self.metrics().get(name)
        return list(_with(found, attributes)) if found else []

    def total(self, name: str, **attributes: str) -> float:
        """The sum of counters and gauges, of histograms how often something was measured."""
        points = self.points(name, **attributes)
        counts = [point.count if isinstance(point, HistogramDataPoint) else point.value for point in points]
        return float(sum(counts))

    def sum(self, name: str, **attributes: str) -> float:
        """Of all that a histogram was told."""
        return float(sum(point.sum for point in self.points(name, **attributes)))


def _with(metric: Metric, attributes: dict[str, str]) -> Iterator[Any]:
    for point in metric.data.data_points:
        has = {key.replace(".", "_"): value for key, value in (point.attributes or {}).items()}
        if attributes.items() <= has.items():
            yield point


def parsed(text: str) -> dict[str, Family]:
    """What Prometheus reads, by name. Fails where a name comes twice."""
    families = list(text_string_to_metric_families(text))
    names = [family.name for family in families]
    assert len(names) == len(set(names)), names
    return dict(zip(names, families, strict=True))


def labels(family: Family) -> set[str]:
    """Those of its samples, without the bounds of buckets."""
    return {label for sample in family.samples for label in sample.labels} - {"le"}
