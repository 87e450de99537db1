"""Figures sent over OTLP, by HTTP and gRPC; and collectors that are away, which nothing may wait for."""

import contextlib
import os
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import IO

import pytest
from opentelemetry import metrics as api_of_metrics

from config.metrics import metering
from tests.otlp import Collector, over_grpc, over_http
from tests.processes import riacho, stop
from tests.support import eventually

pytestmark = pytest.mark.integration


async def told(collector: Collector, process: str, *wanted: str) -> None:
    """Wait until it was told of these figures."""

    async def came() -> bool:
        return set(wanted) <= collector.figures.get(process, set())

    await eventually(came, what=f"{wanted} of {process}", deadline=40)


@pytest.mark.parametrize(("protocol", "collecting"), [("http/protobuf", over_http), ("grpc", over_grpc)])
async def test_a_worker_sends_its_figures_by_either_protocol(
    env: dict[str, str], protocol: str, collecting: Callable[[], AbstractContextManager[Collector]]
) -> None:
    with collecting() as collector, worker(env | sending_to(collector.address, protocol)) as process:
        await told(collector, "riacho-worker", "riacho.worker.slots", "riacho.script.duration")
        assert stop(process) == 0
    about = collector.resources["riacho-worker"]
    assert about["deployment.environment.name"] == "test"
    assert about["service.version"]
    assert about["service.instance.id"]


async def test_the_service_sends_what_it_sees_of_the_queues_too(env: dict[str, str]) -> None:
    stages = ("jobs", "state", "oldest_waiting", "workers", "slots", "high_water_jobs", "low_water_jobs", "paused")
    names = [f"riacho.stage.{name}" for name in (*stages, "demand_jobs", "added", "finished")]
    with over_http() as collector:
        settings = sending_to(collector.address) | {"RIACHO_HTTP_PORT": "0"}
        with riacho("api", env=env | settings) as process:
            await told(collector, "riacho-api", *names, "riacho.redis.memory_used", "riacho.redis.memory_limit")
            assert stop(process) == 0


@pytest.mark.parametrize("protocol", ["http/protobuf", "grpc"])
async def test_a_silent_collector_holds_up_no_end_and_costs_one_line(
    env: dict[str, str], tmp_path: Path, protocol: str
) -> None:
    log = tmp_path / "worker.log"
    with silent() as address, log.open("wb") as stderr:
        settings = sending_to(f"http://user:secret@{address}", protocol) | {"OTEL_EXPORTER_OTLP_TIMEOUT": "0.5"}
        with worker(env | settings, stderr) as process:
            await eventually(lambda: says(log, "figures cannot be sent"), what="it being said", deadline=40)
            await eventually(lambda: says(log, "working"), what="its start", deadline=40)
            assert stop(process) == 0
    lines = [line for line in log.read_text().splitlines() if '"level": "info"' not in line]
    assert len(lines) == 1, lines
    assert f"figures cannot be sent to http://{address}" in lines[0]
    assert "secret" not in log.read_text()


@pytest.mark.parametrize("protocol", ["http/protobuf", "grpc"])
@pytest.mark.parametrize("away", [False, True])
def test_what_is_left_is_not_waited_for_longer_than_a_second_or_two(
    monkeypatch: pytest.MonkeyPatch, protocol: str, *, away: bool
) -> None:
    with silent() as address:
        endpoint = "http://127.0.0.1:9" if away else f"http://{address}"
        for name, value in sending_to(endpoint, protocol).items():
            monkeypatch.setenv(name, value)
        monkeypatch.setattr(api_of_metrics, "set_meter_provider", lambda _: None)
        with metering("test", served=False) as made:
            assert made.pushed
            time.sleep(0.4)  # an export is under way
            started = time.monotonic()
        assert time.monotonic() - started < 2


@pytest.mark.parametrize(
    ("said", "sent"),
    [
        ({}, False),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9"}, True),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9", "OTEL_METRICS_EXPORTER": "none"}, False),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9", "OTEL_METRICS_EXPORTER": "prometheus"}, False),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9", "OTEL_SDK_DISABLED": "true"}, False),
        ({"OTEL_METRICS_EXPORTER": "otlp"}, True),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://127.0.0.1:9"}, False),
        ({"OTEL_METRICS_EXPORTER": "otlp", "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}, True),
    ],
)
def test_figures_are_sent_where_the_standard_variables_say_so(
    monkeypatch: pytest.MonkeyPatch, said: dict[str, str], *, sent: bool
) -> None:
    for name in [name for name in os.environ if name.startswith("OTEL_")]:
        monkeypatch.delenv(name)
    for name, value in said.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(api_of_metrics, "set_meter_provider", lambda _: None)
    with metering("test", served=False) as made:
        assert made.pushed is sent


def sending_to(endpoint: str, protocol: str = "http/protobuf") -> dict[str, str]:
    return {
        "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT": f"{endpoint}/v1/metrics" if protocol != "grpc" else endpoint,
        "OTEL_EXPORTER_OTLP_PROTOCOL": protocol,
        "OTEL_METRIC_EXPORT_INTERVAL": "200",
        "OTEL_RESOURCE_ATTRIBUTES": "deployment.environment.name=test",
    }


@contextlib.contextmanager
def silent() -> Iterator[str]:
    """Where connections are taken, and nothing is said."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield f"127.0.0.1:{listener.getsockname()[1]}"


def worker(
    env: dict[str, str], stderr: IO[bytes] | None = None
) -> AbstractContextManager["subprocess.Popen[bytes]"]:
    return riacho("worker", "--stages", "send-client", env=env, stderr=stderr)


async def says(log: Path, words: str) -> bool:
    return words in log.read_text()
