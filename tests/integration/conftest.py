"""Databases (SQLite, and PostgreSQL where it is installed), spans, and settings of notifications."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import uvloop
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_ON, Sampler
from sqlalchemy import text
from sqlalchemy.ext.asyncio import create_async_engine

from benchmarks.parts.postgres import NotInstalled, address, cluster
from config import Settings
from config.metrics import provider_of
from pipeline import metrics, telemetry
from stages.store import Database
from tests.desk import Client, Serve, WithSettings, service, settings_of
from tests.figures import Figures
from tests.woocommerce import Shop, serving

LoopFactory = Callable[[], asyncio.AbstractEventLoop]


def pytest_asyncio_loop_factories(item: pytest.Item) -> dict[str, LoopFactory]:
    """How connections are served is tested on uvloop, which the service has: its connections are not asyncio's."""
    if item.get_closest_marker("on_uvloop"):
        return {"uvloop": uvloop.new_event_loop}
    return {"asyncio": asyncio.new_event_loop}


@pytest.fixture(scope="session")
def postgres() -> Iterator[str]:
    """A cluster of this test run's own, on a socket in a folder of its own; the folder."""
    try:
        with cluster() as folder:
            yield folder
    except NotInstalled as error:
        pytest.skip(str(error))


@pytest.fixture(params=["sqlite", "postgresql"])
async def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """An empty database."""
    if request.param == "sqlite":
        return f"sqlite+aiosqlite:///{tmp_path / 'riacho.db'}"
    folder = request.getfixturevalue("postgres")
    return await empty_database(
        folder, f"test_{tmp_path.parent.name}_{tmp_path.name}"[-60:].replace("-", "_").lower()
    )


@pytest.fixture
async def database(url: str) -> AsyncIterator[Database]:
    """It, opened."""
    async with Database(url) as opened:
        yield opened


@pytest.fixture
async def shop() -> AsyncIterator[Shop]:
    """A shop with nothing in it."""
    async with serving(Shop()) as running:
        yield running


async def empty_database(folder: str, name: str) -> str:
    engine = create_async_engine(address(folder), isolation_level="AUTOCOMMIT")
    async with engine.connect() as connection:
        await connection.execute(text(f'CREATE DATABASE "{name}"'))
    await engine.dispose()
    return address(folder, name)


@pytest.fixture
def trace_by(monkeypatch: pytest.MonkeyPatch) -> Callable[[Sampler], InMemorySpanExporter]:
    """Has what a sampler takes traced from now on, and kept."""

    def begin(sampler: Sampler) -> InMemorySpanExporter:
        exporter, provider = InMemorySpanExporter(), TracerProvider(sampler)
        provider.add_span_processor(SimpleSpanProcessor(exporter))
        monkeypatch.setattr(telemetry, "_tracer", provider.get_tracer("riacho"))
        monkeypatch.setattr(telemetry, "enabled", lambda: True)
        return exporter

    return begin


@pytest.fixture
def spans(trace_by: Callable[[Sampler], InMemorySpanExporter]) -> InMemorySpanExporter:
    """What is traced during a test."""
    return trace_by(ALWAYS_ON)


@pytest.fixture
def figures(monkeypatch: pytest.MonkeyPatch) -> Figures:
    """What is measured during a test."""
    reader = InMemoryMetricReader()
    provider = provider_of("test", [reader])
    monkeypatch.setattr(metrics, "provider", lambda: provider)
    return Figures(reader)


@pytest.fixture
def settings(server: str, namespace: str, tmp_path: Path) -> WithSettings:
    """Makes settings of notifications, with some that go over those of all tests."""

    def made(**sections: dict[str, Any]) -> Settings:
        return settings_of(server, namespace, tmp_path, **sections)

    return made


@pytest.fixture
def serve(server: str, namespace: str, tmp_path: Path) -> Serve:
    """The service with these settings of [http]."""

    @asynccontextmanager
    async def started(**http: Any) -> AsyncIterator[Client]:
        async with service(settings_of(server, namespace, tmp_path, http=http)) as client:
            yield client

    return started
