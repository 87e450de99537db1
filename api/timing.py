"""How long requests take, by route; without an SDK set up nobody measures."""

import time

from aiohttp import web
from opentelemetry.metrics import Meter

from api.problems import Handler
from pipeline import conventions as names
from pipeline import metrics

METHODS = {"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"}

Attributes = dict[str, str | int]


def http_figures() -> "HttpFigures | None":
    """What to tell of requests, if anybody wants to know."""
    return HttpFigures(metrics.meter()) if metrics.provider() else None


class HttpFigures:
    """A request that matches no route is told of without one: anybody can make paths up."""

    def __init__(self, meter: Meter) -> None:
        self._duration = metrics.duration(
            meter, "http.server.request.duration", "From a request's head to the end of its answer."
        )
        self._known: dict[tuple[str, str, int], Attributes] = {}

    @web.middleware
    async def measure(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Middleware, around all others. Of a client that went away nothing is told."""
        started = time.monotonic()
        response = await handler(request)
        resource = request.match_info.route.resource
        self.took(request.method, resource.canonical if resource else "", response.status, started)
        return response

    def took(self, method: str, route: str, status: int, started: float) -> None:
        """A request that came at `started`, on the monotonic clock, is answered."""
        method = method if method in METHODS else metrics.OTHER
        about = self._known.get((method, route, status))
        if about is None:
            about = self._known[method, route, status] = _attributes(method, route, status)
        self._duration.record(time.monotonic() - started, about)


def _attributes(method: str, route: str, status: int) -> Attributes:
    found: Attributes = {names.METHOD: method, names.STATUS: status}
    return found | ({names.ROUTE: route} if route else {})
