"""`riacho enqueue`, `job`, `pause`, `drain` and the others beside a worker, as an operator uses them."""

import asyncio
import json
from pathlib import Path

import pytest

from tests.commands import call
from tests.processes import riacho, run

pytestmark = pytest.mark.acceptance

SEND = ("enqueue", "notification", "send-client")
PAYLOAD = '{"to": "5511987654321", "text": "Olá!"}'


def test_a_job_is_put_in_and_its_result_waited_for(env: dict[str, str], tmp_path: Path) -> None:
    with riacho("worker", "--stages", "send-client", env=env):
        ended = run(*SEND, "-", "--wait", "30", "--json", env=env, typed=PAYLOAD)
        assert ended.returncode == 0, ended.stderr
        view = json.loads(ended.stdout)
        job = view["jobId"]
        assert (view["state"], view["result"]["messageId"]) == ("completed", f"outbox:{job}")
        assert ended.stderr == f"{job}\n", "whoever interrupts the waiting can ask later"
        lines = call("job", job, "--wait", "30", env=env)
    assert lines.code == 0
    assert f"jobId       {job}\n" in lines.out
    assert "state       completed\n" in lines.out
    assert "Olá!" in (tmp_path / "outbox.jsonl").read_text("utf-8")


def test_a_paused_stage_starts_nothing_until_it_is_resumed_and_drains_then(env: dict[str, str]) -> None:
    assert call("pause", "send-client", env=env).out == "paused: notification.send-client\n"
    with riacho("worker", "--stages", "send-client", env=env):
        held = run(*SEND, PAYLOAD, "--wait", "2", "--json", env=env)
        assert (held.returncode, json.loads(held.stdout)["state"]) == (1, "waiting")
        assert call("resume", "send-client", env=env).out == "resumed: notification.send-client\n"
        ended = run("drain", "send-client", "--wait", "30", env=env)
        assert ended.stdout == "draining: notification.send-client\nnothing is left\n"
        assert ended.returncode == 0


async def test_whoever_has_patience_gets_in_when_there_is_room(env: dict[str, str]) -> None:
    await asyncio.to_thread(call, "drain", "notification", env=env)
    refused = run(*SEND, PAYLOAD, env=env)
    assert refused.returncode == 1
    assert refused.stderr == "riacho: notification.send-client is being drained and takes no new jobs\n"
    waiting = asyncio.create_task(asyncio.to_thread(run, *SEND, PAYLOAD, "--wait-for-room", "30", env=env))
    await asyncio.to_thread(run, "resume", "notification", env=env)
    assert (await waiting).stdout.startswith("send-client.0.")
