"""Stages, and the pipeline: the map of all of them."""

from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from typing import Any

import msgspec

from pipeline.errors import BadInput, BadPayload, UnknownStage, did_you_mean
from pipeline.message import Delivery, Envelope, Job, JobId
from pipeline.outcome import Bury
from pipeline.retry import RetryPolicy

LONGEST_DELAY = 366 * 86_400.0  # seconds


Report = Callable[[Delivery, int, str], Awaitable[bool]]
Add = Callable[[Job], Awaitable[JobId]]


async def _without_broker(job: Job) -> JobId:
    raise RuntimeError(f"no broker to add a job for {job.stage} to")


class Context(msgspec.Struct, gc=False):  # a struct, as there is one made for every job
    """What a handler is told about its job beside the payload, and what it may tell of it."""

    _delivery: Delivery
    _envelope: Envelope[Any]
    _report: Report
    _add: Add = _without_broker

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

    @property
    def cancelled(self) -> bool:
        """Somebody cancelled this job. A handler that waits is interrupted; one in a thread can look here."""
        return self._delivery.unwanted

    async def progress(self, percent: int, doing: str = "") -> None:
        """Say how far the job has come, 0 to 100, and in a word what it is doing; shown for as long as the stage
        keeps results."""
        if not 0 <= percent <= 100:
            raise ValueError(f"progress of {percent}; it goes from 0 to 100 per cent")
        await self._report(self._delivery, percent, doing)

    async def add(self, job: Job) -> JobId:
        """Add a job now, whatever this one ends in. A handler that is run again adds it again: give it a `dedup`.

        What is to follow from this job's success goes into `Done.forward`. Raises StageFull and its like.
        """
        return await self._add(job)

    def forward(self, stage: str, payload: object, *, delay: float = 0.0) -> Job:
        """A job for another stage with this one's tenant and key, to be put into `Done.forward`."""
        return Job(stage=stage, payload=payload, tenant=self.tenant, key=self.key, delay=delay)


# A batch stage's handler gets a sequence of both, and returns one outcome or result for each.
Handler = Callable[[Any, Any], Awaitable[Any]]


class Batch(msgspec.Struct, frozen=True):
    """A stage whose handler takes up to `size` jobs at once, waiting up to `wait` seconds for more to come."""

    size: int
    wait: float = 0.0


class RateLimit(msgspec.Struct, frozen=True):
    """A token bucket shared by all workers: so many a second under this key, `burst` of them at once."""

    key: str
    per_second: float
    burst: int = 1


class Stage(msgspec.Struct, frozen=True, kw_only=True):
    """One kind of work: one stream, one consumer group, its own limits.

    `handler(ctx, payload)` returns an Outcome, or a result that stands for `Done(result)`; with `batch` it is
    `handler(contexts, payloads)` and returns one of these per job. A worker awaits `prepare` before it takes the
    stage's first entry. Times are seconds.

    How much at a time: a worker runs `concurrency` jobs (or batches), and may hold `prefetch` jobs more. A tenant
    has no more than `tenant_limit` unfinished jobs per partition in the stream, backing off included, so that its
    flood stays out of the way of others (0: any number); `shared_limit` is the same for all of them together,
    whoever their tenant, and so bounds what runs at a time over all workers. `rates(tenant, payload)` names the
    token buckets a job takes a token from before it runs. The stage holds `high_water` unfinished jobs per
    partition in all; once it was full it takes none in before it has come down to `low_water`.

    `check(tenant, payload)` looks at what comes from outside: it returns the payload as it is to be kept, or
    raises ValueError with the reason it is refused for. `buried(ctx, payload, why)` names the jobs that a job's
    burial is handed on to, in the same atomic step, whatever it was buried for (but not being readable).
    """

    queue: str
    name: str
    payload: type
    handler: Handler
    prepare: Callable[[], Awaitable[None]] | None = None
    concurrency: int = 1
    prefetch: int = 0
    batch: Batch | None = None
    tenant_limit: int = 0
    shared_limit: int = 0
    rates: Callable[[str, Any], Sequence[RateLimit]] | None = None
    check: Callable[[str, Any], Any] | None = None
    buried: Callable[[Context, Any, Bury], Sequence[Job]] | None = None
    timeout: float = 30.0
    retry: RetryPolicy = RetryPolicy()
    high_water: int = 100_000
    dedup_ttl: float = 7 * 86_400
    keep_results: float = 0.0

    def __post_init__(self) -> None:
        if self.tenant_limit and self.shared_limit:
            raise ValueError(f"stage {self.name!r}: tenant_limit and shared_limit exclude each other")
        if self.batch and self.batch.size < 1:
            raise ValueError(f"stage {self.name!r}: a batch of {self.batch.size}; it takes at least 1")

    @property
    def low_water(self) -> int:
        """How many unfinished jobs a partition that was full has come down to when it takes new ones again."""
        return self.high_water * 9 // 10

    @property
    def full_name(self) -> str:
        return f"{self.queue}.{self.name}"

    def fullness(self, depth: int) -> str:
        """Why it takes nothing in while a partition holds so many, in words."""
        if depth >= self.high_water:
            return "as many as it may"
        return f"and after it was full takes new ones from {self.low_water:,} on"

    @property
    def at_once(self) -> int:
        """How many jobs a worker runs at a time."""
        return self.concurrency * (self.batch.size if self.batch else 1)

    @property
    def account_limit(self) -> int:
        """How many unfinished jobs one account may have in the stream; 0: any number."""
        return self.tenant_limit or self.shared_limit

    def account(self, tenant: str) -> str:
        """Whose account a tenant's job goes on, where there is a limit."""
        return "" if self.shared_limit else tenant


class Pipeline:
    """All stages by name. A stage's name is unique, whatever its queue."""

    def __init__(self, stages: Iterable[Stage]) -> None:
        self._stages: dict[str, Stage] = {}
        for stage in stages:
            if stage.name in self._stages or "." in stage.name:
                raise ValueError(f"stage name {stage.name!r} is taken or has a dot in it")
            self._stages[stage.name] = stage
        self._queues: dict[str, dict[str, Stage]] = {}
        for stage in self:
            self._queues.setdefault(stage.queue, {})[stage.name] = stage
        self._readers: dict[str, Callable[[bytes], Any]] = {
            stage.name: msgspec.json.Decoder(stage.payload).decode for stage in self
        }

    def __iter__(self) -> Iterator[Stage]:
        return iter(self._stages.values())

    @property
    def queues(self) -> list[str]:
        return list(self._queues)

    def stage(self, name: str) -> Stage:
        """The stage of that name. Raises UnknownStage."""
        try:
            return self._stages[name]
        except KeyError:
            raise UnknownStage(f"no stage '{name[:80]}'{did_you_mean(name, self._stages)}") from None

    def queue(self, queue: str) -> list[Stage]:
        """The stages of a queue. Raises UnknownStage where there is no such queue."""
        return list(self._in(queue).values())

    def _in(self, queue: str) -> dict[str, Stage]:
        stages = self._queues.get(queue)
        if not stages:
            raise UnknownStage(f"no queue '{queue[:80]}'{did_you_mean(queue, self.queues)}")
        return stages

    def find(self, queue: str, kind: str) -> Stage:
        """The stage `kind` of a queue. Raises UnknownStage naming which of the two is unknown."""
        stages = self._in(queue)
        if kind not in stages:
            raise UnknownStage(f"queue '{queue}' has no kind '{kind[:80]}'{did_you_mean(kind, stages)}")
        return stages[kind]

    def check(self, job: Job) -> Stage:
        """The stage a job is for. Raises UnknownStage, BadPayload where it is not of its type, or BadInput."""
        stage = self.stage(job.stage)
        if not isinstance(job.payload, stage.payload):
            kind, wanted = type(job.payload).__name__, stage.payload.__name__
            raise BadPayload(f"payload of {stage.full_name}: expected {wanted}, got {kind}")
        if not 0 <= job.delay <= LONGEST_DELAY:
            raise BadInput(
                f"delay of {job.delay:g} s for {stage.full_name}; it goes from 0 to {LONGEST_DELAY:.0f} s"
            )
        if not (job.tenant.isascii() and job.key.isascii() and job.dedup.isascii()):
            _check_encodable({"tenant": job.tenant, "key": job.key, "id": job.dedup})
        return stage

    def payload(self, stage: Stage, value: object, tenant: str = "") -> Any:
        """Plain data, or JSON as msgspec.Raw, as the stage's payload type, looked at by its check. Raises
        BadPayload naming the field."""
        try:
            payload: Any = (
                self._readers[stage.name](value)
                if isinstance(value, msgspec.Raw)
                else msgspec.convert(value, stage.payload)
            )
            return stage.check(tenant, payload) if stage.check else payload
        except (ValueError, RecursionError) as error:  # msgspec's are ValueErrors
            raise BadPayload(f"payload of {stage.full_name}: {error}") from None


def _check_encodable(names: dict[str, str]) -> None:
    """Half a pair of surrogates, as comes of bytes on a command line, would fail where others' jobs go, too."""
    for name, value in names.items():
        try:
            value.encode()
        except UnicodeEncodeError:
            raise BadInput(f"{name} {value[:80]!r} is no text that can be written in UTF-8") from None
