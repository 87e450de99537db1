"""Errors as application/problem+json (RFC 9457)."""

import asyncio
import logging
import math
from collections.abc import Awaitable, Callable

import msgspec
from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError

from pipeline import Stage
from pipeline.errors import (
    BadInput,
    JobUnknown,
    RiachoError,
    ServerUnavailable,
    UnknownSchedule,
    UnknownStage,
)
from pipeline.message import Refusal

log = logging.getLogger(__name__)

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

RETRY_AFTER = {"Retry-After": "1"}
READ_TIMEOUT = web.AppKey("read_timeout", float)  # seconds a client may take to send a body


class ProblemDetails(msgspec.Struct, frozen=True):
    """What went wrong (RFC 9457): the status once more, and for a person what was wrong and what to do."""

    title: str
    status: int
    detail: str
    type: str


class Problem(Exception):
    """Raised by a handler to answer with this status and, for a person, what was wrong and what to do."""

    def __init__(self, status: int, title: str, detail: str, headers: dict[str, str] | None = None) -> None:
        super().__init__(detail)
        self.status, self.title, self.detail = status, title, detail
        self.headers = headers or {}

    @property
    def details(self) -> ProblemDetails:
        return ProblemDetails(self.title, self.status, self.detail, "about:blank")

    @property
    def body(self) -> bytes:
        return msgspec.json.encode(self.details)

    @property
    def all_headers(self) -> dict[str, str]:
        return {"Content-Type": "application/problem+json", **self.headers}

    def response(self) -> web.Response:
        return web.Response(status=self.status, body=self.body, headers=self.all_headers)


async def read_body(request: web.Request) -> bytes:
    """The whole body. Raises Problem where it does not come in time, or cannot be unpacked."""
    timeout = request.app[READ_TIMEOUT]
    try:
        async with asyncio.timeout(timeout):
            return await request.read()
    except TimeoutError:
        detail = f"The body did not arrive within {timeout:g} s."
        raise Problem(408, "Request timeout", detail, {"Connection": "close"}) from None
    except (HttpProcessingError, web.RequestPayloadError) as error:
        raise Problem(400, "Bad request", f"The body cannot be unpacked: {error}") from None


def problem_of(error: RiachoError) -> Problem:
    """The engine's errors as HTTP."""
    match error:
        case UnknownStage() | UnknownSchedule() | JobUnknown():
            return Problem(404, "Not found", str(error))
        case BadInput():
            return Problem(400, "Bad request", str(error))
        case ServerUnavailable():
            log.error("%s", error)
            return Problem(503, "Service unavailable", "The queue's server does not answer.", RETRY_AFTER)
        case _:
            log.error("%s", error)
            return Problem(500, "Internal error", "The service is set up wrongly; its log says how.")


def unexpected(error: BaseException, what: str = "a request") -> Problem:
    """An error of ours, which the log tells more of."""
    log.error("%s failed", what, exc_info=error)
    return Problem(500, "Internal error", "Something went wrong; the service's log says what.")


def problem_of_refusal(stage: Stage, refusal: Refusal) -> Problem:
    """A job that a stage did not take, and when it is worth offering again."""
    # In whole seconds, as the header wants it, and never 0: that would ask for it again at once.
    headers = {"Retry-After": str(max(1, math.ceil(refusal.wait)))}
    holds = f"{refusal.depth:,} unfinished jobs"
    match refusal.reason:
        case "full":
            detail = f"{stage.full_name} holds {holds}, {stage.fullness(refusal.depth)}."
            return Problem(429, "Too many requests", detail, headers)
        case "draining":
            detail = f"{stage.full_name} is being drained: it takes no new jobs and holds {holds}."
        case "memory":
            detail = "The memory of the queue's server is nearly full."
    return Problem(503, "Service unavailable", detail, headers)


def json(data: object, *, status: int = 200, headers: dict[str, str] | None = None) -> web.Response:
    """A JSON response."""
    body = msgspec.json.encode(data)
    return web.Response(status=status, body=body, content_type="application/json", headers=headers)


@web.middleware
async def answer_with_problems(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Every error that reaches a client has the same form, and none says more than it should."""
    try:
        return await handler(request)
    except Problem as problem:
        return problem.response()
    except RiachoError as error:
        return problem_of(error).response()
    except web.HTTPRequestEntityTooLarge:
        limit = request.client_max_size
        return Problem(413, "Payload too large", f"The body is over the limit of {limit:,} bytes.").response()
    except web.HTTPException as error:
        detail = f"{request.method} {request.path[:200]}: {error.reason}"
        allow = {"Allow": error.headers["Allow"]} if "Allow" in error.headers else {}
        return Problem(error.status, error.reason, detail, allow).response()
    except Exception as error:  # noqa: BLE001 - it is logged
        return unexpected(error, f"{request.method} {request.path}").response()
