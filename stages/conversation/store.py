"""Conversations in a database."""

from collections.abc import Collection, Sequence
from typing import Any

import msgspec
from sqlalchemy import BigInteger, Boolean, Column, Index, String, Table, Text, delete, exists, false, select

from stages.ports import REPLY, Message
from stages.store import Database, metadata

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
    Column("received_ms", BigInteger, nullable=False, server_default="0"),
)
Index("messages_by_time", messages.c.tenant, messages.c.chat, messages.c.sent_ms)
Index("messages_by_day", messages.c.sent_ms)

# Chats, for whoever looks for those that nothing was said in for long. `started_ms` and `last_ms` are when their
# first and last messages came, by our own clock; nothing is deleted while one is `held` for legal reasons.
conversations = Table(
    "conversations",
    metadata,
    Column("tenant", String, primary_key=True),
    Column("chat", String, primary_key=True),
    Column("started_ms", BigInteger, nullable=False),
    Column("last_ms", BigInteger, nullable=False),
    Column("held", Boolean, nullable=False, server_default=false()),
)
Index("conversations_by_time", conversations.c.last_ms)


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
        insert = self._database.insert(messages)
        fill_in = insert.on_conflict_do_update(
            index_elements=messages.primary_key, set_={"text": insert.excluded.text}, where=messages.c.text == ""
        )
        await self._database.write(fill_in, rows)

    async def dismiss(self, message: Message) -> None:
        """See the port."""
        here = messages.c.tenant == message.tenant, messages.c.chat == message.chat, messages.c.id == message.id
        await self._database.write(delete(messages).where(*here, messages.c.text == ""))

    async def find(self, tenant: str, chat: str, id: str) -> Message | None:  # noqa: A002
        """See the port."""
        found = await self._read(_of(tenant, chat).where(messages.c.id == id))
        return found[0] if found else None

    async def unanswered(self, tenant: str, chat: str, since_ms: int) -> list[Message]:
        """See the port."""
        reply = messages.alias()
        replied = exists().where(
            reply.c.tenant == tenant, reply.c.chat == chat, reply.c.id == REPLY + messages.c.id
        )
        asked = _of(tenant, chat).where(messages.c.direction == "in", messages.c.sent_ms >= since_ms)
        return await self._read(asked.where(~replied))

    async def history(self, tenant: str, chat: str, limit: int, without: Collection[str] = ()) -> list[Message]:
        """See the port."""
        told = _of(tenant, chat).where(messages.c.text != "", messages.c.id.not_in(without))
        columns = messages.c.sent_ms, messages.c.received_ms, messages.c.id
        latest = await self._read(told.order_by(*(column.desc() for column in columns)).limit(limit))
        return latest[::-1]

    async def _read(self, query: Any) -> list[Message]:
        return [Message(**row) for row in await self._database.read(query)]


def _of(tenant: str, chat: str) -> Any:
    return select(messages).where(messages.c.tenant == tenant, messages.c.chat == chat)
