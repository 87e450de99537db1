"""What the HTTP requests that stages make have in common: spans, and answers of a bounded size."""

import functools
from types import SimpleNamespace
from typing import Any

import aiohttp
from opentelemetry.trace import SpanKind

from pipeline import conventions as names
from pipeline import telemetry

CLIENT_ERROR = 400
CHUNK = 65_536  # bytes


def session(
    peer: str, timeout: aiohttp.ClientTimeout, connector: aiohttp.BaseConnector, accept: str = "*/*"
) -> aiohttp.ClientSession:
    """To ask for several tenants, with a span for each request. What one is answered sets nothing for the next
    (cookies), nothing is unpacked (it could be any size), and no proxy that nobody named sees keys, or connects
    for us."""
    return aiohttp.ClientSession(
        connector=connector,
        timeout=timeout,
        cookie_jar=aiohttp.DummyCookieJar(),
        auto_decompress=False,
        headers={"Accept-Encoding": "identity", "Accept": accept},
        trust_env=False,
        trace_configs=traced(peer),
    )


class TooLarge(Exception):
    """What comes is more than may come."""


async def body_of(answer: aiohttp.ClientResponse, limit: int) -> bytes:
    """The body, of at most so many bytes. Raises TooLarge, without reading on."""
    content = bytearray()
    async for chunk in answer.content.iter_chunked(CHUNK):
        content += chunk
        if len(content) > limit:
            raise TooLarge(f"over the limit of {limit:,} bytes")
    return bytes(content)


def traced(peer: str) -> list[aiohttp.TraceConfig]:
    """What a ClientSession takes (`trace_configs`) to have a span for each request to `peer`, up to its answer's
    head. It has no more of the address than its host: there may be a signature in a query, and a customer in a
    path. Nor is the trace told to whoever is asked, as most are none of ours."""
    if not telemetry.enabled():
        return []
    config = aiohttp.TraceConfig()
    config.on_request_start.append(functools.partial(_begin, peer))
    config.on_request_end.append(_end)
    config.on_request_exception.append(_fail)
    return [config]


async def _begin(
    peer: str, _: aiohttp.ClientSession, kept: SimpleNamespace, of: aiohttp.TraceRequestStartParams
) -> None:
    address = {names.HOST: of.url.host or "", names.PORT: of.url.port or 0}
    attributes: dict[str, Any] = {names.METHOD: of.method, names.PEER: peer, **address}
    kept.span = telemetry.start(f"{of.method} {peer}", SpanKind.CLIENT, attributes)


async def _end(_: aiohttp.ClientSession, kept: SimpleNamespace, of: aiohttp.TraceRequestEndParams) -> None:
    status = of.response.status
    kept.span.set_attribute(names.STATUS, status)
    if status >= CLIENT_ERROR:
        telemetry.fail(kept.span, str(status))
    kept.span.end()


async def _fail(_: aiohttp.ClientSession, kept: SimpleNamespace, of: aiohttp.TraceRequestExceptionParams) -> None:
    telemetry.fail(kept.span, type(of.exception).__name__)
    kept.span.end()
