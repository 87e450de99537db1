"""The worker: fetch → execute → settle for some stages, with its chores beside it."""

import asyncio
import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from redis.exceptions import RedisError

from pipeline import metrics
from pipeline.broker import Broker
from pipeline.errors import ServerUnavailable
from pipeline.executor import Executor
from pipeline.fetcher import Fetcher
from pipeline.lane import Lane
from pipeline.message import Delivery
from pipeline.name import ConsumerName
from pipeline.schedule import Schedule
from pipeline.services import ticker
from pipeline.services.renewer import Renewer
from pipeline.services.scheduler import Scheduler
from pipeline.services.steward import Steward
from pipeline.settler import Settler
from pipeline.stage import Stage

log = logging.getLogger(__name__)

TIMEOUT_PRECISION = 0.05  # seconds between looks for handlers over their time
SETTLE_GRACE = 10.0  # seconds a stopping worker waits for a server that is away


class Worker:
    """Works the given stages until told to stop.

    1. Fetchers bring entries into each stage's lane: those due again or abandoned first, then new ones.
    2. Lanes run handlers within the stage's concurrency.
    3. The settler writes outcomes back.
    4. The renewer keeps the leases of everything held, off this event loop.
    5. The steward does what others ask of all workers: look for what is due, pause, cancel.
    6. The scheduler adds the jobs of schedules: those given, and those put at run time. Without `schedules` (an
       empty list is some) there is none. `clock` is another clock for it than the server's, in ms.

    `lease` and `grace` are seconds: how long a silent worker keeps its entries, and how long running
    jobs may go on after a stop.
    """

    def __init__(
        self,
        connect: Callable[[], Broker],
        stages: Sequence[Stage],
        *,
        lease: float = 15.0,
        grace: float = 60.0,
        schedules: Sequence[Schedule] | None = None,
        clock: Callable[[], int] | None = None,
    ) -> None:
        self._name = ConsumerName()
        self.consumer = str(self._name)
        self.broker = connect()
        self.settler = Settler(self.broker, self.consumer)
        executor = Executor(self.broker, self.consumer)
        self.lanes = [Lane(stage, executor, self.settler) for stage in stages]
        if figures := metrics.work():
            figures.watch(self.lanes)
        self._grace = grace
        self._fetchers = [
            Fetcher(self.broker, lane, partition, self.consumer, lease)
            for lane in self.lanes
            for partition in range(self.broker.partitions)
        ]
        self._renewer = Renewer(connect, self.lanes, self.consumer, lease)
        self._scheduler = None if schedules is None else Scheduler(self.broker, schedules, clock=clock)
        self._steward = Steward(self.broker, self._fetchers, self._give_back_unstarted, self._renewer.hurry)

    async def run(self, stop: asyncio.Event) -> int:
        """Work until `stop` is set; returns how many jobs it leaves to their lease: they would not end,
        or their outcome could not be written."""
        try:
            async with self.broker:
                await self.broker.ensure_groups()
                await asyncio.gather(*(lane.stage.prepare() for lane in self.lanes if lane.stage.prepare))
                return await self._work(stop)
        finally:
            self._name.release()

    async def _work(self, stop: asyncio.Event) -> int:
        self._renewer.start()
        stop_timing = asyncio.Event()
        fetching = [asyncio.create_task(fetcher.run()) for fetcher in self._fetchers]
        settling = asyncio.create_task(self.settler.run())
        listening = asyncio.create_task(self._steward.run())
        scheduling = [asyncio.create_task(self._scheduler.run(stop_timing))] if self._scheduler else []
        timing = [
            asyncio.create_task(ticker.every(TIMEOUT_PRECISION, lane.run_once, stop_timing)) for lane in self.lanes
        ]
        log.info("working %s as %s", ", ".join(lane.stage.full_name for lane in self.lanes), self.consumer)
        try:
            await _until(stop, [*fetching, settling, listening, *timing, *scheduling])
        finally:
            self._steward.stop()
            unfinished = await self._shut_down(fetching, settling)
            stop_timing.set()
            if self._scheduler:
                self._scheduler.stop()
            await asyncio.wait([listening, *timing, *scheduling])
        return unfinished

    async def _shut_down(self, fetching: list[asyncio.Task[None]], settling: asyncio.Task[None]) -> int:
        # The order matters: nothing new comes in, what never started goes back at once, what runs may
        # finish and be settled, and only then do the leases end.
        for lane in self.lanes:
            lane.close()
        for fetcher in self._fetchers:
            fetcher.wake()
        await asyncio.wait(fetching)
        for lane in self.lanes:
            await self._give_back_unstarted(lane)
        await asyncio.gather(*(self._drain(lane) for lane in self.lanes))
        self.settler.close()
        await asyncio.wait([settling], timeout=SETTLE_GRACE)
        self._renewer.stop()
        with _server_may_be_gone("leave"):
            await self.broker.leave(self.consumer)
        return sum(lane.unfinished() for lane in self.lanes)

    async def _drain(self, lane: Lane) -> None:
        # Due again at once, and the try does not count: it was not the job that failed.
        await self._give_back(lane, await lane.drain(self._grace))

    async def _give_back_unstarted(self, lane: Lane) -> None:
        await self._give_back(lane, lane.take_unstarted())

    async def _give_back(self, lane: Lane, deliveries: list[Delivery]) -> None:
        for partition in {delivery.partition for delivery in deliveries}:
            of_it = [delivery for delivery in deliveries if delivery.partition == partition]
            with _server_may_be_gone("hand entries back"):
                await self.broker.release(lane.stage.name, partition, self.consumer, of_it)


@contextmanager
def _server_may_be_gone(what: str) -> Iterator[None]:
    """Go on without the server: what it was not told, the end of the lease tells it."""
    try:
        yield
    except (ServerUnavailable, RedisError) as error:
        log.warning("could not %s: %s", what, error)


async def _until(stop: asyncio.Event, tasks: list[asyncio.Task[None]]) -> None:
    """Wait for `stop`; raises what ended one of the tasks before."""
    stopped = asyncio.create_task(stop.wait())
    ended, _ = await asyncio.wait([stopped, *tasks], return_when=asyncio.FIRST_COMPLETED)
    stopped.cancel()
    for task in ended - {stopped}:
        task.result()
