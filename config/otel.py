"""What setting up traces and setting up figures share: the OTEL_* variables, and what a process is to others."""

import functools
import os
import uuid
from importlib.metadata import version

from opentelemetry.sdk.resources import Resource

HTTP, GRPC = "http/protobuf", "grpc"


def said(*names: str) -> str:
    """The first of these variables that says something."""
    return next(filter(None, (os.environ.get(name, "").strip() for name in names)), "")


def disabled() -> bool:
    """Whether there is to be no SDK."""
    return said("OTEL_SDK_DISABLED").lower() == "true"


def endpoint(signal: str) -> str:
    """Where TRACES or METRICS are sent over OTLP; empty where nobody said."""
    return said(f"OTEL_EXPORTER_OTLP_{signal}_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")


def protocol(signal: str) -> str:
    """How; HTTP where nobody said."""
    return said(f"OTEL_EXPORTER_OTLP_{signal}_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL") or HTTP


def resource(process: str) -> Resource:
    """A process of this kind (api, worker); OTEL_SERVICE_NAME and OTEL_RESOURCE_ATTRIBUTES go before."""
    ours = {
        "service.name": f"riacho-{process}",
        "service.instance.id": _instance(),
        "service.version": version("riacho"),
    }
    said = os.environ.get("OTEL_RESOURCE_ATTRIBUTES", "")
    given = {pair.partition("=")[0].strip() for pair in said.split(",")}
    if os.environ.get("OTEL_SERVICE_NAME"):
        given.add("service.name")
    return Resource.create({name: value for name, value in ours.items() if name not in given})


@functools.cache
def _instance() -> str:
    """The same in all that this process tells of itself."""
    return str(uuid.uuid4())
