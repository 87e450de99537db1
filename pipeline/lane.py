"""What one worker holds of one stage."""

import asyncio
import functools
import time
from collections import defaultdict, deque
from collections.abc import Iterable, Sequence

from pipeline import metrics
from pipeline.executor import NOTHING, Executor, Slot
from pipeline.message import Delivery
from pipeline.outcome import Ending, Retry, Throttled
from pipeline.settler import Ended, Settler
from pipeline.stage import Batch, Stage

# A slot whose handlers never wait lets the rest of the worker run after so many seconds.
LONGEST_TURN = 0.0005
MOST_UNSETTLED = 2000


class Lane:
    """Entries of one stage on their way through this worker: ready → running → handed to the settler.

    Every entry in `held` is this worker's to finish, and its lease to renew. Never holds more than its slots
    and the prefetch have room for: who fetches has to reserve first.

    Slots are tasks that run one entry (or batch) after the other, as many as the stage's concurrency. A slot that
    leaves entries behind has one more slot woken in the loop's next turn: handlers that wait fill all slots, those
    that don't are run through by one, without a task or a turn of the loop for each.
    """

    def __init__(self, stage: Stage, executor: Executor, settler: Settler) -> None:
        self.stage = stage
        self.held: dict[int, dict[bytes, Delivery]] = defaultdict(dict)  # by partition and entry
        self._executor = executor
        self._settler = settler
        self._ready: deque[Delivery] = deque()
        self._slots: dict[asyncio.Task[None], Slot] = {}
        self._idle: list[asyncio.Future[None]] = []
        self._waking = False
        self._arrival = asyncio.Event()  # a batch that is not full waits for it
        self._running = 0
        self._ended: list[Ended] = []  # and not yet with the settler
        self._cut_off: list[Delivery] = []
        self._changed = asyncio.Event()
        # Fetched again when no more than these are ready: half the prefetch, and a batch that is not full.
        self._low = stage.prefetch // 2 + (stage.batch.size - 1 if stage.batch else 0)
        self._reserved = 0
        self._turn = asyncio.Lock()  # first come, first served: or one partition would keep the only place
        self._capacity = stage.at_once + stage.prefetch
        self._closed = False
        self._figures = metrics.work()

    def room(self) -> int:
        """How many more entries may be reserved; none once closed."""
        if self._closed:
            return 0
        return self._capacity - self._running - len(self._ready) - self._reserved

    def unfinished(self) -> int:
        """How many entries are held: not settled yet, whether they ran or not."""
        return sum(map(len, self.held.values()))

    @property
    def busy(self) -> int:
        """Slots that run a job or gather a batch."""
        return len(self._slots) - len(self._idle)

    async def reserve(self, shares: int = 1) -> int:
        """Wait for room worth a fetch, and reserve one of so many shares of it; 0 says the lane was closed."""
        async with self._turn:
            while not self._closed and not self._worth_a_fetch():
                self._changed.clear()
                await self._changed.wait()
            count = -(-self.room() // shares)
            self._reserved += count
            return count

    def crowded(self) -> bool:
        """Whether somebody waits for room."""
        return self._turn.locked()

    def _worth_a_fetch(self) -> bool:
        # What ran but is not settled yet has a bound too: a server that settles slowly is not read from faster.
        few = len(self._ready) <= self._low and self.unfinished() < self._capacity + MOST_UNSETTLED
        return few and self.room() > 0

    def accept(self, deliveries: Sequence[Delivery], reserved: int) -> None:
        """Take in what came of a reservation, which is then over."""
        self._reserved -= reserved
        if self._figures and deliveries:
            self._figures.fetched(self.stage, len(deliveries))
        now = time.monotonic()
        for delivery in deliveries:
            delivery.taken = now
            held = self.held[delivery.partition]
            known = held.get(delivery.entry)
            # One that is held already lost its lease under our own hands, and is running here; unless its try is
            # over, and it is back before we were told that it was parked.
            if known is None or known.parked:
                held[delivery.entry] = delivery
                self._ready.append(delivery)
        self._wake_a_slot()
        self._arrival.set()
        self._changed.set()

    def cancel(self, partition: int, entry: bytes) -> None:
        """Have an entry's handler stop, or never start."""
        delivery = self.held[partition].get(entry)
        if delivery is None or delivery.unwanted:
            return
        delivery.unwanted = True
        for slot in self._slots.values():
            if slot.delivery is delivery:
                slot.interrupt()

    async def run_once(self) -> int:
        """Interrupt the handlers that are over their time; returns how many.

        One look at all of them now and then costs far less than a timer for each.
        """
        now = time.monotonic()
        return sum(slot.check(now) for slot in self._slots.values())

    def close(self) -> None:
        """Take nothing in and start nothing any more."""
        self._closed, self._low = True, self._capacity
        self._arrival.set()
        self._changed.set()

    def take_unstarted(self) -> list[Delivery]:
        """Everything fetched but not started, which is then no longer held."""
        unstarted = list(self._ready)
        self._ready.clear()
        self._forget(unstarted)
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
        for task in self._slots:
            task.cancel()
        if self._slots:
            await asyncio.wait(self._slots, timeout=1)
        self._forget(self._cut_off)
        return self._cut_off

    def take_ended(self) -> list[Ended]:
        """What ended, for the settler; it is held until let go."""
        ended, self._ended = self._ended, []
        return ended

    def let_go(self, ended: Iterable[Ended]) -> None:
        """These are settled, or another's: nobody has to finish them here any more."""
        self._forget(delivery for delivery, _ in ended)

    def _forget(self, deliveries: Iterable[Delivery]) -> None:
        for delivery in deliveries:
            held = self.held[delivery.partition]
            if held.get(delivery.entry) is delivery:
                del held[delivery.entry]
        self._changed.set()

    def _wake_a_slot(self) -> None:
        self._waking = False
        if self._closed or not self._ready:
            return
        if self._idle:
            self._idle.pop().set_result(None)
        elif len(self._slots) < self.stage.concurrency:
            task = asyncio.create_task(self._run_slot())
            self._slots[task] = Slot(task)
            task.add_done_callback(self._slots.pop)

    async def _run_slot(self) -> None:
        loop = asyncio.get_running_loop()
        slot = self._slots[asyncio.current_task()]  # type: ignore[index]
        work = functools.partial(self._work_batch, self.stage.batch) if self.stage.batch else self._work
        turn_over = 0.0
        while True:
            while self._ready and not self._closed:
                await work(slot)
                # Or at once where more should be fetched: so that it comes while we work on what is left.
                if slot.started > turn_over or len(self._ready) == self._low:
                    await asyncio.sleep(0)
                    turn_over = time.monotonic() + LONGEST_TURN
            idle = loop.create_future()
            self._idle.append(idle)
            await idle

    def _take(self) -> Delivery:
        delivery = self._ready.popleft()
        if len(self._ready) == self._low:  # slots may be free for long: who fetches cannot wait for one to end
            self._changed.set()
        if self._ready and not self._waking:
            self._waking = True
            asyncio.get_running_loop().call_soon(self._wake_a_slot)
        return delivery

    async def _work(self, slot: Slot) -> None:
        delivery = self._take()
        self._running += 1
        try:
            ending = await self._executor.run(self.stage, delivery, slot)
            if ending is NOTHING and self._ended:
                self._ended.append((delivery, ending))  # as nearly always
            else:
                self._end(delivery, ending)
        except BaseException as error:
            self._leave([delivery], error)
            raise
        finally:
            self._running -= 1
            if len(self._ready) <= self._low:
                self._changed.set()

    async def _work_batch(self, batching: Batch, slot: Slot) -> None:
        batch = await self._gather(batching)
        self._running += len(batch)
        try:
            endings = await self._executor.run_batch(self.stage, batch, slot)
            for delivery, ending in zip(batch, endings, strict=True):
                self._end(delivery, ending)
        except BaseException as error:
            self._leave(batch, error)
            raise
        finally:
            self._running -= len(batch)
            self._changed.set()

    async def _gather(self, batch: Batch) -> Sequence[Delivery]:
        """What is ready, once there is enough of it or the first waited long enough."""
        loop = asyncio.get_running_loop()
        end = loop.time() + batch.wait
        while len(self._ready) < batch.size and loop.time() < end and not self._closed:
            self._arrival.clear()
            try:
                await asyncio.wait_for(self._arrival.wait(), end - loop.time())
            except TimeoutError:
                break
        if self._closed:
            return []
        return [self._take() for _ in range(min(len(self._ready), batch.size))]

    def _end(self, delivery: Delivery, ending: Ending) -> None:
        delivery.parked = isinstance(ending, Retry | Throttled)
        self._ended.append((delivery, ending))
        if len(self._ended) == 1:
            self._settler.come(self)

    def _leave(self, deliveries: Sequence[Delivery], error: BaseException) -> None:
        """What was cut off is handed back; else nobody is going to finish it here: let its lease end."""
        if isinstance(error, asyncio.CancelledError):
            self._cut_off += deliveries
        else:
            self._forget(deliveries)
