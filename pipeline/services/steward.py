"""Does in this worker what others ask of all workers."""

import logging
from collections.abc import Awaitable, Callable, Sequence

from pipeline.broker import Broker
from pipeline.fetcher import Fetcher
from pipeline.lane import Lane
from pipeline.signals import Inbox

log = logging.getLogger(__name__)

GiveBack = Callable[[Lane], Awaitable[None]]


class Steward:
    """Listens for signals: something is due earlier than known, a stage is paused, a job is cancelled.

    None of them is the only way to learn of it: fetchers look for themselves now and then, a paused stage gives
    nothing out, and the renewer is told what to cancel. A signal makes it immediate.
    """

    def __init__(
        self,
        broker: Broker,
        fetchers: Sequence[Fetcher],
        give_back: GiveBack,
        renew: Callable[[], None],
    ) -> None:
        self._broker = broker
        self._fetchers = fetchers
        self._give_back = give_back
        self._renew = renew
        self._inbox: Inbox | None = None
        self._stopping = False

    async def run(self) -> None:
        """Listen until told to stop."""
        async with self._broker.signals() as inbox:
            self._inbox = inbox
            while not self._stopping:
                match (await inbox.get() or b"").decode().split(" "):
                    case ["wake", stage]:
                        self._wake(stage)
                    case ["pause", stage]:
                        await self._pause(stage)
                    case ["cancel", stage, partition, entry]:
                        for lane in self._lanes(stage):
                            lane.cancel(int(partition), entry.encode())
                    case _ if not self._stopping:  # listening from here on: what came before may be missed
                        self._wake(None)
                        self._renew()

    def stop(self) -> None:
        """End `run`; the client library may swallow a cancellation, so it is not cancelled."""
        self._stopping = True
        if self._inbox:
            self._inbox.put_nowait(None)

    def _wake(self, stage: str | None) -> None:
        for fetcher in self._fetchers:
            if stage in (None, fetcher.lane.stage.name):
                fetcher.wake()

    async def _pause(self, stage: str) -> None:
        # What was fetched but not started waits with the others; it is due when the stage is resumed.
        for lane in self._lanes(stage):
            await self._give_back(lane)

    def _lanes(self, stage: str) -> set[Lane]:
        return {fetcher.lane for fetcher in self._fetchers if fetcher.lane.stage.name == stage}
