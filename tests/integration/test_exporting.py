"""Spans on their way to a collector, which may be away, slow, or of another opinion."""

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

import pytest
from prometheus_client.parser import text_string_to_metric_families

from config.telemetry import KEPT
from pipeline import conventions
from tests.otlp import Collector, over_grpc, over_http
from tests.processes import environment, run

pytestmark = pytest.mark.integration

PROGRAM = """
import os, sys, time
from config import SettingsError, telemetry
from config.metrics import set_up_metrics
from opentelemetry import trace
from prometheus_client import generate_latest
try:
    send_last = telemetry.set_up("worker")
except SettingsError as error:
    sys.exit(str(error))
metering = set_up_metrics("worker", served=True)
tracer, began = trace.get_tracer("test"), time.monotonic()
for number in range(int(sys.argv[1])):
    tracer.start_span(f"span {number}").end()
print(time.monotonic() - began, flush=True)
if "count" in sys.argv:
    trace.get_tracer_provider().force_flush()
    print(generate_latest(metering.registry).decode())
if "at once" in sys.argv:
    send_last()
    metering.end()
    os._exit(1)
"""


def export(count: int, *more: str, **variables: str) -> "subprocess.CompletedProcess[str]":
    """A process that makes so many spans and ends."""
    command = [sys.executable, "-c", PROGRAM, str(count), *more]
    return subprocess.run(
        command, env=environment(**variables), capture_output=True, text=True, timeout=30, check=False
    )


@pytest.mark.parametrize(
    ("protocol", "collecting"), [("http/protobuf", over_http), ("grpc", over_grpc)], ids=["HTTP", "gRPC"]
)
def test_what_a_process_made_is_out_when_it_ends(
    protocol: str, collecting: Callable[[], AbstractContextManager[Collector]]
) -> None:
    with collecting() as collector:
        ended = export(3, OTEL_EXPORTER_OTLP_ENDPOINT=collector.address, OTEL_EXPORTER_OTLP_PROTOCOL=protocol)
    assert (ended.returncode, ended.stderr) == (0, "")
    assert [(span.service, span.name) for span in collector.spans] == [
        ("riacho-worker", f"span {number}") for number in range(3)
    ]


def test_one_that_ends_without_ado_can_send_the_last_ones_first() -> None:
    with over_http() as collector:
        ended = export(3, "at once", OTEL_EXPORTER_OTLP_ENDPOINT=collector.address)
    assert (ended.returncode, ended.stderr) == (1, "")
    assert len(collector.spans) == 3
    assert collector.figures["riacho-worker"]


@contextmanager
def away() -> Iterator[Collector]:
    collector = Collector()
    collector.address = "http://127.0.0.1:1"
    yield collector


def asleep() -> int:
    time.sleep(20)
    return 503


@pytest.mark.parametrize("protocol", ["http/protobuf", "grpc"])
@pytest.mark.parametrize(
    "collecting",
    [away, lambda: over_http(lambda: 400), lambda: over_http(lambda: 503), lambda: over_http(asleep)],
    ids=["away", "rejecting", "overloaded", "slow"],
)
def test_a_collector_that_takes_nothing_holds_up_nobody(
    protocol: str, collecting: Callable[[], AbstractContextManager[Collector]]
) -> None:
    with collecting() as collector:
        began = time.monotonic()
        ended = export(20_000, OTEL_EXPORTER_OTLP_ENDPOINT=collector.address, OTEL_EXPORTER_OTLP_PROTOCOL=protocol)
        took = time.monotonic() - began
    assert ended.returncode == 0
    assert float(ended.stdout) < 10, "20,000 spans into a full queue, on a busy machine"
    assert took < 20, "the process does not wait for what nobody takes"
    assert len(ended.stderr.splitlines()) <= 2, ended.stderr
    assert collector.spans == []


def test_spans_that_are_dropped_are_counted() -> None:
    with over_http(lambda: 400) as collector:
        ended = export(20_000, "count", OTEL_EXPORTER_OTLP_TRACES_ENDPOINT=f"{collector.address}/v1/traces")
    figures = ended.stdout.partition("\n")[2]
    totals = dict.fromkeys(("queue_full", "refused", "handed on"), 0.0)
    for family in text_string_to_metric_families(figures):
        for sample in family.samples:
            error = sample.labels.get("error_type", "")
            if sample.name == "otel_sdk_processor_span_processed_total":
                totals[error or "handed on"] += sample.value
            if sample.name == "riacho_spans_refused_total":
                totals["refused"] += sample.value
    # The SDK looks whether its queue is full, and then adds: what is taken from it in between counts twice.
    assert 20_000 <= totals["queue_full"] + totals["handed on"] < 20_200
    assert totals["refused"] == totals["handed on"] > 0
    assert totals["queue_full"] > 0


@pytest.mark.parametrize(
    "variables",
    [
        {},
        {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1", "OTEL_SDK_DISABLED": "true"},
        {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1", "OTEL_TRACES_EXPORTER": "none"},
        {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1", "OTEL_TRACES_SAMPLER": "always_off"},
    ],
)
def test_nothing_goes_out_unless_it_is_asked_for(variables: dict[str, str]) -> None:
    ended = export(1, **variables)
    assert (ended.returncode, ended.stderr) == (0, "")


@pytest.mark.parametrize(
    ("variable", "value", "remedy"),
    [
        ("OTEL_TRACES_EXPORTER", "zipkin", "expected one of otlp, console, none"),
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/json", "expected http/protobuf or grpc"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "jaeger:4318", "with http:// or https://"),
        ("OTEL_TRACES_SAMPLER", "sometimes", "parentbased_traceidratio"),
        ("OTEL_TRACES_SAMPLER_ARG", "1%", "0.01 for one of a hundred"),
        ("OTEL_TRACES_SAMPLER_ARG", "7", "0.01 for one of a hundred"),
    ],
)
def test_a_variable_that_cannot_be_used_is_named_with_the_remedy(variable: str, value: str, remedy: str) -> None:
    good = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1", "OTEL_TRACES_SAMPLER": "traceidratio"}
    ended = export(1, **good | {variable: value})
    assert ended.returncode == 1
    assert ended.stderr.startswith(f"{variable} = {value!r}: ")
    assert remedy in ended.stderr


def test_the_sampler_keeps_what_the_engine_marks() -> None:
    assert KEPT == conventions.KEPT


def test_what_a_command_adds_is_traced_too(env: dict[str, str]) -> None:
    job = ("enqueue", "notification", "send-client", '{"to": "+5511987654321", "text": "Olá!"}')
    with over_http() as collector:
        traced = {"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": f"{collector.address}/v1/traces"}
        ended = run(*job, env=env | traced)
    assert (ended.returncode, ended.stderr) == (0, "")
    assert [(span.service, span.name) for span in collector.spans] == [
        ("riacho-cli", "send notification.send-client")
    ]
    assert collector.spans[0].attributes["messaging.message.id"] in ended.stdout
