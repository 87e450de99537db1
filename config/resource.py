"""What a process is to whoever gets its traces and figures."""

import functools
import os
import uuid
from importlib.metadata import version

from opentelemetry.sdk.resources import Resource


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
