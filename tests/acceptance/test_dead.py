"""`riacho dead`, as an operator uses it after an incident."""

import json
from typing import Any

import pytest

from pipeline.keys import Keys
from tests.commands import call
from tests.processes import riacho, run
from tests.support import eventually

pytestmark = pytest.mark.acceptance


@pytest.fixture
async def buried(env: dict[str, str], redis: Any, namespace: str) -> str:
    """The id of a job that a worker has buried: bytes that are no envelope."""
    keys = Keys(namespace)
    entry = await redis.xadd(keys.stream("send-client", 0), {"e": "no envelope"})
    with riacho("worker", "--stages", "send-client", env=env):

        async def dead() -> int:
            count: int = await redis.xlen(keys.dead("send-client", 0))
            return count

        await eventually(dead, what="burying")
    return f"send-client.0.{entry.decode()}"


def test_a_dead_letter_is_listed_shown_replayed_and_purged(env: dict[str, str], buried: str) -> None:
    listed = run("dead", "list", "--json", env=env)
    (letter,) = json.loads(listed.stdout)
    assert letter["jobId"] == buried
    assert "cannot be read: not an envelope" in call("dead", "show", buried, env=env).out
    assert "cannot be read" in call("dead", "list", "--stage", "send-client", env=env).out

    assert call("dead", "replay", env=env).code == 2, "which ones has to be said"
    replayed = run("dead", "replay", buried, env=env)
    assert replayed.stdout.startswith(f"{buried} is now send-client.0.")
    assert replayed.stdout.endswith("1 replayed\n")
    gone = run("dead", "show", buried, env=env)
    assert gone.returncode == 1
    assert "is not among the dead letters" in gone.stderr

    assert call("dead", "purge", env=env).code == 1, "nobody said yes"
    assert call("dead", "purge", "--yes", env=env).out == "0 deleted\n"
    assert "did you mean 'send-client'?" in call("dead", "list", "--stage", "sned-client", env=env).refusal
