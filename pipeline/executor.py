"""One job as a pipe of named steps: decode → admit → try; whatever happens ends in an outcome."""

import asyncio
import logging
from typing import Any

import msgspec

from pipeline import telemetry
from pipeline.errors import Permanent
from pipeline.message import Delivery, Envelope, unseal
from pipeline.outcome import Bury, Done, Outcome, Retry
from pipeline.stage import Context, Pipeline, Stage

log = logging.getLogger(__name__)

ERROR_LIMIT = 500  # characters of an exception kept with the job


class Executor:
    """Runs handlers. `run` never raises, except that a cancelled run is cancelled."""

    def __init__(self, pipeline: Pipeline) -> None:
        decoder = msgspec.msgpack.Decoder
        self._decoders: dict[str, msgspec.msgpack.Decoder[Any]] = {
            stage.name: decoder(stage.payload) for stage in pipeline
        }

    async def run(self, stage: Stage, delivery: Delivery) -> Outcome:
        """The outcome of one delivery."""
        try:
            envelope = unseal(delivery.body)
            payload = self._decoders[stage.name].decode(envelope.payload)
        except (ValueError, msgspec.DecodeError) as error:
            return Bury(f"cannot be read: {error}")
        if delivery.attempt > stage.retry.attempts:
            return Bury(f"poison: its worker was lost {delivery.attempt - 1} times")
        with telemetry.process(stage, delivery, envelope) as span:
            delivery.trace = telemetry.traceparent(span)
            outcome = await self._try(stage, delivery, envelope, payload)
            telemetry.ended(span, outcome)
        return outcome

    async def _try(self, stage: Stage, delivery: Delivery, envelope: Envelope, payload: object) -> Outcome:
        try:
            return _outcome(await self._call(stage, delivery, envelope, payload))
        except Permanent as error:
            return Bury(str(error))
        except TimeoutError:
            return _failed(stage, delivery, f"took longer than {stage.timeout:g} s")
        except Exception as error:
            log.debug("handler failed", exc_info=True)
            return _failed(stage, delivery, f"{type(error).__name__}: {error}"[:ERROR_LIMIT])

    async def _call(self, stage: Stage, delivery: Delivery, envelope: Envelope, payload: object) -> object:
        context = Context(
            job_id=delivery.id,
            attempt=delivery.attempt,
            tenant=envelope.tenant,
            key=envelope.key,
            enqueued_ms=envelope.enqueued_ms,
        )
        async with asyncio.timeout(stage.timeout):
            return await stage.handler(context, payload)


def _outcome(returned: object) -> Outcome:
    return returned if isinstance(returned, Outcome) else Done(returned)


def _failed(stage: Stage, delivery: Delivery, error: str) -> Outcome:
    if delivery.attempt >= stage.retry.attempts:
        return Bury(f"gave up after {delivery.attempt} tries", error)
    return Retry(stage.retry.delay(delivery.attempt), error)
