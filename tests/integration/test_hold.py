"""Conversations that are held for legal reasons: in the store, and by `riacho hold`."""

import asyncio
import json
from functools import partial
from pathlib import Path

import pytest

from stages.conversation.store import HeldConversation
from stages.ports import Message
from stages.store import sqlite_file
from tests.commands import Command, call
from tests.support import conversations

pytestmark = pytest.mark.integration

MINUTE = 60_000
SINCE = 1_700_006_400_000  # 2023-11-15


@pytest.fixture
def riacho(env: dict[str, str]) -> Command:
    """Runs commands on this test's data folder."""
    return partial(call, env=env)


def came(chat: str, received_ms: int = SINCE, tenant: str = "shop") -> Message:
    return Message(tenant, chat, f"{received_ms}", "in", "olá", 1, False, received_ms)


async def test_a_conversation_is_held_until_it_is_not(url: str) -> None:
    async with conversations(url) as store:
        await store.record([came("b"), came("a"), came("a", tenant="other")])
        for _ in range(2):
            assert await store.hold("shop", "b", True)
        assert await store.hold("shop", "a", True)
        await store.record([came("b", SINCE + 5)])  # what comes in changes nothing of it
        held = [HeldConversation("shop", "a", SINCE, SINCE), HeldConversation("shop", "b", SINCE, SINCE + 5)]
        assert await store.held() == held
        assert await store.hold("shop", "b", False)
        assert await store.held() == held[:1]


async def test_a_conversation_that_there_is_not_cannot_be_held(url: str) -> None:
    async with conversations(url) as store:
        assert not await store.hold("shop", "a", True)
        assert not await store.hold("shop", "a", False)
        assert await store.held() == []


def record(tmp_path: Path, *messages: Message) -> None:
    async def write() -> None:
        async with conversations(sqlite_file(tmp_path / "riacho.db")) as store:
            await store.record(messages)

    asyncio.run(write())


def test_an_operator_holds_lists_and_gives_free(riacho: Command, tmp_path: Path) -> None:
    assert riacho("hold", "list").out == "no conversation is held\n"
    record(tmp_path, came("5511"), came("5511", SINCE + 90 * MINUTE))
    assert riacho("hold", "add", "shop", "5511").out == "shop 5511: held\n"
    assert riacho("hold", "list").out == "shop 5511: from 2023-11-15 00:00 UTC to 2023-11-15 01:30 UTC\n"
    (held,) = json.loads(riacho("hold", "list", "--json").out)
    assert held == {"tenant": "shop", "chat": "5511", "started_ms": SINCE, "last_ms": SINCE + 90 * MINUTE}
    assert riacho("hold", "remove", "shop", "5511").out == "shop 5511: no longer held\n"
    assert json.loads(riacho("hold", "list", "--json").out) == []


@pytest.mark.parametrize("command", ["add", "remove"])
def test_a_conversation_that_nobody_knows_is_refused(riacho: Command, command: str) -> None:
    assert riacho("hold", command, "shop", "5512").refusal == "tenant 'shop' has no conversation '5512'"
