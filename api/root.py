"""The composition root: settings in, a broker on the pipeline of the real parts out."""

import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from api.adapters import Adapters
from config import Settings
from pipeline import Broker, Pipeline
from pipeline.errors import ServerUnavailable

log = logging.getLogger(__name__)

PATIENCE = 0.9  # seconds a client of the HTTP service waits for Redis


def connector(settings: Settings, pipeline: Pipeline, *, patience: float | None = None) -> Callable[[], Broker]:
    """Makes brokers, which wait `patience` seconds for an answer: each event loop needs its own."""
    redis = settings.redis
    return lambda: Broker(
        redis.url.reveal(),
        pipeline,
        namespace=redis.namespace,
        partitions=redis.partitions,
        memory_share=redis.memory_share,
        patience=patience,
    )


@asynccontextmanager
async def open_broker(
    settings: Settings, adapters: Adapters | None = None, *, patience: float | None = None
) -> AsyncIterator[Broker]:
    """A broker for a process that takes jobs in or looks at them; warns of what is unsafe about the server.

    Raises ServerUnavailable saying what was tried and what to do.
    """
    await check(settings)
    pipeline = (adapters or Adapters(settings)).pipeline()
    async with connector(settings, pipeline, patience=patience)() as broker:
        yield broker


async def check(settings: Settings) -> None:
    """Refuse a server that cannot be used, warn loudly of one that may lose jobs."""
    async with connector(settings, Pipeline([]))() as broker:
        try:
            server = await broker.check()
        except ServerUnavailable as error:
            raise ServerUnavailable(
                f"cannot reach {error}. Start Redis there, or set REDIS_URL (or REDIS_HOST, REDIS_PORT, "
                "REDIS_PASSWORD); 'riacho up' with none of them set brings its own server"
            ) from error
        for warning in server.warnings:
            log.warning("WARNING: jobs may be lost. Redis at %s: %s", broker.address, warning)
