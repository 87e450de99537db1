"""The stage `cleanup.tts-cache`: spoken replies that were made long ago."""

from collections.abc import AsyncIterator, Callable
from typing import Protocol

from pipeline import Context
from pipeline.message import now_ms
from stages.cleanup.retention import Retention
from stages.cleanup.run import Pruned, Run
from stages.jobs import Prune
from stages.speech.cache import Shelf

OFF = "replies are not spoken: speech.engine is off"
OF_NOBODY = "spoken replies are kept by their words, whoever's they are: none is one tenant's alone"


class SpeechCache(Protocol):
    """What spoken replies are kept in."""

    def prune(self, before_ms: int, *, dry_run: bool) -> AsyncIterator[Shelf]:
        """Delete what was made before then, shelf by shelf; see CachedSynthesizer."""


class SpeechCacheHandler:
    """Deletes old voice notes from the cache of speech, None where there is none. They can be made again, and say
    nothing of whom they were for, so no hold is on them."""

    def __init__(self, cache: SpeechCache | None, days: float, now: Callable[[], int] = now_ms) -> None:
        self._cache = cache
        self._retention = Retention(days)
        self._now = now

    async def __call__(self, ctx: Context, job: Prune) -> Pruned:
        if self._cache is None or job.tenant is not None:
            return Pruned(dry_run=job.dry_run, skipped=OFF if self._cache is None else OF_NOBODY)
        run = Run(ctx, job)
        before_ms = self._retention.cutoffs(job, self._now()).common
        async for shelf in self._cache.prune(before_ms, dry_run=job.dry_run):
            run.counts.update(files=shelf.files, bytes=shelf.bytes, batches=shelf.batches)
            await run.reached(shelf.percent)
        return run.result()
