"""Takes over what is due again and what was abandoned."""

import logging
from collections.abc import Sequence

from pipeline.broker import Broker
from pipeline.fetcher import Give
from pipeline.lane import Lane

log = logging.getLogger(__name__)

INTERVAL = 0.1


class Reclaimer:
    """Asks for every lane and partition, for as many entries as the lane has room for."""

    def __init__(self, broker: Broker, lanes: Sequence[Lane], consumer: str, lease: float, give: Give) -> None:
        self._broker = broker
        self._lanes = lanes
        self._consumer = consumer
        self._lease = lease
        self._give = give

    async def run_once(self) -> int:
        """Returns the number of entries taken."""
        taken = 0
        for lane in self._lanes:
            for partition in range(self._broker.partitions):
                if (room := lane.room()) > 0:
                    found = await self._broker.reclaim(
                        lane.stage.name, partition, self._consumer, self._lease, room
                    )
                    await self._give(lane, found)
                    taken += len(found)
        return taken
