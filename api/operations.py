"""What an operation over HTTP is: who may call it, what goes in, what comes out.

A route is made of one of these and of nothing else (`Access.route`), and so is its part of /openapi.json.
"""

import re
from collections.abc import Awaitable, Callable, Mapping
from typing import Annotated, Any, Literal, NamedTuple

import msgspec
from aiohttp import web

from config.settings import Scope
from pipeline.message import JOB_ID

JSON = "application/json"
# By status: what a stage answers that takes no job just now.
REFUSALS = {
    429: "The stage is full, or the key over its limit.",
    503: "The stage is drained, the server's memory full, or Redis away.",
}
PATTERN = re.compile(r"\{(\w+):[^{}]+\}")  # {name:pattern} in a path


class Either(NamedTuple):
    """One of several forms, which their fields tell apart."""

    forms: tuple[Any, ...]


class Many(NamedTuple):
    """A list of one form."""

    item: Any


class Parameter(msgspec.Struct, frozen=True, kw_only=True):
    """What is asked for beside the body; `form` is a type that msgspec has a schema for."""

    name: str
    where: Literal["path", "query", "header"]
    form: Any
    description: str
    example: Any = None


class Body(msgspec.Struct, frozen=True, kw_only=True):
    """What is sent as JSON. `examples` are by what they show."""

    form: Any
    examples: Mapping[str, Any] = {}
    required: bool = True


class Bodies(msgspec.Struct, frozen=True):
    """A body for each value that the parameter `by` of the path may have; the document has a path for each."""

    by: str
    of: Mapping[str, Body]


class Header(msgspec.Struct, frozen=True):
    """A header of an answer; a `fixed` one is on each of them."""

    name: str
    form: Any
    description: str
    fixed: bool = False


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """A good answer; without a form it has no body. Where it has one of several content types, it is a text."""

    description: str
    form: Any = None
    content_types: tuple[str, ...] = (JSON,)
    headers: tuple[Header, ...] = ()
    example: Any = None


class Operation(msgspec.Struct, frozen=True, kw_only=True):
    """One method on one path. `scope` is what a key needs; None: anybody may call it, as it checks by itself, or
    tells nothing.

    `problems` are its errors by status, beside those that the rest of this implies: bad input, no key, no Redis
    (`asks_redis`). `head`: HEAD is answered, too, where the method is GET.
    """

    method: Literal["GET", "POST"]
    path: str
    handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    scope: Scope | None
    group: str
    name: str
    summary: str
    answers: Mapping[int, Answer]
    description: str = ""
    parameters: tuple[Parameter, ...] = ()
    body: Body | Bodies | None = None
    problems: Mapping[int, str] = {}
    asks_redis: bool = True
    head: bool = True

    @property
    def template(self) -> str:
        """The path with its parameters' names alone."""
        return PATTERN.sub(r"{\1}", self.path)

    @property
    def route(self) -> web.RouteDef:
        """As the application takes it."""
        if self.method == "GET":
            return web.get(self.path, self.handler, allow_head=self.head)
        return web.post(self.path, self.handler)


def in_path(name: str, form: Any, description: str, example: Any = None) -> Parameter:
    """A part of the path."""
    return Parameter(name=name, where="path", form=form, description=description, example=example)


def in_query(name: str, form: Any, description: str, example: Any = None) -> Parameter:
    """A part of the query, which may be missing."""
    return Parameter(name=name, where="query", form=form, description=description, example=example)


def one_of(*values: str) -> Any:
    """The type of these words."""
    return Literal[values]


# Digits are ASCII ones; in a schema that is to be said.
DIGITS = JOB_ID.pattern.replace(r"\d", "[0-9]")
AJobId = Annotated[str, msgspec.Meta(pattern=f"^{DIGITS}$")]


def of_job(description: str) -> Parameter:
    """The id of a job, in the path."""
    return in_path("jobId", AJobId, description, "send-client.0.1795363715263-0")
