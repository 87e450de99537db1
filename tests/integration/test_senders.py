"""`riacho senders`: what an operator sees of numbers that WhatsApp stopped, and does about them."""

import asyncio
import json
from functools import partial
from pathlib import Path

import pytest

from stages.notification.log import Held, NotificationLog
from stages.store import Database, sqlite_file
from tests.commands import Command, call

pytestmark = pytest.mark.integration

SINCE = 1_800_000_000_000


@pytest.fixture
def riacho(env: dict[str, str]) -> Command:
    """Runs commands on this test's data folder."""
    return partial(call, env=env)


def in_log(tmp_path: Path, tenant: str = "", why: str = "payment") -> list[Held]:
    """Stop a tenant's number, if one is named; the numbers that are stopped."""

    async def ask() -> list[Held]:
        async with Database(sqlite_file(tmp_path / "riacho.db")) as database:
            log = NotificationLog(database)
            if tenant:
                await log.pause(tenant, 131042, f"WhatsApp's error 131042: {why}", SINCE, SINCE + 900_000)
            return await log.paused()

    return asyncio.run(ask())


def test_a_paused_sender_is_listed_with_its_reason_and_sends_again_when_told_to(
    riacho: Command, tmp_path: Path
) -> None:
    assert riacho("senders", "list").out == "no sender is paused\n"
    in_log(tmp_path, "1065")
    listed = "1065: since 2027-01-15 08:00:00 UTC: WhatsApp's error 131042: payment\n"
    assert riacho("senders", "list").out == listed
    (sender,) = json.loads(riacho("senders", "list", "--json").out)
    assert (sender["tenant"], sender["code"]) == ("1065", 131042)
    assert riacho("senders", "resume", "1065").out == "1065: sends again within half a minute\n"
    assert in_log(tmp_path) == []


def test_what_whatsapp_said_is_no_order_to_the_terminal(riacho: Command, tmp_path: Path) -> None:
    in_log(tmp_path, "1065", "\x1b[2Jpayment")
    assert riacho("senders", "list").out.endswith("131042:  [2Jpayment\n")


def test_one_that_is_not_paused_cannot_be_resumed(riacho: Command) -> None:
    refusal = riacho("senders", "resume", "1066").refusal
    assert refusal == "the sender of tenant '1066' is not paused; see: riacho senders list"
