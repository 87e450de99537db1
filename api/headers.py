"""Headers that keep a browser from making more of an answer than it is."""

from aiohttp import web

SAFE = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    # Answers tell of jobs: neither browsers nor proxies are to keep them. A page sets its own of these two.
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
}

# Only over TLS: it tells browsers never to come without again, for a year.
SAFE_OVER_TLS = SAFE | {"Strict-Transport-Security": "max-age=31536000"}


def safe_headers(scheme: str) -> dict[str, str]:
    """Those of every answer, by the request's scheme."""
    return SAFE_OVER_TLS if scheme == "https" else SAFE


async def add_safe_headers(request: web.BaseRequest, response: web.StreamResponse) -> None:
    """A signal of aiohttp (on_response_prepare); what a handler has set goes before."""
    for name, value in safe_headers(request.scheme).items():
        response.headers.setdefault(name, value)
