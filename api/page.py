"""The live page: the files in api/page/. It holds no data: the browser asks for what it shows."""

import hashlib
from importlib.resources import files
from importlib.resources.abc import Traversable

import msgspec
from aiohttp import web

INDEX = "index.html"
SETTINGS = "settings.json"
TYPES = {".html": "text/html", ".css": "text/css", ".js": "text/javascript"}
# Nothing but our own files and endpoints: no inline script or style, no form that leaves, no frame.
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; "
    "form-action 'none'; base-uri 'none'; frame-ancestors 'none'"
)


class PageSettings(msgspec.Struct, frozen=True, rename="camel"):
    """What the page is told: the address of a trace, with {traceId} in it, or empty."""

    trace_url: str = ""


class File(msgspec.Struct, frozen=True):
    """A file as it is served."""

    body: bytes
    content_type: str
    etag: str


class Page:
    """Serves the page's files, read once, and no others."""

    def __init__(self, settings: PageSettings) -> None:
        self._files = {item.name: _read(item) for item in (files("api") / "page").iterdir() if _served(item)}
        self._files[SETTINGS] = _file(msgspec.json.encode(settings), "application/json")

    @property
    def names(self) -> frozenset[str]:
        """The files that there are."""
        return frozenset(self._files)

    async def index(self, request: web.Request) -> web.Response:
        """GET /."""
        return _answer(request, self._files[INDEX])

    async def file(self, request: web.Request) -> web.Response:
        """GET /page/{file}."""
        found = self._files.get(request.match_info["file"])
        if found is None:
            raise web.HTTPNotFound
        return _answer(request, found)


def _served(item: Traversable) -> bool:
    return any(item.name.endswith(suffix) for suffix in TYPES)


def _read(item: Traversable) -> File:
    return _file(item.read_bytes(), TYPES["." + item.name.rpartition(".")[2]])


def _file(body: bytes, content_type: str) -> File:
    return File(body, content_type, hashlib.sha256(body).hexdigest()[:32])


def _answer(request: web.Request, file: File) -> web.Response:
    """The file, or 304 where the browser has this version: it asks each time, so an update shows at once."""
    headers = {"ETag": f'"{file.etag}"', "Cache-Control": "no-cache", "Content-Security-Policy": POLICY}
    if any(known.value in (file.etag, "*") for known in request.if_none_match or ()):
        return web.Response(status=304, headers=headers)
    return web.Response(body=file.body, content_type=file.content_type, charset="utf-8", headers=headers)
