"""What jobs look like over HTTP and on the command line, and POST /queue/test, beside a real worker."""

import asyncio
import json
import time
from collections.abc import AsyncIterator
from functools import partial
from typing import Any

import msgspec
import pytest
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from api import probes
from api.adapters import Adapters
from api.root import connector
from pipeline import Pipeline
from tests.commands import Command, call
from tests.desk import Client, Desk, Serve, WithSettings, to_client, working_desk
from tests.support import Connect, working

pytestmark = pytest.mark.integration

JOB = to_client("5511987654321")


@pytest.fixture
def riacho(env: dict[str, str]) -> Command:
    return partial(call, env=env)


async def look(client: Client, job: str) -> dict[str, Any]:
    found: dict[str, Any] = await (await client.get(f"/queue/job/notification/{job}")).json()
    return found


async def test_a_job_shows_its_position_its_trace_and_its_times(
    settings: WithSettings, spans: InMemorySpanExporter
) -> None:
    began = time.time_ns() // 1_000_000
    async with working_desk(settings()) as desk:
        send_client = [desk.broker.pipeline.stage("send-client")]
        await desk.broker.pause(send_client)
        first, second = await desk.enqueue(JOB, JOB)
        waiting = await desk.view(second)
        assert (waiting["state"], waiting["position"]) == ("waiting", 1)
        assert not waiting.keys() & {"positionAtLeast", "startedAt", "endedAt"}
        await desk.broker.resume(send_client)
        ended = await desk.until(second)
        assert began <= ended["startedAt"] <= ended["endedAt"]
        assert "position" not in ended
        assert ended["traceId"] == waiting["traceId"]
        assert ended["delivery"]["state"] == "accepted"
        assert {f"{span.context.trace_id:032x}" for span in spans.get_finished_spans() if span.context} >= {
            (await desk.view(first))["traceId"],
            waiting["traceId"],
        }


def test_the_command_line_shows_them_too(riacho: Command) -> None:
    ids = [riacho("enqueue", "notification", "send-client", json.dumps(JOB["payload"])).out.strip() for _ in "ab"]
    assert json.loads(riacho("job", ids[1], "--json").out)["position"] == 1
    assert "position    1\n" in riacho("job", ids[1]).out


# ── POST /queue/test ─────────────────────────────────────────────────────────────────────────────


async def ask(desk: Desk) -> dict[str, Any]:
    answer = await desk.client.post("/queue/test")
    assert answer.status == 200
    found: dict[str, Any] = await answer.json()
    return found


async def test_every_stage_is_tried_and_nothing_is_sent(
    settings: WithSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(probes, "TIMEOUT", 1.5)
    async with working_desk(settings()) as desk:
        await desk.broker.pause([desk.broker.pipeline.stage("fallback")])
        found = await ask(desk)
        assert found["ok"] is False, "of two queues nobody works any stage"
        queues = {
            queue["queue"]: {stage["stage"]: stage for stage in queue["stages"]} for queue in found["queues"]
        }
        assert queues.keys() == {"audio", "notification", "cleanup", "sync"}
        for name, stage in queues["notification"].items():
            if name == "fallback":
                assert stage == {"stage": name, "ok": False, "milliseconds": None, "error": "paused"}
            else:
                assert (stage["ok"], stage.keys()) == (True, {"stage", "ok", "milliseconds"}), stage
                assert 0 < stage["milliseconds"] < 1500
        assert "no worker has audio.transcribe" in queues["audio"]["transcribe"]["error"]
        assert not desk.api.messages
        assert await desk.rows() == []
        assert await desk.dead() == 0


async def test_one_test_runs_at_a_time(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probes, "TIMEOUT", 0.3)
    async with serve() as client:
        answers = await asyncio.gather(*(client.post("/queue/test") for _ in range(2)))
        assert sorted(answer.status for answer in answers) == [200, 429]
        assert (await client.post("/queue/test")).status == 200


@pytest.fixture
async def all_stages(settings: WithSettings) -> AsyncIterator[Connect]:
    """A worker on every stage, without what these need to get anything done."""
    adapters = Adapters(settings())
    ready = [msgspec.structs.replace(stage, prepare=None) for stage in adapters.pipeline()]
    connect = connector(settings(), Pipeline(ready))
    async with connect() as broker, working(connect, broker.pipeline):
        yield connect


async def test_the_command_ends_with_0_where_all_came_through(all_stages: Connect, riacho: Command) -> None:
    ended = await asyncio.to_thread(riacho, "test", "--json")
    found = json.loads(ended.out)
    assert (ended.code, found["ok"]) == (0, True), found
    assert [queue["queue"] for queue in found["queues"]] == ["audio", "notification", "cleanup", "sync"]


async def test_the_command_ends_with_1_and_says_what_is_wrong(all_stages: Connect, riacho: Command) -> None:
    async with all_stages() as broker:
        await broker.pause([broker.pipeline.stage("health")])
    ended = await asyncio.to_thread(riacho, "test")
    assert ended.code == 1
    lines = ended.out.splitlines()
    assert [line for line in lines if line.startswith("failed")] == [f"failed {'cleanup.health':<28} paused"]
    assert lines[0].startswith("ok     audio.transcribe")
    assert lines[0].endswith(" ms")
