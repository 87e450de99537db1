"""Databases (SQLite, and PostgreSQL where it is installed), spans, and settings of notifications."""

import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from sqlalchemy import text
from sqlalchemy.ext.asyncio import create_async_engine

from config import Settings
from pipeline import telemetry
from tests.desk import WithSettings, settings_of


def postgres_programs() -> Path | None:
    """The folder of initdb and pg_ctl: of a version below /usr/lib, or on the PATH."""
    folders = sorted(
        Path("/usr/lib/postgresql").glob("*/bin"), key=lambda bin_: int(bin_.parent.name), reverse=True
    )
    if on_path := shutil.which("pg_ctl"):
        folders.append(Path(on_path).resolve().parent)
    return next((bin_ for bin_ in folders if (bin_ / "pg_ctl").exists() and (bin_ / "initdb").exists()), None)


def someone_else() -> dict[str, Any]:
    """PostgreSQL refuses to run as root; these arguments have a subprocess run as its own user, or nobody."""
    if os.geteuid():
        return {}
    names = {user.pw_name for user in pwd.getpwall()}
    user = pwd.getpwnam("postgres" if "postgres" in names else "nobody")
    return {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}


@pytest.fixture(scope="session")
def postgres() -> Iterator[str]:
    """A cluster of this test run's own, on a socket in a folder of its own; the folder."""
    programs = postgres_programs()
    if not programs:
        pytest.skip("PostgreSQL is not installed: no initdb and pg_ctl on PATH or below /usr/lib/postgresql")
    user = someone_else()
    with tempfile.TemporaryDirectory(prefix="riacho-pg-") as folder:
        if user:
            os.chown(folder, user["user"], user["group"])
        quiet: dict[str, Any] = {"cwd": folder, "stdout": subprocess.DEVNULL, "timeout": 60} | user
        data = f"{folder}/data"
        make = ["-D", data, "-U", "riacho", "-A", "trust", "--no-sync"]
        subprocess.run([programs / "initdb", *make], check=True, **quiet)
        options = f"-k {folder} -c listen_addresses='' -c fsync=off"
        start = ["-D", data, "-o", options, "-l", f"{folder}/log", "-w", "start"]
        subprocess.run([programs / "pg_ctl", *start], check=True, **quiet)
        try:
            yield folder
        finally:
            subprocess.run([programs / "pg_ctl", "-D", data, "-m", "immediate", "stop"], check=True, **quiet)


@pytest.fixture(params=["sqlite", "postgresql"])
async def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """An empty database."""
    if request.param == "sqlite":
        return f"sqlite+aiosqlite:///{tmp_path / 'riacho.db'}"
    folder = request.getfixturevalue("postgres")
    return await empty_database(
        folder, f"test_{tmp_path.parent.name}_{tmp_path.name}"[-60:].replace("-", "_").lower()
    )


async def empty_database(folder: str, name: str) -> str:
    engine = create_async_engine(
        f"postgresql+asyncpg://riacho@/postgres?host={folder}", isolation_level="AUTOCOMMIT"
    )
    async with engine.connect() as connection:
        await connection.execute(text(f'CREATE DATABASE "{name}"'))
    await engine.dispose()
    return f"postgresql+asyncpg://riacho@/{name}?host={folder}"


@pytest.fixture
def spans(monkeypatch: pytest.MonkeyPatch) -> InMemorySpanExporter:
    """What is traced during a test."""
    exporter, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr(telemetry, "_tracer", provider.get_tracer("riacho"))
    monkeypatch.setattr(telemetry, "enabled", lambda: True)
    return exporter


@pytest.fixture
def settings(server: str, namespace: str, tmp_path: Path) -> WithSettings:
    """Makes settings of notifications, with some that go over those of all tests."""

    def made(**sections: dict[str, Any]) -> Settings:
        return settings_of(server, namespace, tmp_path, **sections)

    return made
