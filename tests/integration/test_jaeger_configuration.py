"""Jaeger itself takes deploy/jaeger.yaml, and shows spans as they were."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import pytest_asyncio
from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter as OverGrpc
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter as OverHttp
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor, SpanExporter

from tests.jaeger import Ports, needs_jaeger, running
from tests.support import eventually

SECOND = 1_000_000_000  # ns
BEGAN = 1_700_000_000 * SECOND

pytestmark = [pytest.mark.integration, needs_jaeger]


@pytest_asyncio.fixture
async def jaeger(tmp_path: Path) -> AsyncIterator[Ports]:
    """Where it listens; it is ready."""
    with running(tmp_path) as ports:
        await eventually(lambda: traces_of(ports, "nobody", at_all=True), deadline=30, what="Jaeger's start")
        yield ports


async def traces_of(ports: Ports, service: str, *, at_all: bool = False) -> list[dict[str, Any]] | bool:
    """What Jaeger's query API has of a service; whether it answers `at_all`."""
    wanted = {
        "service": service,
        "start": str((BEGAN - SECOND) // 1000),
        "end": str((BEGAN + 60 * SECOND) // 1000),
    }
    try:
        async with aiohttp.request("GET", f"http://127.0.0.1:{ports.query}/api/traces", params=wanted) as answer:
            found: list[dict[str, Any]] = (await answer.json())["data"]
            return at_all or found
    except aiohttp.ClientConnectionError:
        return False


def provider(service: str, exporter: SpanExporter) -> TracerProvider:
    made = TracerProvider(resource=Resource.create({"service.name": service}))
    made.add_span_processor(SimpleSpanProcessor(exporter))
    return made


async def test_a_trace_comes_over_http_and_grpc_and_its_times_stay_as_they_were(jaeger: Ports) -> None:
    api = provider("riacho-api", OverHttp(endpoint=f"http://127.0.0.1:{jaeger.http}/v1/traces"))
    worker = provider("riacho-worker", OverGrpc(endpoint=f"127.0.0.1:{jaeger.grpc}", insecure=True))
    sent = api.get_tracer("test").start_span("send audio.transcribe", start_time=BEGAN)
    within = trace.set_span_in_context(sent)
    # After its parent's end, as a job that waited: an adjustment of clocks would move it by nine seconds.
    process = worker.get_tracer("test").start_span(
        "process audio.transcribe", within, start_time=BEGAN + 9 * SECOND
    )
    sent.end(BEGAN + SECOND)
    process.end(BEGAN + 10 * SECOND)

    async def both() -> list[dict[str, Any]] | None:
        found = await traces_of(jaeger, "riacho-worker")
        return found[0]["spans"] if isinstance(found, list) and found and len(found[0]["spans"]) == 2 else None

    spans = sorted(await eventually(both, what="the trace"), key=lambda span: span["startTime"])
    assert [(span["operationName"], span["startTime"]) for span in spans] == [
        ("send audio.transcribe", BEGAN // 1000),
        ("process audio.transcribe", (BEGAN + 9 * SECOND) // 1000),
    ]
    assert [reference["spanID"] for reference in spans[1]["references"]] == [spans[0]["spanID"]]
    api.shutdown()
    worker.shutdown()
