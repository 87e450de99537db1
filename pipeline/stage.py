"""Stages, and the pipeline: the map of all of them."""

from collections.abc import Awaitable, Callable, Iterable, Iterator
from typing import Any

import msgspec

from pipeline.errors import BadPayload, UnknownStage, did_you_mean
from pipeline.message import Delivery, Envelope, Job, JobId
from pipeline.retry import RetryPolicy


class Context:
    """What a handler is told about its job beside the payload."""

    __slots__ = ("_delivery", "_envelope")

    def __init__(self, delivery: Delivery, envelope: Envelope) -> None:
        self._delivery = delivery
        self._envelope = envelope

    @property
    def job_id(self) -> JobId:
        return self._delivery.id

    @property
    def attempt(self) -> int:
        """From 1; counts the tries that had a worker lost too."""
        return self._delivery.attempt

    @property
    def tenant(self) -> str:
        return self._envelope.tenant

    @property
    def key(self) -> str:
        return self._envelope.key

    @property
    def enqueued_ms(self) -> int:
        return self._envelope.enqueued_ms

    def forward(self, stage: str, payload: object) -> Job:
        """A job for another stage with this one's tenant and key, to be put into `Done.forward`."""
        return Job(stage=stage, payload=payload, tenant=self.tenant, key=self.key)


Handler = Callable[[Context, Any], Awaitable[Any]]


class Stage(msgspec.Struct, frozen=True, kw_only=True):
    """One kind of work: one stream, one consumer group, its own limits.

    `handler(ctx, payload)` returns an Outcome, or a result that stands for `Done(result)`.
    A worker awaits `prepare` before it takes the stage's first entry. Times are seconds. `prefetch` is
    how many entries a worker may hold beyond those it runs.
    """

    queue: str
    name: str
    payload: type
    handler: Handler
    prepare: Callable[[], Awaitable[None]] | None = None
    concurrency: int = 1
    prefetch: int = 0
    timeout: float = 30.0
    retry: RetryPolicy = RetryPolicy()
    high_water: int = 100_000
    dedup_ttl: float = 7 * 86_400
    keep_results: float = 0.0

    @property
    def full_name(self) -> str:
        return f"{self.queue}.{self.name}"


class Pipeline:
    """All stages by name. A stage's name is unique, whatever its queue."""

    def __init__(self, stages: Iterable[Stage]) -> None:
        self._stages: dict[str, Stage] = {}
        for stage in stages:
            if stage.name in self._stages or "." in stage.name:
                raise ValueError(f"stage name {stage.name!r} is taken or has a dot in it")
            self._stages[stage.name] = stage

    def __iter__(self) -> Iterator[Stage]:
        return iter(self._stages.values())

    @property
    def queues(self) -> list[str]:
        return list(dict.fromkeys(stage.queue for stage in self))

    def stage(self, name: str) -> Stage:
        """The stage of that name. Raises UnknownStage."""
        try:
            return self._stages[name]
        except KeyError:
            raise UnknownStage(f"no stage '{name[:80]}'{did_you_mean(name, self._stages)}") from None

    def queue(self, queue: str) -> list[Stage]:
        """The stages of a queue. Raises UnknownStage where there is no such queue."""
        stages = [stage for stage in self if stage.queue == queue]
        if not stages:
            raise UnknownStage(f"no queue '{queue[:80]}'{did_you_mean(queue, self.queues)}")
        return stages

    def find(self, queue: str, kind: str) -> Stage:
        """The stage `kind` of a queue. Raises UnknownStage naming which of the two is unknown."""
        stages = {stage.name: stage for stage in self.queue(queue)}
        if kind not in stages:
            raise UnknownStage(f"queue '{queue}' has no kind '{kind[:80]}'{did_you_mean(kind, stages)}")
        return stages[kind]

    def check(self, job: Job) -> Stage:
        """The stage a job is for. Raises UnknownStage, or BadPayload where the payload is not of its type."""
        stage = self.stage(job.stage)
        if not isinstance(job.payload, stage.payload):
            kind, wanted = type(job.payload).__name__, stage.payload.__name__
            raise BadPayload(f"payload of {stage.full_name}: expected {wanted}, got {kind}")
        return stage

    def payload(self, stage: Stage, value: object) -> Any:
        """Plain data as the stage's payload type. Raises BadPayload naming the field."""
        try:
            return msgspec.convert(value, stage.payload)
        except msgspec.ValidationError as error:
            raise BadPayload(f"payload of {stage.full_name}: {error}") from None
