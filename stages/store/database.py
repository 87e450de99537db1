"""A database: SQLite beside the process, or PostgreSQL; the same statements on both."""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from sqlalchemy import URL, Executable, MetaData, RowMapping, Table, event, func, inspect, select, text
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import DBAPIError, OperationalError, ProgrammingError, SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection, create_async_engine
from sqlalchemy.schema import CreateColumn, CreateIndex, CreateTable

from pipeline import RiachoError

# The dialects' own INSERT knows ON CONFLICT, the general one does not.
INSERTS: dict[str, Any] = {"sqlite": sqlite.insert, "postgresql": postgresql.insert}

metadata = MetaData()  # of all tables

TABLES_LOCK = 0x52696163  # "Riac": our number among PostgreSQL's advisory locks


class StoreUnavailable(RiachoError):
    """The database cannot be reached or written."""


def sqlite_file(path: Path) -> URL:
    """The address of a database in a file, whatever its name is made of."""
    return URL.create("sqlite+aiosqlite", database=str(path))


class Database:
    """An engine and the tables of the stores on it. A context manager: entering makes the tables where they are
    missing, and their columns, or raises StoreUnavailable."""

    def __init__(self, url: str | URL, tables: Sequence[Table]) -> None:
        # What is written may be anybody's words, and errors end up in logs.
        self._engine = create_async_engine(url, hide_parameters=True)
        self._tables = tables
        self.insert = INSERTS[self._engine.dialect.name]
        if self._engine.dialect.name == "sqlite":
            event.listen(self._engine.sync_engine, "connect", _let_processes_share)

    async def __aenter__(self) -> Self:
        try:
            await self._make_tables()
        except (SQLAlchemyError, OSError) as error:
            await self._engine.dispose()
            place = self._engine.url.render_as_string(hide_password=True)
            reason = getattr(error, "orig", None) or error
            raise StoreUnavailable(
                f"cannot use the database {place} ({reason}); see the setting store.url"
            ) from error
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Close all connections; for who reads without entering, and takes the tables as they are."""
        await self._engine.dispose()

    async def read(self, query: Executable) -> Sequence[RowMapping]:
        """The rows a query finds. Raises StoreUnavailable, as all of these do."""
        async with self._connected(), self._engine.connect() as connection:
            return (await connection.execute(query)).mappings().all()

    async def write(
        self, statement: Executable, rows: Sequence[Mapping[str, Any]] | Mapping[str, Any] | None = None
    ) -> int:
        """Run a statement, for each of the rows where there are any, in a transaction of its own; returns how many
        rows it changed."""
        async with self._connected(), self._engine.begin() as connection:
            changed: int = (await connection.execute(statement, rows)).rowcount
            return changed

    async def change(self, statement: Executable, query: Executable) -> Sequence[RowMapping]:
        """Run a statement; returns what a query finds right after it in the same transaction, so that the rows it
        changed are as it left them."""
        async with self._connected(), self._engine.begin() as connection:
            await connection.execute(statement)
            return (await connection.execute(query)).mappings().all()

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[AsyncConnection]:
        """A connection in a transaction that may write: committed at the end, rolled back after an error.

        On SQLite it is the only one that may, from its start; so keep it short. One that begins with reading could
        not go on to write once somebody else has written."""
        async with self._connected(), self._engine.begin() as connection:
            if connection.dialect.name == "sqlite":
                await connection.execute(text("BEGIN IMMEDIATE"))
            yield connection

    @asynccontextmanager
    async def _connected(self) -> AsyncIterator[None]:
        """Errors that say what the database said, and nothing of what was asked."""
        try:
            yield
        except (SQLAlchemyError, OSError) as error:
            raise StoreUnavailable(f"the database: {_said(error)}") from error

    async def _make_tables(self) -> None:
        if self._engine.dialect.name == "sqlite":
            await self._switch_to_wal()
        async with self._engine.begin() as connection:
            await _wait_for_turn(connection)
            for table in self._tables:
                await connection.execute(CreateTable(table, if_not_exists=True))
                await _add_missing_columns(connection, table)
                for index in table.indexes:
                    await connection.execute(CreateIndex(index, if_not_exists=True))

    async def _switch_to_wal(self) -> None:
        """Readers beside one writer; kept in the file. While another switches it too, SQLite refuses at once."""
        for tries_left in reversed(range(250)):
            try:
                async with self._engine.connect() as connection:
                    await connection.execute(text("PRAGMA journal_mode=WAL"))
                    return
            except OperationalError as error:
                if "locked" not in str(error) or not tries_left:
                    raise
                await asyncio.sleep(0.02)


def _said(error: SQLAlchemyError | OSError) -> str:
    """What is wrong, without what was to be written: errors about values have these in them."""
    about_values = isinstance(error, DBAPIError) and not isinstance(error, OperationalError | ProgrammingError)
    return type(error).__name__ if about_values else str(getattr(error, "orig", None) or error)


async def _wait_for_turn(connection: AsyncConnection) -> None:
    """Until this transaction ends nobody else makes tables: CREATE … IF NOT EXISTS alone fails when two do."""
    if connection.dialect.name == "postgresql":
        await connection.execute(select(func.pg_advisory_xact_lock(TABLES_LOCK)))
    else:
        await connection.execute(text("BEGIN IMMEDIATE"))


async def _add_missing_columns(connection: AsyncConnection, table: Table) -> None:
    """Those an earlier version did not know; each has a server_default, for the rows that were kept by then."""
    there = await connection.run_sync(lambda sync: inspect(sync).get_columns(table.name))
    known = {column["name"] for column in there}
    for column in table.columns:
        if column.name not in known:
            definition = CreateColumn(column).compile(dialect=connection.dialect)
            await connection.execute(text(f"ALTER TABLE {table.name} ADD COLUMN {definition}"))


def _let_processes_share(connection: Any, _: object) -> None:
    """A writer waits for its turn instead of failing; what WAL keeps safe needs no fsync for each commit."""
    cursor = connection.cursor()
    for pragma in ("busy_timeout=10000", "synchronous=NORMAL"):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()
