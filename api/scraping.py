"""Where Prometheus finds a worker's figures: /metrics on a port of its own, and nothing else."""

import logging
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import msgspec
from aiohttp import web
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4

from api.headers import add_safe_headers
from api.problems import answer_with_problems
from api.serving import Runner
from config import Settings

log = logging.getLogger(__name__)

CONNECTIONS = 16  # at a time
READ_TIMEOUT = 5.0  # seconds for the head of a request


@asynccontextmanager
async def scraped(settings: Settings, registry: CollectorRegistry | None) -> AsyncIterator[bool]:
    """Serve this process's figures while it lasts. Where there are none, or the port is not to be had, that is
    said aloud, and is no reason not to work: then it is False."""
    if registry is None:
        if settings.metrics.port:
            log.warning("there is no /metrics: OTEL_SDK_DISABLED is set")
        yield False
        return
    bounds = msgspec.structs.replace(settings.http, connections=CONNECTIONS, read_timeout=READ_TIMEOUT)
    runner = Runner(_app(registry), bounds)
    await runner.setup()
    try:
        yield await _listen(runner, settings.metrics.host, settings.metrics.port)
    finally:
        await runner.cleanup()


async def _listen(runner: Runner, host: str, port: int) -> bool:
    try:
        await web.TCPSite(runner, host, port).start()
    except (OSError, UnicodeError) as error:
        number = error.errno if isinstance(error, OSError) else None
        why = os.strerror(number) if number and number > 0 else str(error)
        log.error(
            "NOBODY CAN WATCH THIS WORKER, which works on: cannot serve /metrics on %s:%d (%s); set "
            "RIACHO_METRICS_PORT to the first of as many free ports as there are worker processes here, or to 0",
            *(host, port, why),
        )
        return False
    log.info("figures on http://%s:%d/metrics", f"[{host}]" if ":" in host else host, port)
    return True


def _app(registry: CollectorRegistry) -> web.Application:
    async def metrics(_: web.Request) -> web.Response:
        return web.Response(body=generate_latest(registry), headers={"Content-Type": CONTENT_TYPE_PLAIN_0_0_4})

    app = web.Application(middlewares=[answer_with_problems], client_max_size=1)
    app.on_response_prepare.append(add_safe_headers)
    app.add_routes([web.get("/metrics", metrics)])
    return app
