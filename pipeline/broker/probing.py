"""Whether the stages work, by trying: a job without work through each of them."""

import asyncio
import time
from contextlib import suppress

from pipeline.broker.looking import Looking
from pipeline.broker.producing import Producing
from pipeline.errors import JobUnknown, Refused
from pipeline.message import JobId
from pipeline.stage import Stage
from pipeline.views import StageProbe


class Probing(Producing, Looking):
    """For whoever wants to see it work."""

    async def probe(self, *, timeout: float = 5.0, silent: float = 15.0) -> list[StageProbe]:
        """Send a job without work the way of all jobs, through each partition of each stage at the same time, and
        wait up to `timeout` seconds for it.

        It takes a place in the stream, and a slot (or one in a batch) of a worker, where it ends in place of being
        given to the handler; it takes no token of a rate limit, and is on no tenant's account. A stage has a
        worker if one was heard of within `silent` seconds.
        """
        paused = await self._paused()
        tries = [self._probe(stage, stage.name in paused, timeout, silent) for stage in self.pipeline]
        return await asyncio.gather(*tries)

    async def _probe(self, stage: Stage, paused: bool, timeout: float, silent: float) -> StageProbe:
        if paused:
            return StageProbe(stage.queue, stage.name, None, "paused")
        tries = [self._try(stage, partition, timeout, silent) for partition in range(self.partitions)]
        found = await asyncio.gather(*tries)
        errors = [each for each in found if isinstance(each, str)]
        slowest = max((each for each in found if not isinstance(each, str)), default=None)
        return StageProbe(stage.queue, stage.name, None if errors else slowest, errors[0] if errors else "")

    async def _try(self, stage: Stage, partition: int, timeout: float, silent: float) -> float | str:
        """The milliseconds it took, or what is wrong."""
        began = time.perf_counter()
        try:
            job = await self.add_probe(stage, partition)
            view = await self._end_of(job, timeout)
        except Refused as error:
            return str(error)
        except JobUnknown:
            return "somebody cleared its stage"
        except TimeoutError:
            return await self._why_not(stage, job, timeout, silent)
        if view.state == "failed":
            await self._drop_letter(job)
            return f"a worker buried it: {view.reason}"
        if view.state == "cancelled":
            return "somebody cancelled it"
        return round((time.perf_counter() - began) * 1000, 2)

    async def _why_not(self, stage: Stage, job: JobId, timeout: float, silent: float) -> str:
        """Why a probe has not come through. It is taken out, so that it does not lie in anybody's way."""
        view = await self.look(job)
        with suppress(JobUnknown):  # or it came through just now
            if await self.cancel(job) == "cancelled":
                await self._wire.command("DEL", self._keys.job(job))
        if stage.name in await self._paused():
            return "paused"
        if not (await self.workers(silent))[stage.name]:
            return f"no worker has {stage.full_name}; start one with 'riacho worker --stages {stage.name}'"
        if view and view.position:
            least = "at least " if view.position_at_least else ""
            return f"not begun within {timeout:g} s: {least}{view.position} jobs are before it"
        return f"not begun within {timeout:g} s: its workers are busy"

    async def _drop_letter(self, job: JobId) -> None:
        """There is nothing in it for a person: a worker of a version that knows no probes buries them unread."""
        dead, letters = self._keys.dead(*job[:2]), self._keys.letters(*job[:2])
        if letter := await self._wire.command("HGET", letters, job.entry):
            forget = ("DEL", self._keys.job(job))
            await self._together([("XDEL", dead, letter), ("HDEL", letters, job.entry), forget])

    async def _paused(self) -> set[str]:
        return {status.stage for status in await self.status() if status.paused}
