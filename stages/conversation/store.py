"""Conversations in a database: SQLite beside the process, or PostgreSQL; the same statements on both."""

import asyncio
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import msgspec
from sqlalchemy import (
    URL,
    BigInteger,
    Boolean,
    Column,
    Index,
    MetaData,
    String,
    Table,
    Text,
    event,
    func,
    select,
    text,
)
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import OperationalError, SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection, create_async_engine
from sqlalchemy.schema import CreateIndex, CreateTable

from pipeline import RiachoError
from stages.ports import Message

metadata = MetaData()

messages = Table(
    "messages",
    metadata,
    Column("tenant", String, primary_key=True),
    Column("chat", String, primary_key=True),
    Column("id", String, primary_key=True),
    Column("direction", String(3), nullable=False),
    Column("text", Text, nullable=False),
    Column("sent_ms", BigInteger, nullable=False),
    Column("voice", Boolean, nullable=False),
)
Index("messages_by_time", messages.c.tenant, messages.c.chat, messages.c.sent_ms)

# The dialects' own INSERT knows ON CONFLICT, the general one does not.
INSERTS: dict[str, Any] = {"sqlite": sqlite.insert, "postgresql": postgresql.insert}

TABLES_LOCK = 0x52696163  # "Riac": our number among PostgreSQL's advisory locks


class StoreUnavailable(RiachoError):
    """The database cannot be reached or written."""


def sqlite_file(path: Path) -> URL:
    """The address of a database in a file, whatever its name is made of."""
    return URL.create("sqlite+aiosqlite", database=str(path))


class ConversationStore:
    """The Conversations port. A context manager: entering makes the tables where they are missing, or raises
    StoreUnavailable."""

    def __init__(self, url: str | URL) -> None:
        self._engine = create_async_engine(url)
        self._insert = INSERTS[self._engine.dialect.name]
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

    async def _make_tables(self) -> None:
        if self._engine.dialect.name == "sqlite":
            await self._switch_to_wal()
        async with self._engine.begin() as connection:
            if self._engine.dialect.name == "postgresql":
                await _wait_for_turn(connection)
            await connection.execute(CreateTable(messages, if_not_exists=True))
            for index in messages.indexes:
                await connection.execute(CreateIndex(index, if_not_exists=True))

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._engine.dispose()

    async def record(self, new: Sequence[Message]) -> None:
        """See the port."""
        if not new:
            return
        # PostgreSQL takes no NUL in a text.
        rows = [{**msgspec.structs.asdict(message), "text": message.text.replace("\0", "")} for message in new]
        async with self._engine.begin() as connection:
            await connection.execute(self._insert(messages).on_conflict_do_nothing(), rows)

    async def find(self, tenant: str, chat: str, id: str) -> Message | None:  # noqa: A002
        """See the port."""
        found = await self._read(_of(tenant, chat).where(messages.c.id == id))
        return found[0] if found else None

    async def history(self, tenant: str, chat: str, limit: int) -> list[Message]:
        """See the port."""
        newest_first = _of(tenant, chat).order_by(messages.c.sent_ms.desc(), messages.c.id.desc())
        latest = await self._read(newest_first.limit(limit))
        return latest[::-1]

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

    async def _read(self, query: Any) -> list[Message]:
        async with self._engine.connect() as connection:
            return [Message(**row) for row in (await connection.execute(query)).mappings()]


def _of(tenant: str, chat: str) -> Any:
    return select(messages).where(messages.c.tenant == tenant, messages.c.chat == chat)


async def _wait_for_turn(connection: AsyncConnection) -> None:
    """Until this transaction ends nobody else makes tables: CREATE … IF NOT EXISTS alone fails when two do."""
    await connection.execute(select(func.pg_advisory_xact_lock(TABLES_LOCK)))


def _let_processes_share(connection: Any, _: object) -> None:
    """A writer waits for its turn instead of failing; what WAL keeps safe needs no fsync for each commit."""
    cursor = connection.cursor()
    for pragma in ("busy_timeout=10000", "synchronous=NORMAL"):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()
