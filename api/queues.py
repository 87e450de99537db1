"""The queues over HTTP: put jobs in, look at one."""

import logging
from typing import Annotated, Any, Literal

import msgspec
from aiohttp import web

from api.idempotency import HEADER, add_once
from api.kinds import body_of, task_of
from api.operations import (
    REFUSALS,
    Answer,
    Bodies,
    Either,
    Header,
    Many,
    Operation,
    Parameter,
    in_path,
    of_job,
    one_of,
)
from api.problems import Problem, ProblemDetails, json, problem_of, problem_of_refusal, read_body
from pipeline import Broker, Job, JobId, Pipeline, RiachoError, Stage
from pipeline.errors import BadPayload
from pipeline.message import Added
from pipeline.views import JobView
from stages.notification.log import Notification, NotificationLog
from stages.service import Name, check_fields
from stages.store import StoreUnavailable

log = logging.getLogger(__name__)

MOST_AT_ONCE = 500
ENDED = {"accepted": "completed", "failed": "failed", "unknown": "failed"}  # messages, and what of their jobs


class JobRequest(msgspec.Struct, forbid_unknown_fields=True):
    """A job as a client asks for it. `id` makes asking twice harmless; `key` orders and places; `delay` is how
    many seconds it waits before anybody may run it."""

    kind: str
    payload: msgspec.Raw
    tenant: Name = ""
    key: Name = ""
    id: Name = ""
    delay: float = 0.0


class Accepted(msgspec.Struct, rename="camel", omit_defaults=True):
    job_id: str
    duplicate: bool = False


class DeliveryView(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True):
    """How far a message came: by which channel, asked how often, its id there, and what the channel told of it
    last (sent, delivered, read, played, failed). `state` is ours: sending, refused, accepted, failed."""

    channel: str
    state: str
    attempts: int
    message_id: str = ""
    status: str = ""
    status_at: int = 0
    template: bool = False
    code: int | None = None
    error: str = ""


class NotificationView(JobView, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """A job of the queue notification, with what became of its message."""

    delivery: DeliveryView | None = None


QUEUE = in_path("queue", str, "The queue.")
IDEMPOTENCY_KEY = Parameter(
    name=HEADER,
    where="header",
    form=Annotated[str, msgspec.Meta(pattern='^"?[ -~]{1,255}"?$')],
    description="Makes asking again harmless for a day: the same ids come back. A UUID, say.",
    example="5f0c2f1e-8a52-4e0c-9f3e-6f1f0a3f8c11",
)
REPLAYED = Header("Idempotency-Replayed", Literal["true"], "The answer is that to an earlier request.")
ENQUEUED = (
    "Durable in Redis when the answer comes. A list is answered with a list, in its order: an id or a problem for "
    "each; it is refused as a whole where none of it was taken."
)
KEYED = {422: f"The {HEADER} was used for another request within the last day."}
ONE_TAKEN = Answer(
    description="Taken.",
    form=Accepted,
    headers=(REPLAYED,),
    example={"jobId": "send-client.0.1795369433311-0"},
)
TAKEN = Answer(
    description="Taken; of a list, some of it at least.",
    form=Either((Accepted, Many(Either((Accepted, ProblemDetails))))),
    headers=(REPLAYED,),
    example=ONE_TAKEN.example,
)


class QueueEndpoints:
    def __init__(self, broker: Broker, notifications: NotificationLog) -> None:
        self._broker = broker
        self._notifications = notifications

    def operations(self) -> list[Operation]:
        """Everything that is here, as it is reached over HTTP."""
        pipeline = self._broker.pipeline
        return [*self._enqueueing(), *self._clearing_up("cleanup" in pipeline.queues), *self._jobs()]

    def _enqueueing(self) -> list[Operation]:
        queues = self._broker.pipeline.queues
        common: dict[str, Any] = {
            "method": "POST",
            "group": "jobs",
            "name": "enqueue",
            "summary": "Put a job in, or a list of them",
            "description": ENQUEUED,
            "answers": {202: TAKEN},
            "problems": REFUSALS | KEYED | {404: "No such queue, or the queue has no such kind."},
        }
        return [
            Operation(
                **common,
                path="/queue/{queue:cleanup}/jobs",
                handler=self.enqueue_cleanup,
                scope="admin",
                parameters=(QUEUE, IDEMPOTENCY_KEY),
                body=self._bodies([queue for queue in queues if queue == "cleanup"]),
            ),
            Operation(
                **common,
                path="/queue/{queue}/jobs",
                handler=self.enqueue,
                scope="enqueue",
                parameters=(QUEUE, IDEMPOTENCY_KEY),
                body=self._bodies([queue for queue in queues if queue != "cleanup"]),
            ),
        ]

    def _bodies(self, queues: list[str]) -> Bodies:
        of_queue = self._broker.pipeline.queue
        bodies = {queue: body_of(JobRequest, of_queue(queue), MOST_AT_ONCE) for queue in queues}
        return Bodies("queue", bodies)

    def _clearing_up(self, there: bool) -> list[Operation]:
        stages = self._broker.pipeline.queue("cleanup") if there else []
        return [
            Operation(
                method="POST",
                # Of two paths the one that begins with more fixed text is asked first: jobs are the one's above.
                path="/queue/cleanup/{task:(?!jobs$)[^/]+}",
                handler=self.clean_up,
                scope="admin",
                group="jobs",
                name="cleanUp",
                summary="Do one of the chores now",
                parameters=(in_path("task", str, "The chore."), IDEMPOTENCY_KEY),
                body=Bodies("task", {stage.name: task_of(stage) for stage in stages}),
                answers={202: ONE_TAKEN},
                problems=REFUSALS | KEYED | {404: "No such chore."},
            )
        ]

    def _jobs(self) -> list[Operation]:
        queues = one_of(*self._broker.pipeline.queues)
        view = Either((JobView, NotificationView))
        return [
            Operation(
                method="GET",
                path="/queue/job/{queue}/{jobId}",
                handler=self.job,
                scope="read",
                group="jobs",
                name="job",
                summary="What became of a job",
                parameters=(in_path("queue", queues, "Its queue.", "notification"), of_job("The job.")),
                answers={200: Answer(description="The job as it is now.", form=view)},
                problems={404: "No such job: it never was, or it is done and no longer kept."},
            ),
            Operation(
                method="POST",
                path="/queue/retry/{jobId}",
                handler=self.retry,
                scope="admin",
                group="dead letters",
                name="retry",
                summary="Put a dead letter back to work",
                parameters=(of_job("The buried job."),),
                answers={202: Answer(description="The new job.", form=Accepted)},
                problems={404: "It is not among the dead letters."},
            ),
        ]

    async def enqueue(self, request: web.Request) -> web.Response:
        """POST /queue/{queue}/jobs: one job, or a list with an answer for each."""
        queue = request.match_info["queue"]
        self._broker.pipeline.queue(queue)
        asked = _decode(await read_body(request))
        if isinstance(asked, JobRequest):
            return await self._take_one(request, queue, asked)
        answers, headers = await self._take(request, queue, asked)
        refused = [answer for answer in answers if isinstance(answer, Problem)]
        if refused and len(refused) == len(answers):
            raise refused[0]
        spelled_out = [answer.details if isinstance(answer, Problem) else answer for answer in answers]
        return json(spelled_out, status=202, headers=headers)

    async def _take_one(self, request: web.Request, queue: str, asked: JobRequest) -> web.Response:
        (answer,), headers = await self._take(request, queue, [asked])
        if isinstance(answer, Problem):
            raise answer
        return json(answer, status=202, headers=headers)

    async def _take(
        self, request: web.Request, queue: str, asked: list[JobRequest]
    ) -> tuple[list[Accepted | Problem], dict[str, str]]:
        answers: list[Accepted | Problem | None] = [None] * len(asked)
        jobs: dict[int, Job] = {}
        for index, one in enumerate(asked):
            try:
                jobs[index] = job_of(self._broker.pipeline, queue, one)
            except RiachoError as error:
                answers[index] = problem_of(error)
        added, headers = await add_once(self._broker, request, jobs)
        for index, answer in zip(jobs, added, strict=True):
            answers[index] = _answer(self._broker.pipeline.stage(jobs[index].stage), answer)
        return [answer for answer in answers if answer is not None], headers

    async def enqueue_cleanup(self, request: web.Request) -> web.Response:
        """POST /queue/cleanup/jobs: as `enqueue`, and not for everybody, as these jobs delete."""
        return await self.enqueue(request)

    async def clean_up(self, request: web.Request) -> web.Response:
        """POST /queue/cleanup/{task}: one of the chores now; the body, if there is one, is its payload."""
        task, body = request.match_info["task"], await read_body(request) or b"{}"
        check_fields(self._broker.pipeline.find("cleanup", task), _payload(body))
        return await self._take_one(request, "cleanup", JobRequest(task, msgspec.Raw(body)))

    async def retry(self, request: web.Request) -> web.Response:
        """POST /queue/retry/{jobId}: put a dead letter back to work, as a new job."""
        job_id = JobId.parse(request.match_info["jobId"])
        letter = await self._broker.dead_letter(job_id)
        new = letter and await self._broker.replay(letter)
        if not new:
            raise Problem(404, "Not found", f"{job_id} is not among the dead letters.")
        return json(Accepted(str(new)), status=202)

    async def job(self, request: web.Request) -> web.Response:
        """GET /queue/job/{queue}/{jobId}."""
        queue, job_id = request.match_info["queue"], JobId.parse(request.match_info["jobId"])
        self._broker.pipeline.find(queue, job_id.stage)
        view = await self._broker.look(job_id)
        if queue == "notification":
            view = await self._with_delivery(job_id, view)
        if view is None:
            raise Problem(404, "Not found", f"No job {job_id}: it never was, or it is done and no longer kept.")
        return json(view)

    async def _with_delivery(self, job_id: JobId, view: JobView | None) -> JobView | None:
        """A job with what became of its message; of one that Redis forgot, what the log knows."""
        try:
            found = await self._notifications.find(str(job_id))
        except StoreUnavailable as error:  # what Redis knows of the job is worth an answer
            log.warning("the notification log cannot be read: %s", error)
            return view
        if found is None:
            return view
        about = msgspec.structs.asdict(view) if view else _remembered(found)
        return NotificationView(**about, delivery=_delivery(found)) if about else None


def _remembered(known: Notification) -> dict[str, Any]:
    """A job that ended longer ago than its stage keeps results."""
    if known.state not in ENDED:
        return {}
    return {
        "job_id": known.job,
        "queue": "notification",
        "stage": known.kind,
        "state": ENDED[known.state],
        "tenant": known.tenant,
        "attempt": known.calls,
        "enqueued_at": known.created_ms,
    }


def _delivery(known: Notification) -> DeliveryView:
    return DeliveryView(
        known.channel,
        known.state,
        known.calls,
        known.message_id,
        known.status,
        known.status_ms,
        known.template,
        known.code,
        known.error,
    )


def job_of(pipeline: Pipeline, queue: str, request: JobRequest) -> Job:
    """The job asked for. Raises UnknownStage or BadInput."""
    stage = pipeline.find(queue, request.kind)
    job = Job(
        stage=stage.name,
        payload=pipeline.payload(stage, request.payload, request.tenant),
        tenant=request.tenant,
        key=request.key,
        dedup=request.id,
        delay=request.delay,
    )
    pipeline.check(job)  # here, where it is this job's error and not that of a whole list
    return job


def _decode(body: bytes) -> JobRequest | list[JobRequest]:
    try:
        asked = msgspec.json.decode(body, type=JobRequest | list[JobRequest])
    except (ValueError, RecursionError) as error:  # bad UTF-8 in a string is no DecodeError
        raise BadPayload(f"the body is neither a job nor a list of jobs: {error}") from None
    if isinstance(asked, list) and not 1 <= len(asked) <= MOST_AT_ONCE:
        raise BadPayload(f"a list of {len(asked)} jobs; send 1 to {MOST_AT_ONCE} at once")
    return asked


def _payload(body: bytes) -> dict[str, Any]:
    try:
        return msgspec.json.decode(body, type=dict[str, Any])
    except (ValueError, RecursionError) as error:  # bad UTF-8 in a string is no DecodeError
        raise BadPayload(f"the body is no payload: {error}") from None


def _answer(stage: Stage, added: Added) -> Accepted | Problem:
    if added.refusal:
        return problem_of_refusal(stage, added.refusal)
    return Accepted(str(added.id), added.duplicate)
