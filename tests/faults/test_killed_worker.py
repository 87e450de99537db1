"""Real worker processes with the real model, killed and stopped while they transcribe."""

import asyncio
import os
import signal
from pathlib import Path
from typing import Any

import msgspec
import pytest

from pipeline import Broker, Job, JobId
from pipeline.keys import Keys
from stages.jobs import Incoming, Transcribe
from stages.notification.outbox import Sent
from tests.processes import SAMPLES, process_of, riacho, stop
from tests.support import add_one, conversations, depths, eventually, state, until

pytestmark = pytest.mark.faults

STAGES = ("transcribe", "process-conversation", "send-client")
CHAT = "5511987654321"


def note(number: int) -> Job:
    """A voice note of the sample chat."""
    said = Incoming(chat=CHAT, id=f"wamid.{number}", sent_ms=number)
    job = Transcribe(source=str(SAMPLES / "pedido-pizzas.ogg"), message=said)
    return Job(stage="transcribe", payload=job, tenant="shop", key=CHAT)


def outbox(folder: Path) -> list[Sent]:
    path = folder / "outbox.jsonl"
    lines = path.read_bytes().splitlines() if path.exists() else []
    return [msgspec.json.decode(line, type=Sent) for line in lines]


async def nothing_left(broker: Broker) -> bool:
    return {await depths(broker, name) for name in STAGES} == {(0, 0, 0, 0)}


async def test_a_worker_killed_while_transcribing_is_replaced_and_the_reply_goes_out_once(
    env: dict[str, str], broker: Broker, redis: Any, namespace: str, tmp_path: Path
) -> None:
    with riacho("worker", env=env), riacho("worker", env=env):
        job = await add_one(broker, note(1))
        await until(broker, job, "active", deadline=40)
        stream = Keys(namespace).stream("transcribe", 0)
        (holding,) = await redis.xpending_range(stream, "riacho", "-", "+", 1)
        os.kill(process_of(holding["consumer"].decode()), signal.SIGKILL)
        assert await state(broker, job) == "active", "it died in the middle"

        view = await until(broker, job, "completed", deadline=40)
        assert view.attempt == 2
        assert "pedido" in view.result["text"]
        (following,) = view.next
        (reply,) = (await until(broker, JobId.parse(following), "completed")).next
        await until(broker, JobId.parse(reply), "completed")
        await eventually(lambda: nothing_left(broker), what="nothing waiting, active, retrying or dead")
    assert [(sent.job_id, sent.to) for sent in outbox(tmp_path)] == [(reply, CHAT)]
    async with conversations(f"sqlite+aiosqlite:///{tmp_path}/riacho.db") as store:
        assert [message.direction for message in await store.history("shop", CHAT, 10)] == ["in", "out"]


async def test_a_stopped_worker_finishes_its_transcription_and_leaves_the_rest(
    env: dict[str, str], broker: Broker
) -> None:
    with riacho("worker", "--stages", "transcribe", env=env) as worker:
        ids = [added.id for added in await broker.add([note(n) for n in range(3)])]
        first = ids[0]
        assert first
        await until(broker, first, "active", deadline=40)
        code = await asyncio.to_thread(stop, worker)
    assert code == 0
    assert await state(broker, first) == "completed"
    waiting, active, retrying, dead = await depths(broker, "transcribe")
    assert (active, retrying, dead) == (0, 0, 0)
    assert waiting >= 1
    views: list[Any] = [await broker.look(job) for job in ids if job]
    assert {(view.state, view.attempt) for view in views} == {("completed", 1), ("waiting", 0)}
