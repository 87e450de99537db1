"""What an operator does to queues, stages and dead letters, over HTTP; the words are those of the command line."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import aclosing
from typing import Any, Literal, TypeVar

import msgspec
from aiohttp import web

from api.problems import Problem, json, read_body
from pipeline import Broker, JobId, Pipeline, Stage
from pipeline.errors import BadInput, BadPayload, UnknownStage, did_you_mean
from pipeline.views import DeadLetter, WorkerView

LETTERS = 50  # in a page, unless asked for otherwise
MOST_LETTERS = 200
CLEAR_FOR = 20.0  # seconds; proxies and clients give up after 30, many of them

B = TypeVar("B", bound="Confirmation")


class Steered(msgspec.Struct):
    """The stages that were paused, resumed or drained."""

    stages: list[str]


class Cleared(msgspec.Struct, omit_defaults=True):
    """How many jobs were deleted; not `complete` where the time was over before all were."""

    cleared: int
    complete: bool = True


class Purged(msgspec.Struct):
    """How many dead letters were deleted."""

    purged: int


class Cancelled(msgspec.Struct, rename="camel"):
    """What became of a job that somebody wants cancelled; one that is `cancelling` may still finish."""

    job_id: str
    answer: Literal["cancelled", "cancelling"]


class Page(msgspec.Struct):
    """Dead letters without their payloads, the newest first; `next` is the `after` of the next page, if there is
    one."""

    letters: list[DeadLetter]
    next: str | None


class Workers(msgspec.Struct):
    """All workers that left a trace, whoever was heard of last first."""

    workers: list[WorkerView]


class Confirmation(msgspec.Struct, forbid_unknown_fields=True):
    """What is to be sent along with what cannot be undone: the queue's name once more."""

    confirm: str = ""
    stage: str = ""


class ToClear(Confirmation):
    """`active`: jobs that are with a worker, too."""

    active: bool = False


class OperatingEndpoints:
    def __init__(self, broker: Broker) -> None:
        self._broker = broker

    async def letters(self, request: web.Request) -> web.Response:
        """GET /queue/dead: a page of dead letters, of a queue, a stage, or all."""
        stages = chosen(self._broker.pipeline, request.query.get("queue", ""), request.query.get("stage", ""))
        after = request.query.get("after")
        page = await self._broker.newest_letters(stages, _limit(request), JobId.parse(after) if after else None)
        return json(Page(page.letters, str(page.next) if page.next else None))

    async def letter(self, request: web.Request) -> web.Response:
        """GET /queue/dead/{jobId}: one whole."""
        job_id = JobId.parse(request.match_info["job_id"])
        letter = await self._broker.dead_letter(job_id)
        if letter is None:
            raise Problem(404, "Not found", f"{job_id} is not among the dead letters.")
        return json(letter)

    async def clear(self, request: web.Request) -> web.Response:
        """POST /queue/clear/{queue}: step by step, while somebody waits for the answer and for 20 s at most; what
        is left is left, and asking again goes on."""
        asked, stages = await self._confirmed(request, ToClear)
        end = asyncio.get_running_loop().time() + CLEAR_FOR
        cleared = Cleared(0, complete=False)
        async with aclosing(self._broker.clearing(stages, active=asked.active)) as steps:
            async for count in steps:
                cleared.cleared += count
                if _gone(request) or asyncio.get_running_loop().time() > end:
                    return json(cleared)
        return json(Cleared(cleared.cleared))

    async def purge(self, request: web.Request) -> web.Response:
        """POST /queue/purge/{queue}."""
        _, stages = await self._confirmed(request, Confirmation)
        return json(Purged(await self._broker.purge(stages)))

    async def pause(self, request: web.Request) -> web.Response:
        """POST /queue/pause/{name}."""
        return await self._steer(request, self._broker.pause)

    async def resume(self, request: web.Request) -> web.Response:
        """POST /queue/resume/{name}."""
        return await self._steer(request, self._broker.resume)

    async def drain(self, request: web.Request) -> web.Response:
        """POST /queue/drain/{name}."""
        return await self._steer(request, self._broker.drain)

    async def cancel(self, request: web.Request) -> web.Response:
        """POST /queue/cancel/{jobId}."""
        job_id = JobId.parse(request.match_info["job_id"])
        return json(Cancelled(str(job_id), await self._broker.cancel(job_id)))

    async def workers(self, _: web.Request) -> web.Response:
        """GET /queue/workers."""
        return json(Workers(await self._broker.every_worker()))

    async def _steer(self, request: web.Request, steer: Callable[[list[Stage]], Awaitable[None]]) -> web.Response:
        stages = named(self._broker.pipeline, [request.match_info["name"]])
        await steer(stages)
        return json(Steered([stage.full_name for stage in stages]))

    async def _confirmed(self, request: web.Request, form: type[B]) -> tuple[B, list[Stage]]:
        """What was asked for, and the stages meant, once their queue was named twice. Raises Problem 400."""
        queue = request.match_info["queue"]
        asked = _read(await read_body(request), form)
        stages = chosen(self._broker.pipeline, queue, asked.stage)
        if asked.confirm != queue:
            wanted = msgspec.json.encode({"confirm": queue}).decode()
            detail = (
                f"This deletes for good, and asks to be confirmed: send the queue's name along, as in {wanted}"
            )
            raise Problem(400, "Not confirmed", detail)
        return asked, stages


def named(pipeline: Pipeline, names: Sequence[str]) -> list[Stage]:
    """The stages of these names, each once; a queue's name stands for all of its stages. Raises UnknownStage."""
    known = {stage.name: [stage] for stage in pipeline}
    known |= {queue: pipeline.queue(queue) for queue in pipeline.queues}
    for name in names:
        if name not in known:
            raise UnknownStage(f"no queue or stage '{name[:80]}'{did_you_mean(name, known)}")
    return list({stage.name: stage for name in names for stage in known[name]}.values())


def chosen(pipeline: Pipeline, queue: str = "", stage: str = "") -> list[Stage]:
    """The stage, or else all of the queue, or else all there are. Raises UnknownStage."""
    if stage:
        return [pipeline.find(queue, stage) if queue else pipeline.stage(stage)]
    return pipeline.queue(queue) if queue else list(pipeline)


def _limit(request: web.Request) -> int:
    given = request.query.get("limit", str(LETTERS))
    if given.isascii() and given.isdecimal() and len(given) < 9 and 1 <= int(given) <= MOST_LETTERS:
        return int(given)
    raise BadInput(f"limit = {given[:80]!r} is no number from 1 to {MOST_LETTERS}")


def _read(body: bytes, form: type[Any]) -> Any:
    try:
        return msgspec.json.decode(body or b"{}", type=form)
    except (ValueError, RecursionError) as error:  # bad UTF-8 in a string is no DecodeError
        raise BadPayload(f"the body is not what this takes: {error}") from None


def _gone(request: web.Request) -> bool:
    """Whether nobody waits for the answer any more."""
    return request.transport is None or request.transport.is_closing()
