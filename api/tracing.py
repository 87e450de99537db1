"""Spans of the requests that change something. Those that only look have none: an open page would fill Jaeger."""

from aiohttp import web
from opentelemetry.trace import Span, SpanKind

from api.access import CALLER
from api.problems import Handler, answer_with_problems
from pipeline import conventions as names
from pipeline import telemetry

SERVER_ERROR = 500


def begin(route: str, parent: str = "") -> Span:
    """The span of a POST, below that of its client where it sent one (`parent`, a traceparent)."""
    attributes = {names.METHOD: "POST", names.ROUTE: route}
    return telemetry.start(f"POST {route}", SpanKind.SERVER, attributes, parent=parent)


def end(span: Span, status: int) -> None:
    """It is answered."""
    span.set_attribute(names.STATUS, status)
    if status >= SERVER_ERROR:
        telemetry.fail(span, str(status))
    span.end()


@web.middleware
async def trace_posts(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Middleware, within the one that lets requests in: whoever is not known here starts no trace by asking, and
    continues none."""
    resource = request.match_info.route.resource
    if request.method != "POST" or resource is None:
        return await handler(request)
    parent = request.headers.get("traceparent", "") if CALLER in request else ""
    span = begin(resource.canonical, parent)
    try:
        with telemetry.Below(span):
            response = await answer_with_problems(request, handler)
    except BaseException:  # the client is gone
        span.end()
        raise
    end(span, response.status)
    return response
