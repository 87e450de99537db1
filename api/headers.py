"""Headers that keep a browser from making more of an answer than it is."""

from aiohttp import web

SAFE = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    # Answers tell of jobs: neither browsers nor proxies are to keep them. A page sets its own of these two.
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
}


async def add_safe_headers(_: web.BaseRequest, response: web.StreamResponse) -> None:
    """A signal of aiohttp (on_response_prepare); what a handler has set goes before."""
    for name, value in SAFE.items():
        response.headers.setdefault(name, value)
