"""Figures sent over OTLP, by HTTP and gRPC; and collectors that are away, which nothing may wait for."""

import contextlib
import gzip
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import grpc  # type: ignore[import-untyped] # its stubs are a package more, for three calls
import pytest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
    ExportMetricsServiceResponse,
)
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2_grpc import (
    MetricsServiceServicer,
    add_MetricsServiceServicer_to_server,
)

from tests.processes import riacho, stop
from tests.support import eventually

pytestmark = pytest.mark.integration


class Received:
    """What came, by the kind of process, and the name of the figure."""

    def __init__(self) -> None:
        self.names: dict[str, set[str]] = {}
        self.resources: dict[str, dict[str, str]] = {}

    def take(self, request: ExportMetricsServiceRequest) -> None:
        for resource in request.resource_metrics:
            about = {pair.key: pair.value.string_value for pair in resource.resource.attributes}
            self.resources[about["service.name"]] = about
            names = self.names.setdefault(about["service.name"], set())
            names.update(metric.name for scope in resource.scope_metrics for metric in scope.metrics)

    async def until(self, process: str, *wanted: str) -> None:
        async def came() -> bool:
            return set(wanted) <= self.names.get(process, set())

        await eventually(came, what=f"{wanted} of {process}", deadline=40)


@contextlib.contextmanager
def over_http(received: Received) -> Iterator[str]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            if self.headers.get("Content-Encoding") == "gzip":
                body = gzip.decompress(body)
            if self.path == "/v1/metrics":
                received.take(ExportMetricsServiceRequest.FromString(body))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None: ...

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        serving = threading.Thread(target=server.serve_forever, args=(0.05,))
        serving.start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()
        serving.join()


@contextlib.contextmanager
def over_grpc(received: Received) -> Iterator[str]:
    class Servicer(MetricsServiceServicer):
        def Export(  # noqa: N802 - its name in the protocol
            self, request: ExportMetricsServiceRequest, context: Any
        ) -> ExportMetricsServiceResponse:
            received.take(request)
            return ExportMetricsServiceResponse()

    server = grpc.server(ThreadPoolExecutor(2))
    add_MetricsServiceServicer_to_server(Servicer(), server)  # type: ignore[no-untyped-call]
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield f"http://127.0.0.1:{port}"
    server.stop(None).wait()


def sending_to(endpoint: str, protocol: str = "http/protobuf") -> dict[str, str]:
    return {
        "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT": f"{endpoint}/v1/metrics" if protocol != "grpc" else endpoint,
        "OTEL_EXPORTER_OTLP_PROTOCOL": protocol,
        "OTEL_METRIC_EXPORT_INTERVAL": "200",
        "OTEL_RESOURCE_ATTRIBUTES": "deployment.environment.name=test",
    }


@pytest.mark.parametrize(("protocol", "collector"), [("http/protobuf", over_http), ("grpc", over_grpc)])
async def test_a_worker_sends_its_figures_by_either_protocol(
    env: dict[str, str], protocol: str, collector: Callable[..., Any]
) -> None:
    received = Received()
    with collector(received) as endpoint:
        with riacho("worker", "--stages", "send-client", env=env | sending_to(endpoint, protocol)) as process:
            await received.until("riacho-worker", "riacho.worker.slots", "riacho.script.duration")
            assert stop(process) == 0
    about = received.resources["riacho-worker"]
    assert about["deployment.environment.name"] == "test"
    assert about["service.version"]
    assert about["service.instance.id"]


async def test_the_service_sends_what_it_sees_of_the_queues_too(env: dict[str, str]) -> None:
    received = Received()
    with over_http(received) as endpoint:
        with riacho("api", env=env | sending_to(endpoint) | {"RIACHO_HTTP_PORT": "0"}) as process:
            names = ("jobs", "state", "oldest_waiting", "workers", "slots", "high_water_jobs", "low_water_jobs")
            more = ("paused", "demand_jobs", "added", "finished")
            await received.until(
                "riacho-api",
                *(f"riacho.stage.{name}" for name in (*names, *more)),
                *("riacho.redis.memory_used", "riacho.redis.memory_limit"),
            )
            assert stop(process) == 0


@pytest.mark.parametrize("protocol", ["http/protobuf", "grpc"])
@pytest.mark.parametrize("answers", [False, True])
async def test_a_collector_that_is_away_or_silent_holds_up_no_end_and_costs_one_line(
    env: dict[str, str], tmp_path: Path, protocol: str, *, answers: bool
) -> None:
    log = tmp_path / "worker.log"
    with contextlib.ExitStack() as stack:
        silent = stack.enter_context(socket.create_server(("127.0.0.1", 0)))  # takes connections, and says nothing
        endpoint = f"http://user:secret@127.0.0.1:{silent.getsockname()[1]}"
        if not answers:
            silent.close()
        settings = sending_to(endpoint, protocol) | {"OTEL_EXPORTER_OTLP_TIMEOUT": "1" if answers else "10"}
        stderr = stack.enter_context(log.open("wb"))
        process = stack.enter_context(
            riacho("worker", "--stages", "send-client", env=env | settings, stderr=stderr)
        )

        async def said() -> bool:
            return "figures cannot be sent" in log.read_text()

        await eventually(said, what="it being said", deadline=40)
        started = time.monotonic()
        assert stop(process) == 0
        assert time.monotonic() - started < 4  # of which a worker itself takes its part
    lines = [line for line in log.read_text().splitlines() if " INFO " not in line]
    assert len(lines) == 1, lines
    assert "WARNING config.metrics: figures cannot be sent to http://127.0.0.1:" in lines[0]
    assert "secret" not in log.read_text()


async def test_nothing_is_sent_where_the_exporter_is_none_or_the_sdk_disabled(env: dict[str, str]) -> None:
    received = Received()
    with over_http(received) as endpoint:
        for off in ({"OTEL_METRICS_EXPORTER": "none"}, {"OTEL_SDK_DISABLED": "true"}):
            with riacho("worker", "--stages", "send-client", env=env | sending_to(endpoint) | off) as process:
                await eventually(lambda: _has_threads(process.pid), what="its start")
                assert stop(process) == 0
    assert received.names == {}


async def _has_threads(pid: int) -> bool:
    return len(list(Path(f"/proc/{pid}/task").iterdir())) > 1
