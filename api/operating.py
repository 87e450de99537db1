"""What an operator does to queues, stages and dead letters, over HTTP; the words are those of the command line."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import aclosing
from typing import Annotated, Any, Literal, TypeVar

import msgspec
from aiohttp import web

from api.operations import AJobId, Answer, Body, Operation, in_path, in_query, of_job, one_of
from api.problems import Handler, Problem, json, read_body
from pipeline import Broker, JobId, Pipeline, Stage
from pipeline.errors import BadInput, BadPayload, UnknownStage, did_you_mean
from pipeline.views import DeadLetter, WorkerView

LETTERS = 50  # in a page, unless asked for otherwise
MOST_LETTERS = 200
CLEAR_FOR = 20.0  # seconds; proxies and clients give up after 30, many of them

NO_QUEUE = {404: "No such queue or stage."}

B = TypeVar("B", bound="Confirmation")
PageSize = Annotated[int, msgspec.Meta(ge=1, le=MOST_LETTERS)]


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


class DeadLetters(msgspec.Struct):
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

    def operations(self) -> list[Operation]:
        """Everything that is here, as it is reached over HTTP."""
        return [*self._looking(), *self._deleting(), *self._steering()]

    def _looking(self) -> list[Operation]:
        pipeline = self._broker.pipeline
        stages = one_of("", *(stage.name for stage in pipeline))
        return [
            Operation(
                method="GET",
                path="/queue/workers",
                handler=self.workers,
                scope="read",
                group="operate",
                name="workers",
                summary="Who works, on what, and when it was heard of",
                answers={200: Answer(description="Every worker that left a trace.", form=Workers)},
            ),
            Operation(
                method="GET",
                path="/queue/dead",
                handler=self.letters,
                scope="read",
                group="dead letters",
                name="deadLetters",
                summary="A page of dead letters, the newest first",
                parameters=(
                    in_query("queue", one_of("", *pipeline.queues), "Only of this queue."),
                    in_query("stage", stages, "Only of this stage."),
                    in_query("limit", PageSize, f"How many at most; {LETTERS} where it is missing.", 10),
                    in_query("after", AJobId | one_of(""), "The `next` of the page before."),
                ),
                answers={200: Answer(description="The page, without payloads.", form=DeadLetters)},
                problems={404: "No such queue or stage."},
            ),
            Operation(
                method="GET",
                path="/queue/dead/{jobId}",
                handler=self.letter,
                scope="admin",
                group="dead letters",
                name="deadLetter",
                summary="One dead letter whole, its payload too",
                parameters=(of_job("The buried job."),),
                answers={200: Answer(description="The dead letter.", form=DeadLetter)},
                problems={404: "It is not among the dead letters."},
            ),
        ]

    def _deleting(self) -> list[Operation]:
        queues = one_of(*self._broker.pipeline.queues)
        confirm = "Deletes for good, and so wants the queue's name in the body once more. "
        return [
            Operation(
                method="POST",
                path="/queue/clear/{queue}",
                handler=self.clear,
                scope="admin",
                group="operate",
                name="clear",
                summary="Delete the jobs of a queue or stage",
                description=f"{confirm}Answers after {CLEAR_FOR:g} s at the latest; where it is not `complete` by "
                "then, asking again goes on.",
                parameters=(in_path("queue", queues, "The queue."),),
                body=Body(form=ToClear, examples={"a queue": {"confirm": "cleanup"}}),
                answers={200: Answer(description="How many were deleted.", form=Cleared, example={"cleared": 12})},
                problems=NO_QUEUE,
            ),
            Operation(
                method="POST",
                path="/queue/purge/{queue}",
                handler=self.purge,
                scope="admin",
                group="dead letters",
                name="purge",
                summary="Delete the dead letters of a queue or stage",
                description=confirm.strip(),
                parameters=(in_path("queue", queues, "The queue."),),
                body=Body(form=Confirmation, examples={"a queue": {"confirm": "cleanup"}}),
                answers={200: Answer(description="How many were deleted.", form=Purged, example={"purged": 3})},
                problems=NO_QUEUE,
            ),
        ]

    def _steering(self) -> list[Operation]:
        return [
            self._steers("pause", self.pause, "Start no more jobs of a queue or stage"),
            self._steers("resume", self.resume, "Go on with a queue or stage that was paused or drained"),
            self._steers("drain", self.drain, "Take nothing more in, and finish what is there"),
            Operation(
                method="POST",
                path="/queue/cancel/{jobId}",
                handler=self.cancel,
                scope="enqueue",
                group="jobs",
                name="cancel",
                summary="Take a job out, or have it stopped",
                parameters=(of_job("The job."),),
                answers={200: Answer(description="What became of it.", form=Cancelled)},
                problems={404: "No such job, or it has ended."},
            ),
        ]

    def _steers(self, verb: Literal["pause", "resume", "drain"], handler: Handler, summary: str) -> Operation:
        pipeline = self._broker.pipeline
        names = one_of(*pipeline.queues, *(stage.name for stage in pipeline))
        answer = Answer(
            description="The stages meant.", form=Steered, example={"stages": ["notification.send-client"]}
        )
        return Operation(
            method="POST",
            path=f"/queue/{verb}/{{name}}",
            handler=handler,
            scope="admin",
            group="operate",
            name=verb,
            summary=summary,
            parameters=(in_path("name", names, "A queue or a stage.", "send-client"),),
            answers={200: answer},
            problems=NO_QUEUE,
        )

    async def letters(self, request: web.Request) -> web.Response:
        """GET /queue/dead: a page of dead letters, of a queue, a stage, or all."""
        stages = chosen(self._broker.pipeline, request.query.get("queue", ""), request.query.get("stage", ""))
        after = request.query.get("after")
        page = await self._broker.newest_letters(stages, _limit(request), JobId.parse(after) if after else None)
        return json(DeadLetters(page.letters, str(page.next) if page.next else None))

    async def letter(self, request: web.Request) -> web.Response:
        """GET /queue/dead/{jobId}: one whole."""
        job_id = JobId.parse(request.match_info["jobId"])
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
        job_id = JobId.parse(request.match_info["jobId"])
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
