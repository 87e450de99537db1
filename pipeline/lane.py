"""What one worker holds of one stage."""

import asyncio
from collections import deque
from collections.abc import Iterable

from pipeline.executor import Executor
from pipeline.message import Delivery
from pipeline.settler import Settler
from pipeline.stage import Stage


class Lane:
    """Entries of one stage on their way through this worker: ready → running → handed to the settler.

    Every entry in `held` is this worker's to finish, and its lease to renew. Never runs more than the
    stage's concurrency, and gives back what neither a slot nor the prefetch has room for.
    """

    def __init__(self, stage: Stage, executor: Executor, settler: Settler) -> None:
        self.stage = stage
        self.held: dict[tuple[int, bytes], Delivery] = {}
        self._executor = executor
        self._settler = settler
        self._ready: deque[Delivery] = deque()
        self._running: set[asyncio.Task[None]] = set()
        self._cut_off: list[Delivery] = []
        self._changed = asyncio.Event()
        self._closed = False

    def room(self) -> int:
        """How many more entries may be taken in; none once closed."""
        if self._closed:
            return 0
        return self.stage.concurrency + self.stage.prefetch - len(self._running) - len(self._ready)

    async def wait_for_room(self) -> int:
        """`room()` as soon as there is some; 0 says the lane was closed."""
        while self.room() <= 0 and not self._closed:
            self._changed.clear()
            await self._changed.wait()
        return self.room()

    def close(self) -> None:
        """Take nothing in any more."""
        self._closed = True
        self._changed.set()

    def accept(self, deliveries: Iterable[Delivery]) -> list[Delivery]:
        """Take entries in and start what fits; returns the ones there is no room for.

        A fetch that was blocked while the reclaimer filled the lane brings more than there is room for.
        """
        for delivery in deliveries:
            place = (delivery.partition, delivery.entry)
            if place not in self.held:  # else its lease ran out under our own hands: it is running here already
                self.held[place] = delivery
                self._ready.append(delivery)
        self._start()
        return [self._drop(self._ready.pop()) for _ in range(len(self._ready) - self.stage.prefetch)]

    def take_unstarted(self) -> list[Delivery]:
        """Everything fetched but not started, which is then no longer held."""
        unstarted = [self._drop(delivery) for delivery in self._ready]
        self._ready.clear()
        return unstarted

    async def drain(self, grace: float) -> tuple[list[Delivery], int]:
        """Wait for what runs, and cancel what is left after `grace` seconds.

        Returns the entries that were cut off, which are then no longer held, and how many would not end.
        """
        if self._running:
            _, late = await asyncio.wait(self._running, timeout=grace)
            for task in late:
                task.cancel()
            if late:
                await asyncio.wait(late, timeout=1)
        return [self._drop(delivery) for delivery in self._cut_off], len(self._running)

    def _start(self) -> None:
        while self._ready and len(self._running) < self.stage.concurrency:
            task = asyncio.create_task(self._work(self._ready.popleft()))
            self._running.add(task)
            task.add_done_callback(self._finished)

    async def _work(self, delivery: Delivery) -> None:
        try:
            ending = await self._executor.run(self.stage, delivery)
        except asyncio.CancelledError:
            self._cut_off.append(delivery)
        else:
            self._settler.put(self.stage, delivery, ending, self._drop)

    def _finished(self, task: asyncio.Task[None]) -> None:
        self._running.discard(task)
        self._start()
        self._changed.set()

    def _drop(self, delivery: Delivery) -> Delivery:
        self.held.pop((delivery.partition, delivery.entry), None)
        return delivery
