"""`riacho doctor`: what it says, its exit codes, and that it changes nothing and shows no secret."""

import asyncio
import json
from functools import partial
from pathlib import Path

import pytest

from api.adapters import Adapters
from config import load
from stages.health.finding import Finding
from tests.commands import Command, call

pytestmark = pytest.mark.integration

AWAY = "redis://:hush-hush@127.0.0.1:1/0"


@pytest.fixture
def riacho(env: dict[str, str]) -> Command:
    """Runs commands on this test's data folder."""
    return partial(call, env=env)


def found(out: str) -> dict[str, tuple[str, str]]:
    """State and detail by name."""
    return {each["name"]: (each["state"], each["detail"]) for each in json.loads(out)["findings"]}


def test_it_says_how_everything_is_and_makes_nothing(riacho: Command, tmp_path: Path) -> None:
    ended = riacho("doctor", "--json")
    findings = found(ended.out)
    assert ended.code == 0, findings
    assert findings["redis"][0] == findings["redis.persistence"][0] == "ok"
    assert findings["store"] == ("warning", "there is no database yet")
    assert findings["whatsapp"] == ("ok", "no number is asked: messages go to the outbox")
    assert findings["work.transcribe"][0] == "ok"
    assert list(tmp_path.iterdir()) == []


def test_with_a_database_it_looks_into_it_and_keeps_nothing(
    riacho: Command, env: dict[str, str], tmp_path: Path
) -> None:
    async def kept(at: int) -> int:
        async with (adapters := Adapters(load(environ=env))).database:
            return len((await adapters.checks.parts.log.keep([Finding("a", "ok", "")], at)).findings)

    assert asyncio.run(kept(1)) == 1
    before = (tmp_path / "riacho.db").read_bytes()
    assert found(riacho("doctor", "--json").out)["store"][0] == "ok"
    assert (tmp_path / "riacho.db").read_bytes() == before


def test_without_redis_it_goes_on_with_the_rest(riacho: Command, env: dict[str, str]) -> None:
    env["REDIS_URL"] = AWAY
    ended = riacho("doctor", "--json")
    findings = found(ended.out)
    assert ended.code == 1
    assert findings["redis"][0] == findings["work"][0] == "failed"
    assert findings["senders"][0] == "ok"
    assert "hush" not in ended.out + riacho("doctor").out


def test_without_a_server_of_its_own_it_says_how_to_start_one(riacho: Command, env: dict[str, str]) -> None:
    del env["REDIS_URL"]
    ended = riacho("doctor")
    assert ended.code == 1
    assert "riacho up" in " ".join(ended.out.split())
    assert "✗" in ended.out
