"""One job as a pipe of named steps: decode → admit → call → seal; whatever happens ends in a value."""

import asyncio
import functools
import logging
import math
import time
from collections.abc import Callable, Sequence
from typing import Any

import msgspec
from redis.exceptions import RedisError

from pipeline import metrics, running, telemetry
from pipeline.broker import Broker
from pipeline.errors import BadInput, Permanent, RetryLater, ServerUnavailable
from pipeline.keys import tokens_of
from pipeline.message import Delivery, Envelope, IsProbe, Job, JobId, opener, seal
from pipeline.outcome import Bury, Done, Ending, Forward, Outcome, Retry, Settled, Throttled
from pipeline.retry import RetryPolicy
from pipeline.stage import Context, RateLimit, Stage

log = logging.getLogger(__name__)

ERROR_LIMIT = 500  # characters of an exception kept with the job
RESULT_LIMIT = 1_048_576  # bytes of a result: it lies in Redis' memory
KEEP_PROBES = 60.0  # seconds that whoever sent a probe has to learn that it came through
LONGEST_WAIT = 366 * 86_400.0  # seconds before another try

STALE = 250.0  # ms after its time that a token is still good, where they come more often than that

NIL = msgspec.Raw(b"\xc0")
NOTHING = Settled(NIL)  # most jobs end in it
CANCELLED = Settled(NIL, cancelled=True)
PROBED = Settled(NIL, keep=KEEP_PROBES)

Readied = tuple[Delivery, Envelope[Any]]

_encode = msgspec.msgpack.Encoder().encode


class Slot:
    """What a running handler can be interrupted by: the task it runs in, and when its time is over."""

    __slots__ = ("deadline", "delivery", "interrupts", "late", "started", "task", "timeout")

    def __init__(self, task: "asyncio.Task[Any]") -> None:
        self.task = task
        self.delivery: Delivery | None = None  # of a batch it is none
        self.timeout = math.inf  # seconds
        self.started = 0.0  # on the monotonic clock, as is
        self.deadline = math.inf
        self.late = False
        self.interrupts = 0

    def begin(self, timeout: float) -> None:
        """A handler is about to run, for `timeout` seconds at most."""
        self.started, self.timeout = time.monotonic(), timeout
        self.deadline = self.started + timeout

    def interrupt(self) -> None:
        """Cancel the handler; the slot goes on."""
        self.interrupts += 1
        self.task.cancel()

    def check(self, now: float) -> bool:
        """Interrupt a handler that is over its time; says whether it was."""
        if self.deadline >= now or self.late:
            return False
        self.late = True
        self.interrupt()
        return True

    def clear(self) -> None:
        """The handler is through: the next one starts with a clean slate."""
        self.deadline, self.delivery = math.inf, None
        if self.interrupts:
            for _ in range(self.interrupts):
                self.task.uncancel()
            self.interrupts, self.late = 0, False


class Executor:
    """Runs handlers. `run` never raises, except that a cancelled run is cancelled."""

    def __init__(self, broker: Broker, consumer: str) -> None:
        self._pipeline = broker.pipeline
        self._throttle = broker.throttle
        self._report = functools.partial(broker.progress, consumer)
        self._add = broker.enqueue
        self._traced = telemetry.enabled()
        self._figures = metrics.work()
        self._open: dict[str, Callable[[bytes], Envelope[Any]]] = {
            stage.name: opener(stage.payload) for stage in broker.pipeline
        }

    async def run(self, stage: Stage, delivery: Delivery, slot: Slot) -> Ending:
        """How one delivery ended."""
        envelope = self._decode(stage, delivery)
        if not isinstance(envelope, Envelope):
            return envelope
        if stage.rates is not None and (wait := await self._admit(stage, delivery, envelope)):
            return wait
        if self._traced:
            return await self._run_traced(stage, delivery, envelope, slot)
        return await self._call(stage, delivery, envelope, slot)

    async def _run_traced(self, stage: Stage, delivery: Delivery, envelope: Envelope[Any], slot: Slot) -> Ending:
        tried = telemetry.Try(stage, delivery, envelope)
        try:
            with telemetry.Below(tried.span):
                ending = await self._call(stage, delivery, envelope, slot)
        except BaseException:
            tried.leave()
            raise
        tried.end(ending)
        return ending

    async def _call(self, stage: Stage, delivery: Delivery, envelope: Envelope[Any], slot: Slot) -> Ending:
        slot.delivery = delivery
        slot.begin(envelope.timeout or stage.timeout)
        delivery.started, delivery.tenant, failure = slot.started, envelope.tenant, ""
        running.note(delivery)
        if self._figures:
            self._figures.began(stage, (delivery,))
        try:
            returned = await stage.handler(self._context(delivery, envelope), envelope.payload)
        except BaseException as error:  # noqa: BLE001 - a handler may raise anything, and must not end its slot
            returned, failure = _outcome(error, slot), _kind(error, slot)
        finally:
            slot.clear()
            delivery.tenant = None
        if self._figures:
            self._figures.tried(stage, slot.started, (returned,), failure)
        return NOTHING if returned is None else self._seal(stage, delivery, envelope, returned)

    def _context(self, delivery: Delivery, envelope: Envelope[Any]) -> Context:
        return Context(delivery, envelope, self._report, self._add)

    def _context_of_many(self, delivery: Delivery, envelope: Envelope[Any]) -> Context:
        """What a job of a batch adds is of its own trace, and not of the batch's."""
        if not self._traced:
            return self._context(delivery, envelope)

        async def add(job: Job) -> JobId:
            with telemetry.Below(telemetry.continued(delivery.trace)):
                return await self._add(job)

        return Context(delivery, envelope, self._report, add)

    async def run_batch(self, stage: Stage, deliveries: Sequence[Delivery], slot: Slot) -> list[Ending]:
        """How each delivery of a batch ended. The batch may take as long as its most patient job."""
        endings: dict[int, Ending] = {}
        ready: dict[int, Envelope[Any]] = {}
        for index, delivery in enumerate(deliveries):
            envelope = self._decode(stage, delivery)
            if isinstance(envelope, Envelope):
                envelope = await self._admit(stage, delivery, envelope) or envelope
            if isinstance(envelope, Envelope):
                ready[index] = envelope
            else:
                endings[index] = envelope
        if ready:
            run = self._run_together_traced if self._traced else self._run_together
            jobs = [(deliveries[index], envelope) for index, envelope in ready.items()]
            endings |= zip(ready, await run(stage, jobs, slot), strict=True)
        return [endings[index] for index in range(len(deliveries))]

    async def _run_together_traced(self, stage: Stage, jobs: Sequence[Readied], slot: Slot) -> list[Ending]:
        with telemetry.batch(stage, jobs) as tries:
            endings = await self._run_together(stage, jobs, slot)
            for tried, ending in zip(tries, endings, strict=True):
                tried.end(ending)
            return endings

    async def _run_together(self, stage: Stage, jobs: Sequence[Readied], slot: Slot) -> list[Ending]:
        slot.begin(max(envelope.timeout or stage.timeout for _, envelope in jobs))
        for delivery, _ in jobs:
            delivery.started = slot.started
        if len(jobs) == 1:  # of several, nobody knows for which of them something is done
            ((delivery, envelope),) = jobs
            delivery.tenant = envelope.tenant
            running.note(delivery)
        if self._figures:
            self._figures.began(stage, [delivery for delivery, _ in jobs])
        returned = await self._call_together(stage, jobs, slot)
        return [self._seal(stage, *job, one) for job, one in zip(jobs, returned, strict=True)]

    async def _call_together(self, stage: Stage, jobs: Sequence[Readied], slot: Slot) -> Sequence[Any]:
        payloads, failure = [envelope.payload for _, envelope in jobs], ""
        try:
            returned = await stage.handler([self._context_of_many(*job) for job in jobs], payloads)
        except BaseException as error:  # noqa: BLE001 - as above
            returned, failure = _outcome(error, slot), _kind(error, slot)
        finally:
            slot.clear()
            jobs[0][0].tenant = None
        endings = _of_each(returned, len(payloads))
        if self._figures:
            self._figures.tried(stage, slot.started, endings, failure)
        return endings

    def _decode(self, stage: Stage, delivery: Delivery) -> Envelope[Any] | Ending:
        """A delivery's envelope, if it is to be run."""
        if delivery.unwanted:
            return CANCELLED
        try:
            envelope = self._open[stage.name](delivery.body)
        except IsProbe:  # before it takes a token, which a message would wait for
            return PROBED
        except (ValueError, RecursionError) as error:
            return Bury(f"cannot be read: {error}")
        delivery.trace = envelope.trace  # what others trace stays one trace
        if delivery.attempt > (envelope.retry or stage.retry).attempts:
            poison = Bury(f"poison: its worker was lost {delivery.attempt - 1} times")
            self._trace_untried(stage, delivery, envelope, poison)
            return self._buried(stage, delivery, envelope, poison)
        return envelope

    def _trace_untried(
        self, stage: Stage, delivery: Delivery, envelope: Envelope[Any], ending: Ending | None
    ) -> None:
        """A span for what ends without its handler having run, but for what waits for a token."""
        if self._traced and ending and not isinstance(ending, Throttled):
            telemetry.Try(stage, delivery, envelope).end(ending)

    async def _admit(self, stage: Stage, delivery: Delivery, envelope: Envelope[Any]) -> Ending | None:
        """What to do with a job instead of running it, if anything."""
        instead = await self._take_token(stage, delivery, envelope)
        self._trace_untried(stage, delivery, envelope, instead)
        return instead

    async def _take_token(self, stage: Stage, delivery: Delivery, envelope: Envelope[Any]) -> Ending | None:
        """Take a token from the job's buckets; what to do instead of running it where there is none."""
        if stage.rates is None:
            return None
        try:
            limits = stage.rates(envelope.tenant, envelope.payload)
            taken = _tokens(delivery, limits)
            wait, more = await self._throttle(limits[taken:]) if limits[taken:] else (0, 0)
        except (ServerUnavailable, RedisError) as error:
            return Retry(1.0, _said(error), counts=False)
        except Exception as error:  # noqa: BLE001 - a handler's own code
            return self._seal(stage, delivery, envelope, Retry(math.nan, _said(error)))
        if delivery.unwanted:  # since we asked
            return CANCELLED
        return Throttled(wait, taken + more) if wait else None

    def _seal(self, stage: Stage, delivery: Delivery, envelope: Envelope[Any], returned: object) -> Ending:
        """The outcome as it is written; one that cannot be written is buried."""
        outcome = returned if isinstance(returned, Outcome) else Done(returned)
        if delivery.unwanted and not isinstance(outcome, Done):
            return CANCELLED
        ending: Ending = NOTHING
        match outcome:
            case Retry():
                policy = envelope.retry or stage.retry
                ending = _again(delivery, policy, msgspec.structs.replace(outcome, error=_clean(outcome.error)))
            case Bury(reason, error):
                ending = Bury(_clean(reason), _clean(error))
            case Done(None, ()):
                return NOTHING
            case Done():
                ending = self._write(stage, delivery, outcome)
        return self._buried(stage, delivery, envelope, ending) if isinstance(ending, Bury) else ending

    def _buried(self, stage: Stage, delivery: Delivery, envelope: Envelope[Any], bury: Bury) -> Bury:
        """A burial with what its stage hands on for it."""
        if stage.buried is None:
            return bury
        try:
            jobs = stage.buried(self._context(delivery, envelope), envelope.payload, bury)
            return msgspec.structs.replace(bury, forwards=self._sealed(delivery, jobs))
        except Exception:  # a handler's own code; the dead letter must not be lost for it
            log.exception("%s is buried, and nothing is handed on for it", delivery.id)
            return bury

    def _sealed(self, delivery: Delivery, jobs: Sequence[Job]) -> tuple[Forward, ...]:
        return tuple(
            (job.stage, seal(job, delivery.trace), target.account(job.tenant), int(job.delay * 1000))
            for job in jobs
            for target in (self._pipeline.check(job),)
        )

    def _write(self, stage: Stage, delivery: Delivery, done: Done) -> Ending:
        try:
            forwards = self._sealed(delivery, done.forward)
            encoded = _encode(done.result) if stage.keep_results else NIL
        except (BadInput, TypeError, ValueError, OverflowError, RecursionError) as error:
            return Bury("what its handler returned cannot be written", _clean(_said(error)))
        if len(encoded) > RESULT_LIMIT:
            return Bury(f"its result of {len(encoded):,} bytes is over the limit of {RESULT_LIMIT:,}")
        return Settled(msgspec.Raw(encoded), forwards)


def _tokens(delivery: Delivery, limits: Sequence[RateLimit]) -> int:
    """How many of its tokens a job has. The one it waited for is no longer good where it comes late: used
    together, those of many would be a burst over the limit."""
    count = min(tokens_of(delivery.since), len(limits))
    stale = count and delivery.late_ms > max(STALE, 1000 / limits[count - 1].per_second)
    return count - 1 if stale else count


def _of_each(returned: Any, count: int) -> Sequence[Any]:
    """What the handler of a batch returned for each of so many jobs."""
    if isinstance(returned, Retry | Bury):
        return [returned] * count
    if not isinstance(returned, list | tuple) or len(returned) != count:
        said = f"the handler of a batch of {count} has to return a list of as many, not {returned!r}"
        return [Retry(math.nan, said)] * count
    return returned


def _kind(error: BaseException, slot: Slot) -> str:
    return "TimeoutError" if slot.late else type(error).__name__


def _outcome(error: BaseException, slot: Slot) -> Retry | Bury:
    """What a handler's exception says; NaN stands for the policy's backoff. Raises what is not its own."""
    match error:
        case Permanent():
            return Bury(_message(error))
        case RetryLater():
            return Retry(error.seconds, _message(error), counts=False)
        case asyncio.CancelledError():
            if slot.task.cancelling() > slot.interrupts:
                raise error
            # Else we interrupted it, or it cancelled itself.
            return Retry(math.nan, f"took longer than {slot.timeout:g} s" if slot.late else _said(error))
        case KeyboardInterrupt() | GeneratorExit():
            raise error
    log.debug("handler failed", exc_info=error)
    return Retry(math.nan, _said(error))


def _again(delivery: Delivery, policy: RetryPolicy, asked: Retry) -> Retry | Bury:
    """Another try while there are any left; by the policy's backoff where no time was asked for (NaN)."""
    if asked.counts and delivery.attempt >= policy.attempts:
        return Bury(f"gave up after {delivery.attempt} tries", asked.error)
    after = asked.after if math.isfinite(asked.after) else policy.delay(delivery.attempt)
    return msgspec.structs.replace(asked, after=min(max(after, 0.0), LONGEST_WAIT))


def _said(error: BaseException) -> str:
    return f"{type(error).__name__}: {_message(error)}"


def _message(error: BaseException) -> str:
    try:
        return str(error)
    except Exception:  # noqa: BLE001 - even that is a handler's own code
        return ""


def _clean(text: str) -> str:
    """Text as it can be written: bounded, and without halves of surrogate pairs."""
    return text[:ERROR_LIMIT].encode("utf-8", "replace").decode()
