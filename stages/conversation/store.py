"""Conversations in a database."""

from collections.abc import Sequence
from typing import Any

import msgspec
from sqlalchemy import BigInteger, Boolean, Column, Index, MetaData, String, Table, Text, select

from stages.ports import Message
from stages.store import Database

messages = Table(
    "messages",
    MetaData(),
    Column("tenant", String, primary_key=True),
    Column("chat", String, primary_key=True),
    Column("id", String, primary_key=True),
    Column("direction", String(3), nullable=False),
    Column("text", Text, nullable=False),
    Column("sent_ms", BigInteger, nullable=False),
    Column("voice", Boolean, nullable=False),
)
Index("messages_by_time", messages.c.tenant, messages.c.chat, messages.c.sent_ms)


class ConversationStore:
    """The Conversations port, on a database that has the table `messages`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def record(self, new: Sequence[Message]) -> None:
        """See the port."""
        if not new:
            return
        # PostgreSQL takes no NUL in a text.
        rows = [{**msgspec.structs.asdict(message), "text": message.text.replace("\0", "")} for message in new]
        await self._database.write(self._database.insert(messages).on_conflict_do_nothing(), rows)

    async def find(self, tenant: str, chat: str, id: str) -> Message | None:  # noqa: A002
        """See the port."""
        found = await self._read(_of(tenant, chat).where(messages.c.id == id))
        return found[0] if found else None

    async def history(self, tenant: str, chat: str, limit: int) -> list[Message]:
        """See the port."""
        newest_first = _of(tenant, chat).order_by(messages.c.sent_ms.desc(), messages.c.id.desc())
        latest = await self._read(newest_first.limit(limit))
        return latest[::-1]

    async def _read(self, query: Any) -> list[Message]:
        return [Message(**row) for row in await self._database.read(query)]


def _of(tenant: str, chat: str) -> Any:
    return select(messages).where(messages.c.tenant == tenant, messages.c.chat == chat)
