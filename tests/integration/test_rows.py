"""Rows told to a statement: the same statement for any number of them, whatever is in them."""

import pytest
from sqlalchemy import delete, event, select

from stages.conversation.store import conversations
from stages.store import Database, Rows
from tests.cleaning import chat

pytestmark = pytest.mark.integration

ODD = ["1", "01", "null", "a'b", '"', "\\", "é👋\u2028", "x" * 2_000, "", "[1]", "%_", "\x01"]


async def test_keys_of_any_text_are_found_and_nothing_else(url: str) -> None:
    async with Database(url) as database:
        rows = Rows(database, list(conversations.primary_key.columns))
        these = rows.has(conversations.c.tenant, conversations.c.chat)
        for name in ODD:
            await chat(database, name, 1, 0, tenant=name)
            await chat(database, name, 1, 0, tenant=f"{name} ")
        keys = rows.parameters([(name, name) for name in ODD])
        found = await database.read(select(conversations.c.tenant).where(these).params(keys))
        assert sorted(row["tenant"] for row in found) == sorted(ODD)
        assert await database.write(delete(conversations).where(these), keys) == len(ODD)


async def test_a_statement_with_keys_is_the_same_for_any_number(url: str) -> None:
    seen: set[str] = set()
    async with Database(url) as database:
        rows = Rows(database, [conversations.c.chat])
        event.listen(database._engine.sync_engine, "before_cursor_execute", lambda *args: seen.add(args[2]))
        for number in (1, 2, 500):
            keys = rows.parameters([(str(n),) for n in range(number)])
            await database.write(delete(conversations).where(rows.has(conversations.c.chat)), keys)
    assert len(seen) == 1
