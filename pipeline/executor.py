"""One job as a pipe of named steps: decode → admit → call → seal; whatever happens ends in a value."""

import asyncio
import logging
import math
import time
from typing import Any, cast

import msgspec

from pipeline import telemetry
from pipeline.errors import BadInput, Permanent, RetryLater
from pipeline.message import Delivery, Envelope, seal, unseal
from pipeline.outcome import Bury, Done, Ending, Outcome, Retry, Settled
from pipeline.retry import RetryPolicy
from pipeline.stage import Context, Pipeline, Stage

log = logging.getLogger(__name__)

ERROR_LIMIT = 500  # characters of an exception kept with the job
RESULT_LIMIT = 1_048_576  # bytes of a result: it lies in Redis' memory
TIMEOUT_PRECISION = 0.05  # seconds between looks for handlers over their time
LONGEST_WAIT = 366 * 86_400.0  # seconds before another try

NOTHING = Settled(msgspec.Raw(b"\xc0"))  # most jobs end in it

_encode = msgspec.msgpack.Encoder().encode


class Executor:
    """Runs handlers. `run` never raises, except that a cancelled run is cancelled."""

    def __init__(self, pipeline: Pipeline) -> None:
        decoder = msgspec.msgpack.Decoder
        self._pipeline = pipeline
        self._traced = telemetry.enabled()
        self._deadlines: dict[asyncio.Task[Any], float] = {}
        self._late: set[asyncio.Task[Any]] = set()
        self._decoders: dict[str, msgspec.msgpack.Decoder[Any]] = {
            stage.name: decoder(stage.payload) for stage in pipeline
        }

    async def run(self, stage: Stage, delivery: Delivery) -> Ending:
        """How one delivery ended."""
        try:
            envelope = unseal(delivery.body)
            payload = self._decoders[stage.name].decode(envelope.payload)
        except ValueError as error:
            return Bury(f"cannot be read: {error}")
        policy = envelope.retry or stage.retry
        if delivery.attempt > policy.attempts:
            return Bury(f"poison: its worker was lost {delivery.attempt - 1} times")
        if self._traced:
            with telemetry.process(stage, delivery, envelope) as span:
                delivery.trace = telemetry.traceparent(span)
                outcome = await self._call(stage, delivery, envelope, payload)
                ending = self._seal(stage, delivery, policy, outcome)
                telemetry.ended(span, ending)
                return ending
        delivery.trace = envelope.trace  # what others trace stays one trace
        return self._seal(stage, delivery, policy, await self._call(stage, delivery, envelope, payload))

    async def _call(self, stage: Stage, delivery: Delivery, envelope: Envelope, payload: object) -> Outcome:
        context = Context(delivery, envelope)
        timeout = envelope.timeout or stage.timeout
        task = cast("asyncio.Task[Any]", asyncio.current_task())
        self._deadlines[task] = time.monotonic() + timeout
        try:
            returned = await stage.handler(context, payload)
        except Permanent as error:
            return Bury(_message(error))
        except RetryLater as error:
            return Retry(error.seconds, _message(error), counts=False)
        except asyncio.CancelledError as error:
            late = task in self._late
            if task.cancelling() > late:
                raise
            # Else we cancelled it for its time, or it cancelled itself.
            return Retry(math.nan, f"took longer than {timeout:g} s" if late else _said(error))
        except (KeyboardInterrupt, GeneratorExit):
            raise
        except BaseException as error:  # a handler may raise anything, and must not end its slot
            log.debug("handler failed", exc_info=True)
            return Retry(math.nan, _said(error))
        finally:
            del self._deadlines[task]
            if task in self._late:
                self._late.discard(task)
                task.uncancel()  # the slot goes on, and its next handler starts with a clean slate
        return returned if isinstance(returned, Outcome) else Done(returned)

    async def run_once(self) -> int:
        """Cancel the handlers that are over their time; returns how many.

        One look at all of them now and then costs far less than a timer for each.
        """
        now = time.monotonic()
        late = [task for task, deadline in self._deadlines.items() if deadline < now and task not in self._late]
        for task in late:
            self._late.add(task)
            task.cancel()
        return len(late)

    def _seal(self, stage: Stage, delivery: Delivery, policy: RetryPolicy, outcome: Outcome) -> Ending:
        """The outcome as it is written; one that cannot be written is buried."""
        match outcome:
            case Retry():
                return _again(delivery, policy, msgspec.structs.replace(outcome, error=_clean(outcome.error)))
            case Bury(reason, error):
                return Bury(_clean(reason), _clean(error))
            case Done(None, ()):
                return NOTHING
            case Done(result, forward):
                try:
                    for job in forward:
                        self._pipeline.check(job)
                    forwards = tuple((job.stage, seal(job, trace=delivery.trace)) for job in forward)
                    encoded = _encode(result) if stage.keep_results else b"\xc0"
                except (BadInput, TypeError, ValueError, OverflowError, RecursionError) as error:
                    return Bury("what its handler returned cannot be written", _clean(_said(error)))
        if len(encoded) > RESULT_LIMIT:
            return Bury(f"its result of {len(encoded):,} bytes is over the limit of {RESULT_LIMIT:,}")
        return Settled(msgspec.Raw(encoded), forwards)


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
