"""The lease heartbeat, in a thread with a loop of its own, so that a handler blocking the worker's loop
for many leases, or a ten-minute transcription, loses nothing."""

import asyncio
import logging
import threading
from collections.abc import Callable, Sequence

from pipeline.broker import Broker
from pipeline.lane import Lane
from pipeline.services.ticker import every

log = logging.getLogger(__name__)


class Renewer:
    """Renews every entry the lanes hold, three times a lease.

    `connect` makes the thread's own broker: connections belong to the loop they were made on.
    """

    def __init__(self, connect: Callable[[], Broker], lanes: Sequence[Lane], consumer: str, lease: float) -> None:
        self._connect = connect
        self._lanes = lanes
        self._consumer = consumer
        self._lease = lease
        self._thread = threading.Thread(target=self._run, name="lease-renewer", daemon=True)
        self._started = threading.Event()

    def start(self) -> None:
        """Begin renewing; returns when the thread's loop is up."""
        self._worker_loop = asyncio.get_running_loop()
        self._thread.start()
        self._started.wait()

    def hurry(self) -> None:
        """Renew now, besides: something to cancel may have been missed."""
        asyncio.run_coroutine_threadsafe(self.run_once(), self._loop)

    def stop(self) -> None:
        """End the thread; waits for the renewal under way."""
        self._loop.call_soon_threadsafe(self._stopping.set)
        self._thread.join()

    def _run(self) -> None:
        asyncio.run(self._main())

    async def _main(self) -> None:
        self._loop, self._stopping = asyncio.get_running_loop(), asyncio.Event()
        self._started.set()
        self._broker = self._connect()
        try:
            await every(self._lease / 3, self.run_once, self._stopping)
        finally:
            await self._broker.close()

    async def run_once(self) -> int:
        """Returns the number of entries renewed."""
        renewed = 0
        for lane in self._lanes:
            for partition in range(self._broker.partitions):
                # list() of a dict is one step under the interpreter lock: the worker's loop goes on meanwhile.
                held = list(lane.held[partition].values())
                lost, unwanted = await self._broker.renew(lane.stage.name, partition, self._consumer, held)
                for entry in unwanted:  # in case the signal was missed
                    self._worker_loop.call_soon_threadsafe(lane.cancel, partition, entry)
                renewed += len(held) - len(lost)
        return renewed
