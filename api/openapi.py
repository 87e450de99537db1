"""OpenAPI 3.1 made of the operations; its schemas are of the types that decode requests and encode answers."""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from importlib.metadata import version
from typing import Annotated, Any, NamedTuple

import msgspec

from api.operations import JSON, Answer, Bodies, Body, Either, Header, Many, Operation, Parameter
from api.problems import ProblemDetails

Part = dict[str, Any]

PROBLEM = "application/problem+json"
KEY = "key"
RETRY = Header("Retry-After", Annotated[int, msgspec.Meta(ge=1)], "In how many seconds to try again.")
CHALLENGE = Header("WWW-Authenticate", str, "Which key is wanted (RFC 6750).")
NAME = re.compile(r"\{(\w+)\}")
FIELD = re.compile(r"`(\w+)`")
ABOUT = (
    "Jobs go into queues and are worked by stages; see README.md. Times are milliseconds since the epoch, unless "
    "they are said to be seconds. Without API keys the service answers programs on its machine. Every error is "
    "an application/problem+json."
)
GROUPS = {
    "jobs": "Put jobs in, look at them, take them out.",
    "look": "Depths, rates, backpressure.",
    "dead letters": "Jobs that will not be tried again.",
    "schedules": "Jobs that come again and again.",
    "operate": "Pause, resume, drain, clear, test.",
    "webhooks": "What others tell us, signed.",
    "health": "For whoever runs the service.",
    "page": "For people.",
}


class Common(NamedTuple):
    """An error that many operations have."""

    name: str
    text: str
    header: Header | None = None


COMMON = {
    400: Common("BadRequest", "Something asked for cannot be; `detail` says what."),
    401: Common("Unauthorized", "There is no key, or none that is known.", CHALLENGE),
    403: Common(
        "Forbidden", "The key lacks the scope; where there are no keys, the caller is elsewhere.", CHALLENGE
    ),
    408: Common("TooSlow", "The body did not arrive in time."),
    413: Common("TooLarge", "The body is larger than is taken."),
    429: Common("TooMany", "The key is over its limit of requests.", RETRY),
    503: Common("Unavailable", "Redis does not answer.", RETRY),
}


class Undescribed(Exception):
    """An operation that does not say all of it."""


def document(operations: Sequence[Operation]) -> Part:
    """The OpenAPI document. Raises Undescribed."""
    for operation in operations:
        _check(operation)
    schemas = Schemas(_forms(operations))
    paths: dict[str, Part] = {}
    for operation in operations:
        for path, part in _spelled_out(operation, schemas):
            paths.setdefault(path, {})[operation.method.lower()] = part
    scheme = {"type": "http", "scheme": "bearer", "description": "An API key, as `riacho key new` makes one."}
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Riacho",
            "version": version("riacho"),
            "description": ABOUT,
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "/"}],
        "tags": [{"name": name, "description": text} for name, text in GROUPS.items()],
        "paths": paths,
        "components": {
            "schemas": schemas.components,
            "responses": {each.name: _problem(each.text, each.header, schemas) for each in COMMON.values()},
            "securitySchemes": {KEY: scheme},
        },
    }


class Schemas:
    """The JSON Schemas of forms, with those of structs by name."""

    def __init__(self, forms: Iterable[Any]) -> None:
        self._forms = list(forms)  # kept, as they are known by identity: not all of them can be hashed
        made, components = msgspec.json.schema_components(self._forms, ref_template="#/components/schemas/{name}")
        self._made = {id(form): _told(schema) for form, schema in zip(self._forms, made, strict=True)}
        self.components = {name: _told(schema) for name, schema in sorted(components.items())}

    def of(self, form: Any) -> Part:
        """The schema of one of the forms."""
        if isinstance(form, Either):
            return {"anyOf": [self.of(each) for each in form.forms]}
        if isinstance(form, Many):
            return {"type": "array", "items": self.of(form.item)}
        return dict(self._made[id(form)])


def _told(schema: Any) -> Any:
    """msgspec's schema, more exactly: of structs with a tag one fits and no other, and a tag is a constant."""
    if isinstance(schema, list):
        return [_told(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    told = {key: _told(value) for key, value in schema.items()}
    if "discriminator" in told:
        told["oneOf"] = told.pop("anyOf")
    if isinstance(told.get("enum"), list) and len(told["enum"]) == 1:
        told |= {"type": "string", "const": told.pop("enum")[0]}
    if isinstance(told.get("description"), str):
        told["description"] = _text(told["description"], told.get("properties", {}))
    return told


def _text(docstring: str, properties: Mapping[str, Any]) -> str:
    """A docstring for readers of JSON, where fields have the names that go over the wire."""

    def in_json(found: re.Match[str]) -> str:
        first, *others = found[1].split("_")
        name = first + "".join(word.capitalize() for word in others)
        return f"`{name if name in properties else found[1]}`"

    paragraphs = [" ".join(each.split()) for each in docstring.split("\n\n")]
    return FIELD.sub(in_json, "\n\n".join(paragraphs))


def _check(operation: Operation) -> None:
    described = {parameter.name for parameter in operation.parameters if parameter.where == "path"}
    if described != set(NAME.findall(operation.template)):
        raise Undescribed(f"{operation.method} {operation.path} describes the parameters {sorted(described)}")
    if operation.group not in GROUPS or not (operation.summary and operation.answers):
        raise Undescribed(f"{operation.method} {operation.path} lacks a known group, a summary, or answers")


def _forms(operations: Iterable[Operation]) -> Iterator[Any]:
    yield from (ProblemDetails, RETRY.form, CHALLENGE.form)
    for operation in operations:
        for form in _forms_of(operation):
            yield from _leaves(form)


def _forms_of(operation: Operation) -> Iterator[Any]:
    yield from (parameter.form for parameter in operation.parameters)
    yield from (body.form for _, body in _bodies(operation) if body)
    for answer in operation.answers.values():
        if answer.form is not None:
            yield answer.form
        yield from (header.form for header in answer.headers)


def _leaves(form: Any) -> Iterator[Any]:
    if isinstance(form, Either):
        for each in form.forms:
            yield from _leaves(each)
    elif isinstance(form, Many):
        yield from _leaves(form.item)
    else:
        yield form


def _bodies(operation: Operation) -> Iterator[tuple[str, Body | None]]:
    """Bodies by the value of a parameter, where they hang on one."""
    if isinstance(operation.body, Bodies):
        yield from operation.body.of.items()
    else:
        yield "", operation.body


def _spelled_out(operation: Operation, schemas: Schemas) -> Iterator[tuple[str, Part]]:
    """An operation by path: one, or one for each body."""
    by = operation.body.by if isinstance(operation.body, Bodies) else ""
    for value, body in _bodies(operation):
        path = operation.template.replace(f"{{{by}}}", value) if by else operation.template
        parameters = [parameter for parameter in operation.parameters if parameter.name != by]
        yield path, _operation(operation, value, parameters, body, schemas)


def _operation(
    operation: Operation, value: str, parameters: Sequence[Parameter], body: Body | None, schemas: Schemas
) -> Part:
    name = operation.name + "".join(word.capitalize() for word in value.split("-"))
    part: Part = {"operationId": name, "tags": [operation.group], "summary": operation.summary}
    if operation.description:
        part["description"] = operation.description
    if parameters:
        part["parameters"] = [_parameter(parameter, schemas) for parameter in parameters]
    if body:
        part["requestBody"] = _body(body, schemas)
    good = {str(status): _answer(answer, schemas) for status, answer in operation.answers.items()}
    bad: dict[int, Part] = {status: _common(status) for status in _implied(operation, body)}
    for status, text in operation.problems.items():
        header = COMMON[status].header if operation.scope and status in COMMON else None
        bad[status] = _problem(text, header, schemas)
    part["responses"] = good | {str(status): bad[status] for status in sorted(bad)}
    part["security"] = [{KEY: [operation.scope]}] if operation.scope else []
    return part


def _parameter(parameter: Parameter, schemas: Schemas) -> Part:
    part = {
        "name": parameter.name,
        "in": parameter.where,
        "description": parameter.description,
        "required": parameter.where == "path",
        "schema": schemas.of(parameter.form),
    }
    return part | ({} if parameter.example is None else {"example": parameter.example})


def _body(body: Body, schemas: Schemas) -> Part:
    examples = {name: {"value": value} for name, value in body.examples.items()}
    content = {"schema": schemas.of(body.form)} | ({"examples": examples} if examples else {})
    return {"required": body.required, "content": {JSON: content}}


def _answer(answer: Answer, schemas: Schemas) -> Part:
    part: Part = {"description": answer.description}
    if answer.headers:
        part["headers"] = {header.name: _header(header, schemas) for header in answer.headers}
    if answer.form is not None:
        content = {"schema": schemas.of(answer.form)}
        if answer.example is not None:
            content["example"] = answer.example
        part["content"] = dict.fromkeys(answer.content_types, content)
    return part


def _header(header: Header, schemas: Schemas) -> Part:
    return {"description": header.description, "required": header.fixed, "schema": schemas.of(header.form)}


def _problem(text: str, header: Header | None, schemas: Schemas) -> Part:
    part: Part = {"description": text, "content": {PROBLEM: {"schema": schemas.of(ProblemDetails)}}}
    return part | ({"headers": {header.name: _header(header, schemas)}} if header else {})


def _common(status: int) -> Part:
    return {"$ref": f"#/components/responses/{COMMON[status].name}"}


def _implied(operation: Operation, body: Body | None) -> Iterator[int]:
    """The errors that an operation has as many others have them."""
    if operation.parameters or body:
        yield 400
    if body:
        yield from (408, 413)
    if operation.scope:
        yield from (401, 403, 429)
    if operation.asks_redis:
        yield 503
