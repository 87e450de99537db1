"""Our histograms are collected as the SDK's are, with the same figures."""

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader

from config.tallies import Tallying

pytestmark = pytest.mark.unit

BOUNDS = (0.01, 0.1, 1.0)
VALUES = st.lists(st.tuples(st.sampled_from("ab"), st.sampled_from([0.0, 0.01, 0.05, 0.1, 1.0, 7.5])), max_size=30)


def tallying(reader: InMemoryMetricReader, most: int = 10) -> MeterProvider:
    return Tallying("test", {"stage"}, most, metric_readers=[reader], shutdown_on_exit=False)


def points(reader: InMemoryMetricReader) -> dict[tuple[Any, ...], Any]:
    data = reader.get_metrics_data()
    found = data.resource_metrics[0].scope_metrics if data and data.resource_metrics else []
    metrics = [metric for scope in found for metric in scope.metrics if metric.name == "took"]
    found_points: list[Any] = [point for metric in metrics for point in metric.data.data_points]
    return {
        tuple(sorted(point.attributes.items())): (
            point.count,
            pytest.approx(point.sum),
            list(point.bucket_counts),
            tuple(point.explicit_bounds),
            (point.min, point.max),
        )
        for point in found_points
    }


@given(VALUES)
def test_they_say_what_the_sdk_s_own_would(values: list[tuple[str, float]]) -> None:
    both = []
    for make in (tallying, lambda reader: MeterProvider([reader], shutdown_on_exit=False)):
        reader = InMemoryMetricReader()
        meter = make(reader).get_meter("test")
        took = meter.create_histogram("took", unit="s", explicit_bucket_boundaries_advisory=BOUNDS)
        for stage, value in values:
            took.record(value, {"stage": stage})
        both.append(points(reader))
    assert both[0] == both[1]


def test_they_stand_beside_the_other_figures_of_their_scope() -> None:
    reader = InMemoryMetricReader()
    meter = tallying(reader).get_meter("test")
    meter.create_counter("jobs").add(1)
    meter.create_histogram("took").record(1.0)
    data = reader.get_metrics_data()
    assert data
    (scope,) = data.resource_metrics[0].scope_metrics
    assert [metric.name for metric in scope.metrics] == ["jobs", "took"]


def test_series_are_told_apart_by_what_is_allowed_and_there_are_only_so_many() -> None:
    reader = InMemoryMetricReader()
    took = tallying(reader, most=3).get_meter("test").create_histogram("took")
    for number in range(10):
        took.record(1.0, {"tenant": str(number)})
    for number in range(10):
        took.record(1.0, {"stage": str(number)})
    counts = {attributes: count for attributes, (count, *_) in points(reader).items()}
    assert counts == {
        (): 10,
        (("stage", "0"),): 1,
        (("stage", "1"),): 1,
        (("otel.metric.overflow", True),): 8,
    }


def test_another_meter_s_histograms_are_the_sdk_s() -> None:
    reader = InMemoryMetricReader()
    provider = tallying(reader)
    provider.get_meter("other").create_histogram("took").record(2.0)
    ((_, (count, _, _, _, bounds)),) = points(reader).items()
    assert (count, bounds) == (1, (2.0, 2.0))
    assert not math.isinf(bounds[0])
