"""The way in for other programs: `async with queue_service() as queue:`."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from api.console import with_address
from api.root import open_broker
from config import Settings, load
from stages.service import QueueService


@asynccontextmanager
async def queue_service(settings: Settings | None = None) -> AsyncIterator[QueueService]:
    """A QueueService on the Redis that the settings name, or on the server of the `riacho up` that runs on the
    same data folder. Without `settings` they are read as the commands read them.

    Opens connections to Redis and nothing else: no model, no database. The tasks of one event loop may share it.
    Raises SettingsError; ServerUnavailable or ServerUnsuitable saying what was tried and what to do.
    """
    async with open_broker(with_address(settings or load())) as broker:
        yield QueueService(broker)
