"""Voice notes referred to in the store once they are transcribed."""

import asyncio
import logging

from pipeline import Context, Done
from pipeline.message import now_ms
from pipeline.stage import Handler
from stages.audio.sources.web import shown
from stages.jobs import Transcribe
from stages.ports import MediaLog, MediaReference, Transcript
from stages.store import StoreUnavailable

log = logging.getLogger(__name__)

LONGEST = 10.0  # seconds to wait for the store; the transcript waits meanwhile


class Referenced:
    """A handler of voice notes that leaves a reference of each it transcribed. A transcript is worth more than its
    reference: without a store there is none."""

    def __init__(self, handler: Handler, media: MediaLog) -> None:
        self._handler = handler
        self._media = media

    async def __call__(self, ctx: Context, job: Transcribe) -> object:
        outcome = await self._handler(ctx, job)
        if isinstance(outcome, Done) and isinstance(outcome.result, Transcript):
            await self._refer(_reference(ctx, job, outcome.result))
        return outcome

    async def _refer(self, reference: MediaReference) -> None:
        try:
            async with asyncio.timeout(LONGEST):
                await self._media.record(reference)
        except (StoreUnavailable, TimeoutError) as error:
            reason = str(error) or f"no answer within {LONGEST:g} s"
            log.warning("no reference of the voice note of %s is kept: %s", reference.job, reason)


def _reference(ctx: Context, job: Transcribe, transcript: Transcript) -> MediaReference:
    return MediaReference(
        job=str(ctx.job_id),
        tenant=ctx.tenant,
        chat=job.message.chat if job.message else "",
        message=job.message.id if job.message else "",
        source=shown(job.source),
        language=transcript.language,
        seconds=transcript.duration,
        heard=round(transcript.seconds * 1000),
        at_ms=now_ms(),
    )
