"""The live page, and that of the document: the files in api/page/. They hold no data: the browser asks for what it
shows."""

import hashlib
from importlib.resources import files
from importlib.resources.abc import Traversable
from typing import Any

import msgspec
from aiohttp import web

from api.operations import Answer, Header, Operation, Parameter, in_path, one_of

INDEX, DOCS = "index.html", "docs.html"
SETTINGS = "settings.json"
TYPES = {".html": "text/html", ".css": "text/css", ".js": "text/javascript"}
# Nothing but our own files and endpoints: no inline script or style, no form that leaves, no frame.
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; "
    "form-action 'none'; base-uri 'none'; frame-ancestors 'none'"
)


HTML = "text/html; charset=utf-8"
KNOWN = Parameter(
    name="If-None-Match",
    where="header",
    form=str,
    description="The ETag of the version that is already there.",
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
        self._files[SETTINGS] = file_of(msgspec.json.encode(settings), "application/json")

    @property
    def names(self) -> frozenset[str]:
        """The files that there are."""
        return frozenset(self._files)

    def operations(self) -> list[Operation]:
        """Everything that is here, as it is reached over HTTP."""
        common: dict[str, Any] = {"method": "GET", "scope": None, "group": "page", "asks_redis": False}
        kinds = tuple(f"{kind}; charset=utf-8" for kind in (*TYPES.values(), "application/json"))
        names = one_of(*sorted(self.names))
        return [
            Operation(
                **common,
                path="/",
                handler=self.index,
                name="page",
                summary="The live page",
                parameters=(KNOWN,),
                answers=file_answers(HTML),
            ),
            Operation(
                **common,
                path="/docs",
                handler=self.docs,
                name="docs",
                summary="This document, to be read",
                parameters=(KNOWN,),
                answers=file_answers(HTML),
            ),
            Operation(
                **common,
                path="/page/{file}",
                handler=self.file,
                name="pageFile",
                summary="A file of the pages",
                parameters=(in_path("file", names, "Its name.", "page.css"), KNOWN),
                answers=file_answers(*kinds, form=Any),
                problems={404: "No such file."},
            ),
        ]

    async def index(self, request: web.Request) -> web.Response:
        """GET /."""
        return answer(request, self._files[INDEX])

    async def docs(self, request: web.Request) -> web.Response:
        """GET /docs."""
        return answer(request, self._files[DOCS])

    async def file(self, request: web.Request) -> web.Response:
        """GET /page/{file}."""
        found = self._files.get(request.match_info["file"])
        if found is None:
            raise web.HTTPNotFound
        return answer(request, found)


def file_answers(*content_types: str, form: Any = str) -> dict[int, Answer]:
    """How `answer` answers."""
    etag = Header("ETag", str, "The version.", fixed=True)
    return {
        200: Answer(description="The file.", form=form, content_types=content_types, headers=(etag,)),
        304: Answer(description="The version that is there is the newest.", headers=(etag,)),
    }


def _served(item: Traversable) -> bool:
    return any(item.name.endswith(suffix) for suffix in TYPES)


def _read(item: Traversable) -> File:
    return file_of(item.read_bytes(), TYPES["." + item.name.rpartition(".")[2]])


def file_of(body: bytes, content_type: str) -> File:
    """Bytes as they are served."""
    return File(body, content_type, hashlib.sha256(body).hexdigest()[:32])


def answer(request: web.Request, file: File) -> web.Response:
    """The file, or 304 where the browser has this version: it asks each time, so an update shows at once."""
    headers = {"ETag": f'"{file.etag}"', "Cache-Control": "no-cache", "Content-Security-Policy": POLICY}
    if any(known.value in (file.etag, "*") for known in request.if_none_match or ()):
        return web.Response(status=304, headers=headers)
    return web.Response(body=file.body, content_type=file.content_type, charset="utf-8", headers=headers)
