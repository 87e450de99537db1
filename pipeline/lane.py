"""What one worker holds of one stage."""

import asyncio
from collections import defaultdict, deque
from collections.abc import Iterable

from pipeline.executor import Executor
from pipeline.message import Delivery
from pipeline.outcome import Retry
from pipeline.settler import Settler
from pipeline.stage import Stage

# A slot whose handlers never wait lets the rest of the worker run after so many entries.
ENTRIES_A_TURN = 64
MOST_UNSETTLED = 2000


class Lane:
    """Entries of one stage on their way through this worker: ready → running → handed to the settler.

    Every entry in `held` is this worker's to finish, and its lease to renew. Never holds more than its slots
    and the prefetch have room for: who fetches has to reserve first.

    Slots are tasks that run one entry after the other, as many as the stage's concurrency. A slot that takes an
    entry and leaves others wakes one more slot: handlers that wait fill all slots, those that don't are run
    through by one, without a task or a turn of the loop for each.
    """

    def __init__(self, stage: Stage, executor: Executor, settler: Settler) -> None:
        self.stage = stage
        self.held: dict[int, dict[bytes, Delivery]] = defaultdict(dict)  # by partition and entry
        self._executor = executor
        self._settler = settler
        self._ready: deque[Delivery] = deque()
        self._slots: set[asyncio.Task[None]] = set()
        self._idle: list[asyncio.Future[None]] = []
        self._running = 0
        self._cut_off: list[Delivery] = []
        self._changed = asyncio.Event()
        self._reserved = 0
        self._most_held = stage.concurrency + stage.prefetch + MOST_UNSETTLED
        self._closed = False

    def room(self) -> int:
        """How many more entries may be reserved; none once closed."""
        if self._closed:
            return 0
        taken = self._running + len(self._ready) + self._reserved
        return self.stage.concurrency + self.stage.prefetch - taken

    def unfinished(self) -> int:
        """How many entries are held: not settled yet, whether they ran or not."""
        return sum(map(len, self.held.values()))

    async def reserve(self, shares: int = 1) -> int:
        """Wait for room worth a fetch, and reserve one of so many shares of it; 0 says the lane was closed."""
        while not self._closed and not self._worth_a_fetch():
            self._changed.clear()
            await self._changed.wait()
        count = -(-self.room() // shares)
        self._reserved += count
        return count

    def _worth_a_fetch(self) -> bool:
        half_used = len(self._ready) <= self.stage.prefetch // 2
        # What ran but is not settled yet has a bound too: a server that settles slowly is not read from faster.
        return half_used and self.room() > 0 and self.unfinished() < self._most_held

    def accept(self, deliveries: Iterable[Delivery], reserved: int) -> None:
        """Take in what came of a reservation, which is then over."""
        self._reserved -= reserved
        for delivery in deliveries:
            held = self.held[delivery.partition]
            known = held.get(delivery.entry)
            # One that is held already lost its lease under our own hands, and is running here; unless its try is
            # over, and it is back before we were told that it was parked.
            if known is None or known.parked:
                held[delivery.entry] = delivery
                self._ready.append(delivery)
        self._wake_a_slot()
        self._changed.set()

    def close(self) -> None:
        """Take nothing in and start nothing any more."""
        self._closed = True
        self._changed.set()

    def take_unstarted(self) -> list[Delivery]:
        """Everything fetched but not started, which is then no longer held."""
        unstarted = [self._drop(delivery) for delivery in self._ready]
        self._ready.clear()
        return unstarted

    async def drain(self, grace: float) -> list[Delivery]:
        """Wait for what runs, cancel what is left after `grace` seconds, and end the slots.

        Returns the entries that were cut off, which are then no longer held; what would not end still is.
        """
        try:
            async with asyncio.timeout(grace):
                while self._running:
                    self._changed.clear()
                    await self._changed.wait()
        except TimeoutError:
            pass
        for slot in self._slots:
            slot.cancel()
        if self._slots:
            await asyncio.wait(self._slots, timeout=1)
        return [self._drop(delivery) for delivery in self._cut_off]

    def _wake_a_slot(self) -> None:
        if self._closed or not self._ready:
            return
        if self._idle:
            self._idle.pop().set_result(None)
        elif len(self._slots) < self.stage.concurrency:
            slot = asyncio.create_task(self._slot())
            self._slots.add(slot)
            slot.add_done_callback(self._slots.discard)

    async def _slot(self) -> None:
        loop, turn = asyncio.get_running_loop(), 0
        while True:
            while self._ready and not self._closed:
                await self._work(self._ready.popleft())
                turn += 1
                if turn % ENTRIES_A_TURN == 0:
                    await asyncio.sleep(0)
            idle = loop.create_future()
            self._idle.append(idle)
            await idle

    async def _work(self, delivery: Delivery) -> None:
        self._running += 1
        if self._ready:
            self._wake_a_slot()
        try:
            ending = await self._executor.run(self.stage, delivery)
            delivery.parked = isinstance(ending, Retry)
            self._settler.put(self.stage, delivery, ending, self._settled)
        except asyncio.CancelledError:
            self._cut_off.append(delivery)
            raise
        except BaseException:
            self._drop(delivery)  # nobody is going to finish it here: let its lease end
            raise
        finally:
            self._running -= 1
            self._changed.set()

    def _settled(self, delivery: Delivery) -> None:
        self._drop(delivery)
        self._changed.set()

    def _drop(self, delivery: Delivery) -> Delivery:
        held = self.held[delivery.partition]
        if held.get(delivery.entry) is delivery:
            del held[delivery.entry]
        return delivery
