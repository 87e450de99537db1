"""A database: SQLite beside the process, or PostgreSQL; the same statements on both."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

from sqlalchemy import URL, Executable, MetaData, RowMapping, event, func, select, text
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import DBAPIError, OperationalError, ProgrammingError, SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection, create_async_engine

from stages.store.errors import StoreUnavailable, WriteRefused
from stages.store.group import GroupCommit
from stages.store.migrate import UnknownRevision, is_current, migrate

T = TypeVar("T")

# The dialects' own INSERT knows ON CONFLICT, the general one does not.
INSERTS: dict[str, Any] = {"sqlite": sqlite.insert, "postgresql": postgresql.insert}

metadata = MetaData()  # of all tables

TABLES_LOCK = 0x52696163  # "Riac": our number among PostgreSQL's advisory locks
BUSY = 10_000  # ms that a writer of SQLite waits for its turn
MIGRATED_WITHIN = 600_000  # ms: a million messages take a few seconds


def storable(value: str) -> str:
    """A text without NUL, which PostgreSQL does not take."""
    return value.replace("\0", "")


def sqlite_file(path: Path) -> URL:
    """The address of a database in a file, whatever its name is made of."""
    return URL.create("sqlite+aiosqlite", database=str(path))


class Database:
    """An engine. A context manager: entering makes the tables of all stores, of what an earlier version left where
    there is something, or raises StoreUnavailable."""

    def __init__(self, url: str | URL) -> None:
        # What is written may be anybody's words, and errors end up in logs.
        self._engine = create_async_engine(url, hide_parameters=True)
        self.dialect = self._engine.dialect.name
        self.insert = INSERTS[self.dialect]
        self._groups: list[GroupCommit[Any]] = []
        if self.dialect == "sqlite":
            event.listen(self._engine.sync_engine, "connect", _let_processes_share)

    @property
    def file(self) -> Path | None:
        """Where it lies, if it is a file: one of SQLite's."""
        name = self._engine.url.database
        return Path(name) if name and self.dialect == "sqlite" else None

    async def __aenter__(self) -> Self:
        try:
            await self._migrate()
        except (SQLAlchemyError, OSError, UnknownRevision) as error:
            await self._engine.dispose()
            raise StoreUnavailable(self._why_unusable(error)) from error
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Close all connections; for who reads without entering, and takes the tables as they are."""
        await asyncio.gather(*(group.settled() for group in self._groups))
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
            if self.dialect == "sqlite":
                await connection.execute(text("BEGIN IMMEDIATE"))
            yield connection

    def grouped(self, write: Callable[[Sequence[T]], Awaitable[None]], most: int) -> GroupCommit[T]:
        """A writer for many callers at the same time; its last write is awaited when the database is closed."""
        group = GroupCommit(write, most)
        self._groups.append(group)
        return group

    @asynccontextmanager
    async def _connected(self) -> AsyncIterator[None]:
        """Errors that say what the database said, and nothing of what was asked."""
        try:
            yield
        except (SQLAlchemyError, OSError) as error:
            raise _told(error) from error

    def _why_unusable(self, error: Exception) -> str:
        place = self._engine.url.render_as_string(hide_password=True)
        if isinstance(error, UnknownRevision):
            return (
                f"the database {place} is of a later version of Riacho ({error}); start that version, or have the "
                "setting store.url name another database"
            )
        reason = getattr(error, "orig", None) or error
        return f"cannot use the database {place} ({reason}); see the setting store.url"

    async def _migrate(self) -> None:
        if self.dialect == "sqlite":
            await self._switch_to_wal()
        async with self._engine.connect() as connection:
            if await connection.run_sync(is_current):
                return
        async with self._engine.begin() as connection:
            await _wait_for_turn(connection)
            await connection.run_sync(migrate)

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


def _told(error: SQLAlchemyError | OSError) -> StoreUnavailable:
    """What is wrong, without what was to be written: errors about values have these in them. Where there is no
    statement, as there is no connection, there are no values, and nothing was refused."""
    tells = isinstance(error, OperationalError | ProgrammingError)
    if isinstance(error, DBAPIError) and not tells and error.statement is not None:
        kind = StoreUnavailable if error.connection_invalidated else WriteRefused
        return kind(f"the database: {type(error).__name__}")
    return StoreUnavailable(f"the database: {getattr(error, 'orig', None) or error}")


async def _wait_for_turn(connection: AsyncConnection) -> None:
    """Until this transaction ends nobody else migrates. Whoever does before us may take its time."""
    if connection.dialect.name == "postgresql":
        await connection.execute(select(func.pg_advisory_xact_lock(TABLES_LOCK)))
        return
    for statement in (f"PRAGMA busy_timeout={MIGRATED_WITHIN}", "BEGIN IMMEDIATE", f"PRAGMA busy_timeout={BUSY}"):
        await connection.execute(text(statement))


def _let_processes_share(connection: Any, _: object) -> None:
    """A writer waits for its turn instead of failing; what WAL keeps safe needs no fsync for each commit."""
    cursor = connection.cursor()
    for pragma in (f"busy_timeout={BUSY}", "synchronous=NORMAL"):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()
