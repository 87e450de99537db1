"""/openapi.json as a test reads it: whether an answer is as it says."""

import re
from functools import cache, cached_property
from typing import Any

import jsonschema_rs
import msgspec
from aiohttp import web

from api.problems import Handler

Part = dict[str, Any]


class Document:
    """An OpenAPI document."""

    def __init__(self, body: Part) -> None:
        self.body = body
        self._validators: dict[str, Any] = {}

    @cached_property
    def operations(self) -> dict[tuple[str, str], Part]:
        """Every operation by its method and path."""
        return {
            (method.upper(), path): operation
            for path, item in self.body["paths"].items()
            for method, operation in item.items()
        }

    @cached_property
    def _strict(self) -> Part:
        schemas = self.body["components"]["schemas"]
        closed = {name: {"additionalProperties": False} | schema for name, schema in schemas.items()}
        return {**self.body["components"], "schemas": closed}

    def find(self, method: str, path: str) -> Part | None:
        """The operation that a request is for: of two paths the one with fewer parameters."""
        paths = sorted(self.body["paths"], key=lambda each: each.count("{"))
        for known in paths:
            if re.fullmatch(re.sub(r"\\\{\w+\\\}", "[^/]+", re.escape(known)), path):
                return self.operations.get((method, known))
        return None

    def resolved(self, part: Part) -> Part:
        """A part, or what it refers to."""
        if "$ref" not in part:
            return part
        found = self.body
        for name in part["$ref"].removeprefix("#/").split("/"):
            found = found[name]
        return found

    def errors(self, schema: Part, value: Any) -> list[str]:
        """What about a value is not as the schema has it; a field that is not described is wrong here."""
        whole = {**schema, "components": self._strict}
        key = repr(schema)
        if key not in self._validators:
            self._validators[key] = jsonschema_rs.Draft202012Validator(whole)
        return [f"{error.instance_path}: {error.message}" for error in self._validators[key].iter_errors(value)]

    def mismatch(self, method: str, path: str, status: int, content_type: str, body: Any) -> str:
        """What about an answer is not as the document has it; empty, if nothing is. `body` is JSON or text."""
        operation = self.find(method, path)
        if status == 500:  # which no operation has; a test that brings one about says so
            return "; ".join(self.errors({"$ref": "#/components/schemas/ProblemDetails"}, body))
        if operation is None:
            return "" if status in {404, 405} else f"{status}, and there is no such operation"
        if str(status) not in operation["responses"]:
            return f"{status} is not among {list(operation['responses'])}"
        content = self.resolved(operation["responses"][str(status)]).get("content", {})
        if not content:
            return "a body, where none is" if body else ""
        if content_type not in content:
            return f"{content_type!r} is not among {list(content)}"
        return "; ".join(self.errors(content[content_type]["schema"], body))


@cache
def read(body: bytes) -> Document:
    """The document in these bytes."""
    return Document(msgspec.json.decode(body))


class Kept:
    """Looks at the answers of a service: `broken` is what was not as its document has it, `failed` the bodies of
    those that are 5xx."""

    def __init__(self, document: Document) -> None:
        self.document = document
        self.broken: list[str] = []
        self.failed: list[Any] = []

    @web.middleware
    async def look(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Middleware, to be the outermost."""
        response = await handler(request)
        if isinstance(response, web.Response) and request.method != "HEAD":
            kind = response.headers.get("Content-Type", "")
            body = response.body if isinstance(response.body, bytes) else b""
            value = msgspec.json.decode(body) if "json" in kind else body.decode(errors="replace")
            if response.status >= 500:
                self.failed.append(value)
            if wrong := self.document.mismatch(request.method, request.path, response.status, kind, value):
                self.broken.append(f"{request.method} {request.path}: {wrong}")
        return response


KEPT = web.AppKey("kept", Kept)


def invalid(document: Part) -> list[str]:
    """What about a document is not OpenAPI 3.1, by the meta-schema of its authors."""
    from schemathesis.specs.openapi import definitions

    return [
        f"{error.instance_path}: {error.message}"
        for error in definitions.OPENAPI_31_VALIDATOR.iter_errors(document)
    ]
