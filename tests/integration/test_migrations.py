"""The tables that migrations make, out of nothing and out of what earlier versions left."""

import asyncio
import importlib
import pkgutil
import signal
import subprocess
import sys
import tomllib
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy import Connection, func, select, text
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

import stages
from stages.store import Database, StoreUnavailable, metadata
from stages.store.database import TABLES_LOCK
from stages.store.migrate import MIGRATIONS, REVISION_TABLE, REVISIONS

pytestmark = pytest.mark.integration

ROOT = Path(__file__).parents[2]

# What the version before migrations made, and a row or two of what it kept.
BEFORE_MIGRATIONS = """
CREATE TABLE messages (tenant VARCHAR NOT NULL, chat VARCHAR NOT NULL, id VARCHAR NOT NULL,
    direction VARCHAR(3) NOT NULL, text TEXT NOT NULL, sent_ms BIGINT NOT NULL, voice BOOLEAN NOT NULL,
    received_ms BIGINT DEFAULT '0' NOT NULL,
    PRIMARY KEY (tenant, chat, id));
CREATE INDEX messages_by_time ON messages (tenant, chat, sent_ms);
CREATE TABLE transcripts (key VARCHAR PRIMARY KEY NOT NULL, transcript {bytes} NOT NULL, kept_ms BIGINT NOT NULL);
CREATE INDEX ix_transcripts_kept_ms ON transcripts (kept_ms);
CREATE TABLE senders (tenant VARCHAR PRIMARY KEY NOT NULL, paused BOOLEAN NOT NULL, until_ms BIGINT NOT NULL,
    strikes INTEGER NOT NULL, code INTEGER, reason TEXT NOT NULL, since_ms BIGINT NOT NULL);
INSERT INTO messages VALUES ('shop', 'a', '1', 'in', 'olá', 3000, false, 3500);
INSERT INTO messages VALUES ('shop', 'a', '2', 'in', '', 1000, true, 0);
INSERT INTO messages VALUES ('shop', 'a', 'reply:1', 'out', 'oi', 9000, false, 0);
INSERT INTO messages VALUES ('shop', 'b', '1', 'in', 'x', 5000, false, 4000);
INSERT INTO senders VALUES ('shop', true, 7, 1, 131042, 'payment', 6)
"""

# Two, of which one is not published.
PRODUCTS = """
INSERT INTO products (tenant, id, name, sku, currency, available, published, url, about, words, modified_ms,
    seen_ms)
VALUES
    ('shop', 1, 'Bolo', '', 'BRL', true, true, '', '', ' bolo milho milho 1 ', 0, 0),
    ('shop', 2, 'Bolo', '', 'BRL', true, false, '', '', ' bolo milho 2 ', 0, 0)
"""

# Ends itself as soon as it has made the table `media`, which is not the last.
KILLED = """
import asyncio, os, signal, sys
from sqlalchemy import event
from stages.store import Database

def stop(connection, cursor, statement, *_):
    if "CREATE TABLE media" in statement:
        os.kill(os.getpid(), signal.SIGKILL)

async def open(url):
    database = Database(url)
    event.listen(database._engine.sync_engine, "after_cursor_execute", stop)
    async with database:
        pass

asyncio.run(open(sys.argv[1]))
"""


@pytest.fixture
async def engine(url: str) -> AsyncIterator[AsyncEngine]:
    """Reads and writes behind the back of `Database`."""
    engine = create_async_engine(url)
    yield engine
    await engine.dispose()


async def rows(engine: AsyncEngine, query: str) -> list[tuple[Any, ...]]:
    async with engine.connect() as connection:
        return [tuple(row) for row in await connection.execute(text(query))]


async def run(engine: AsyncEngine, statements: str) -> None:
    async with engine.begin() as connection:
        for statement in statements.split(";"):
            await connection.execute(text(statement))


async def differences(engine: AsyncEngine) -> list[Any]:
    """What a database has that the code's tables have not, and the other way round."""
    for module in pkgutil.walk_packages(stages.__path__, "stages."):
        importlib.import_module(module.name)

    def compared(connection: Connection) -> list[Any]:
        options = {"version_table": REVISION_TABLE, "compare_server_default": True}
        return list(compare_metadata(MigrationContext.configure(connection, opts=options), metadata))

    async with engine.connect() as connection:
        return await connection.run_sync(compared)


async def test_migrations_make_the_tables_of_the_code(url: str, engine: AsyncEngine) -> None:
    async with Database(url):
        assert await differences(engine) == []
    assert {"messages", "conversations", "media", "statistics", "health", "alerts"} <= metadata.tables.keys()


async def test_a_database_from_before_migrations_keeps_all_and_gets_what_is_new(
    url: str, engine: AsyncEngine
) -> None:
    await run(engine, BEFORE_MIGRATIONS.format(bytes="BLOB" if engine.dialect.name == "sqlite" else "BYTEA"))
    before = await rows(engine, "SELECT * FROM messages ORDER BY chat, id")
    async with Database(url):
        assert await differences(engine) == []
    assert await rows(engine, "SELECT * FROM messages ORDER BY chat, id") == before
    assert await rows(engine, "SELECT tenant, code, reason FROM senders") == [("shop", 131042, "payment")]
    chats = await rows(engine, "SELECT tenant, chat, started_ms, last_ms, held FROM conversations ORDER BY chat")
    assert chats == [("shop", "a", 1000, 9000, False), ("shop", "b", 5000, 5000, False)]


async def test_products_that_are_known_are_found_by_their_words(url: str, engine: AsyncEngine) -> None:
    async with Database(url):
        pass
    await run(engine, "DROP TABLE product_words")
    await run(engine, "UPDATE riacho_revision SET version_num = '0005'")
    await run(engine, PRODUCTS)
    async with Database(url):
        assert await differences(engine) == []
    found = await rows(engine, "SELECT tenant, word, id FROM product_words ORDER BY word")
    assert found == [("shop", "1", 1), ("shop", "bolo", 1), ("shop", "milho", 1)]


async def test_a_database_is_migrated_once(url: str, engine: AsyncEngine) -> None:
    for _ in range(3):
        async with Database(url):
            assert await rows(engine, "SELECT version_num FROM riacho_revision") == [(REVISIONS[-1],)]


async def test_who_opens_a_database_that_is_up_to_date_waits_for_no_writer(url: str, engine: AsyncEngine) -> None:
    async with Database(url) as writer, writer.transaction() as connection:
        if engine.dialect.name == "postgresql":  # what a migration waits for
            await connection.execute(select(func.pg_advisory_xact_lock(TABLES_LOCK)))
        async with asyncio.timeout(5), Database(url):
            pass


async def test_who_opens_a_file_that_takes_long_to_migrate_waits_longer_than_a_writer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = f"sqlite+aiosqlite:///{tmp_path}/riacho.db"
    engine = create_async_engine(url)
    monkeypatch.setattr("stages.store.database.BUSY", 1)
    async with engine.connect() as migrating:
        await migrating.execute(text("PRAGMA journal_mode=WAL"))
        await migrating.execute(text("BEGIN IMMEDIATE"))
        database = Database(url)
        opening = asyncio.create_task(database.__aenter__())
        await asyncio.wait({opening}, timeout=0.2)
        assert not opening.done()
        await migrating.rollback()
    await opening
    await database.aclose()
    await engine.dispose()


async def test_several_databases_are_migrated_at_the_same_time(tmp_path: Path) -> None:
    urls = [f"sqlite+aiosqlite:///{tmp_path}/{n}.db" for n in range(4)]
    async with AsyncExitStack() as stack:
        await asyncio.gather(*(stack.enter_async_context(Database(url)) for url in urls for _ in range(2)))
    for url in urls:
        engine = create_async_engine(url)
        assert await differences(engine) == []
        await engine.dispose()


async def test_the_database_of_a_later_version_is_refused_and_left_alone(url: str, engine: AsyncEngine) -> None:
    async with Database(url):
        await run(engine, "UPDATE riacho_revision SET version_num = '0999'")
    later = r"is of a later version of Riacho \(its tables are at revision 0999, .*; start that version"
    with pytest.raises(StoreUnavailable, match=later):
        await Database(url).__aenter__()
    assert await rows(engine, "SELECT version_num FROM riacho_revision") == [("0999",)]


async def test_a_migration_that_is_killed_is_done_again_from_its_start(url: str, engine: AsyncEngine) -> None:
    await run(engine, BEFORE_MIGRATIONS.format(bytes="BLOB" if engine.dialect.name == "sqlite" else "BYTEA"))
    killed = await asyncio.create_subprocess_exec(sys.executable, "-c", KILLED, url, cwd=ROOT)
    assert await killed.wait() == -signal.SIGKILL
    async with Database(url):
        assert await differences(engine) == []
    assert len(await rows(engine, "SELECT * FROM messages")) == 4
    assert len(await rows(engine, "SELECT * FROM conversations")) == 2


def test_a_wheel_has_the_migrations_in_it() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    steps = (MIGRATIONS / "versions").relative_to(ROOT)
    assert ".".join(steps.parts) in project["tool"]["setuptools"]["packages"]
    assert len(list((ROOT / steps).glob("*.py"))) == len(REVISIONS)


def test_a_command_starts_without_what_only_migrations_need() -> None:
    look = "import sys, api.__main__; print([name for name in sys.modules if name.startswith('alembic')])"
    ran = subprocess.run([sys.executable, "-c", look], cwd=ROOT, capture_output=True, text=True, check=True)
    assert ran.stdout == "[]\n"
