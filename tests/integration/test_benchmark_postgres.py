"""The database of the benchmark of cleanup, in the folder that a run has to itself."""

import tempfile

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import create_async_engine

from benchmarks.parts.postgres import address, cluster, programs

pytestmark = pytest.mark.integration


@pytest.mark.skipif(not programs(), reason="PostgreSQL is not installed")
async def test_it_runs_in_a_folder_that_is_nobody_elses(monkeypatch: pytest.MonkeyPatch) -> None:
    with tempfile.TemporaryDirectory() as mine:  # for us alone
        monkeypatch.setattr(tempfile, "tempdir", mine)
        with cluster() as folder:
            engine = create_async_engine(address(folder))
            async with engine.connect() as connection:
                assert await connection.scalar(text("SELECT 1")) == 1
            await engine.dispose()
