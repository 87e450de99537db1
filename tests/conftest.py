"""Fixtures of all rooms: a real server a session, a namespace a test."""

import os
import secrets
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import pytest_asyncio
from hypothesis import settings as hypothesis_settings
from redis.asyncio import Redis

from pipeline import Broker, Pipeline
from pipeline.embedded import EmbeddedServer
from tests.processes import environment

if TYPE_CHECKING:
    from playwright.async_api import Browser

# A busy machine is no reason to fail; the per-test time-out is the bound.
hypothesis_settings.register_profile("riacho", deadline=None)
hypothesis_settings.load_profile("riacho")


def server_binary() -> Path | None:
    """RIACHO_TEST_SERVER, where the suite is to run on another server than the embedded Valkey."""
    binary = os.environ.get("RIACHO_TEST_SERVER")
    return Path(binary) if binary else None


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of a server that all tests share."""
    with EmbeddedServer(tmp_path_factory.mktemp("server"), binary=server_binary()) as running:
        yield running.url


@pytest.fixture(autouse=True)
def no_meters_for_all(monkeypatch: pytest.MonkeyPatch) -> None:
    """A command that runs within the tests' process measures for itself: OTel's provider can be set but once."""
    monkeypatch.setattr("opentelemetry.metrics.set_meter_provider", lambda _: None)


@pytest.fixture
def namespace() -> str:
    """Keys of one test stay apart from all others'."""
    return f"test-{secrets.token_hex(6)}"


@pytest.fixture
def connector(server: str, namespace: str) -> Callable[..., Callable[[], Broker]]:
    """Makes a maker of brokers for a pipeline, in this test's namespace."""

    def for_pipeline(pipeline: Pipeline, *, partitions: int = 1) -> Callable[[], Broker]:
        return lambda: Broker(server, pipeline, namespace=namespace, partitions=partitions)

    return for_pipeline


@pytest.fixture
async def redis(server: str) -> AsyncIterator["Redis"]:
    """A plain client, for what a test does behind the engine's back."""
    client: Redis = Redis.from_url(server)
    yield client
    await client.aclose()


@pytest.fixture
def env(server: str, namespace: str, tmp_path: Path) -> dict[str, str]:
    """The environment of commands on this test's part of the server."""
    return environment(REDIS_URL=server, RIACHO_REDIS_NAMESPACE=namespace, RIACHO_DATA_FOLDER=tmp_path)


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def browser() -> AsyncIterator["Browser"]:
    """A browser that all tests of the page share; each has a profile of its own."""
    from tests.browser import chromium

    async with chromium() as running:
        yield running
