"""Jaeger itself, with the project's configuration, where there is one."""

import contextlib
import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from http import HTTPStatus
from pathlib import Path
from typing import Any, NamedTuple
from urllib.error import HTTPError
from urllib.request import urlopen

import pytest

from api.demo import free_port
from tests.otlp import KINDS, Seen
from tests.processes import stop

CONFIGURATION = Path(__file__).parent.parent / "deploy/jaeger.yaml"
ERROR = 2  # a span's status

program = shutil.which("jaeger")
needs_jaeger = pytest.mark.skipif(
    not program, reason="no jaeger on PATH (v2; go build github.com/jaegertracing/jaeger/cmd/jaeger)"
)


class Ports(NamedTuple):
    """On loopback."""

    http: int
    grpc: int
    query: int
    other: int

    @property
    def options(self) -> list[str]:
        """What moves Jaeger to these."""
        places = {
            "receivers.otlp.protocols.http.endpoint": f"127.0.0.1:{self.http}",
            "receivers.otlp.protocols.grpc.endpoint": f"127.0.0.1:{self.grpc}",
            "extensions.jaeger_query.http.endpoint": f"127.0.0.1:{self.query}",
            "extensions.jaeger_query.grpc.endpoint": f"127.0.0.1:{self.other}",
            "service.telemetry.metrics.level": "none",
        }
        return [f"--set={place}={value}" for place, value in places.items()]


@contextlib.contextmanager
def running(folder: Path) -> Iterator[Ports]:
    """Jaeger, which may not be ready yet; it ends well when it is asked to."""
    assert program
    ports = Ports(*(free_port() for _ in Ports._fields))
    command = [program, "--config", str(CONFIGURATION), *ports.options]
    env = {**os.environ, "OTEL_TRACES_SAMPLER": "always_off"}
    with (
        (folder / "jaeger.log").open("wb") as log,
        subprocess.Popen(command, env=env, stdout=log, stderr=log) as process,
    ):
        try:
            yield ports
            assert stop(process) == 0
        finally:
            process.kill()


def trace(ports: Ports, id: str) -> list[Seen]:  # noqa: A002
    """A trace's spans by when they began, as Jaeger's query API has them; none while it knows of none."""
    try:
        with urlopen(f"http://127.0.0.1:{ports.query}/api/v3/traces/{id}") as answer:
            found = json.load(answer)["result"]["resourceSpans"]
    except HTTPError as error:
        if error.code != HTTPStatus.NOT_FOUND:
            raise
        return []
    spans = [
        _seen(span, _attributes(of["resource"])["service.name"])
        for of in found
        for scope in of["scopeSpans"]
        for span in scope["spans"]
    ]
    return sorted(spans, key=lambda span: span.start)


def _seen(span: dict[str, Any], service: str) -> Seen:
    status = span["status"]
    return Seen(
        service=service,
        name=span["name"],
        kind=KINDS[span["kind"]],
        trace=span["traceId"],
        id=span["spanId"],
        parent=span.get("parentSpanId", ""),
        links=tuple(link["spanId"] for link in span.get("links", [])),
        attributes=_attributes(span),
        events={event["name"]: _attributes(event) for event in span.get("events", [])},
        start=int(span["startTimeUnixNano"]),
        end=int(span["endTimeUnixNano"]),
        error=status.get("message", "") if status.get("code") == ERROR else None,
    )


def _attributes(of: dict[str, Any]) -> dict[str, Any]:
    return {pair["key"]: _value(pair["value"]) for pair in of.get("attributes", [])}


def _value(value: dict[str, Any]) -> Any:
    """In JSON a 64-bit number is a string."""
    ((kind, said),) = value.items()
    return int(said) if kind == "intValue" else said
