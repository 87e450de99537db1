"""Servers, and workers as processes, that a test has to itself."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from api.adapters import Adapters
from api.root import connector
from config import Secret, load, replaced
from pipeline import Broker
from tests.faults.servers import OwnServer
from tests.processes import SAMPLES


@pytest.fixture
def env(env: dict[str, str]) -> dict[str, str]:
    """Workers of this test: one job of a kind at a time, a lease of a second."""
    return env | {
        "RIACHO_AUDIO_ROOTS": str(SAMPLES),
        "RIACHO_AUDIO_CONCURRENCY": "1",
        "RIACHO_WORKER_LEASE": "1",
    }


@pytest.fixture
async def own(tmp_path: Path) -> AsyncIterator[OwnServer]:
    """A server of this test alone."""
    server = OwnServer(tmp_path)
    await server.start()
    yield server
    await server.stop()


@pytest.fixture
async def broker(server: str, namespace: str, tmp_path: Path) -> AsyncIterator[Broker]:
    """The stages as those workers have them."""
    settings = replaced(
        load(environ={}), redis={"url": Secret(server), "namespace": namespace}, data={"folder": tmp_path}
    )
    async with connector(settings, Adapters(settings).pipeline())() as broker:
        yield broker
