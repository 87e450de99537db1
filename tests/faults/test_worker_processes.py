"""`riacho worker --processes`: killed, stopped, orphaned, and unable to start."""

import asyncio
import os
import signal
from typing import Any

import pytest

from pipeline import Broker, Job
from pipeline.keys import Keys
from stages.jobs import SendClient, Transcribe
from tests.processes import SAMPLES, children, command_line, process_of, riacho, run, stop
from tests.support import add_one, eventually, until

pytestmark = pytest.mark.faults


class Workers:
    """What the workers of one stage look like from the server: consumers by the process that each is in."""

    def __init__(self, redis: Any, namespace: str, stage: str) -> None:
        self._redis, self._stream = redis, Keys(namespace).stream(stage, 0)

    async def both_of(self, supervisor: int) -> list[int]:
        """Its two children, once both ask for entries."""
        pids = children(supervisor)
        try:
            return pids if len(pids) == 2 and set(pids) <= await self.reading() else []
        except ValueError:  # one has a name, and has not written down yet which process it is
            return []

    async def reading(self) -> set[int]:
        """Processes that ask for entries."""
        if not await self._redis.exists(self._stream):
            return set()
        found = await self._redis.xinfo_consumers(self._stream, "riacho")
        return {process_of(consumer["name"].decode()) for consumer in found}

    async def have_worked(self) -> set[int]:
        """Processes that were given an entry."""
        found = await self._redis.xinfo_consumers(self._stream, "riacho")
        return {process_of(consumer["name"].decode()) for consumer in found if consumer.get("inactive", 0) >= 0}


async def test_a_worker_process_that_is_killed_comes_back_and_all_of_them_work(
    env: dict[str, str], broker: Broker, redis: Any, namespace: str
) -> None:
    workers = Workers(redis, namespace, "send-client")
    arguments = ("worker", "--processes", "2", "--stages", "send-client", "--nice", "3")
    with riacho(*arguments, env=env) as supervisor:
        killed, other = await eventually(
            lambda: workers.both_of(supervisor.pid), what="two processes reading", deadline=40
        )
        os.kill(killed, signal.SIGKILL)

        async def back() -> list[int]:
            pids = await workers.both_of(supervisor.pid)
            return pids if killed not in pids else []

        both = await eventually(back, what="another process in its place", deadline=40)
        assert other in both
        added: list[Any] = []

        async def both_worked() -> bool:
            batch = [Job(stage="send-client", payload=SendClient("5511987654321", str(n))) for n in range(20)]
            added.extend(answer.id for answer in await broker.add(batch))
            return set(both) <= await workers.have_worked()

        await eventually(both_worked, what="both processes working")
        for job in added:
            await until(broker, job, "completed")
        assert {os.getpriority(os.PRIO_PROCESS, pid) for pid in both} == {os.getpriority(os.PRIO_PROCESS, 0) + 3}
        assert os.getpriority(os.PRIO_PROCESS, supervisor.pid) == os.getpriority(os.PRIO_PROCESS, 0)
        assert await asyncio.to_thread(stop, supervisor) == 0
    assert not any(command_line(pid) for pid in both)


async def test_when_the_supervisor_is_killed_no_worker_is_left(
    env: dict[str, str], redis: Any, namespace: str
) -> None:
    workers = Workers(redis, namespace, "send-client")
    with riacho("worker", "--processes", "2", "--stages", "send-client", env=env) as supervisor:
        pids = await eventually(lambda: workers.both_of(supervisor.pid), what="two processes reading", deadline=40)
        supervisor.kill()

        async def gone() -> bool:
            return not any(command_line(pid) for pid in pids)

        await eventually(gone, what="the workers ending")
    assert await workers.reading() == set(), "they left in order"


async def test_stopped_supervised_workers_finish_what_they_run(env: dict[str, str], broker: Broker) -> None:
    with riacho("worker", "--processes", "2", "--stages", "transcribe", env=env) as supervisor:
        note = Transcribe(source=str(SAMPLES / "pedido-pizzas.ogg"))
        jobs = [await add_one(broker, Job(stage="transcribe", payload=note)) for _ in range(2)]
        for job in jobs:
            await until(broker, job, "active", deadline=40)
        assert await asyncio.to_thread(stop, supervisor) == 0
    views: list[Any] = [await broker.look(job) for job in jobs]
    assert [(view.state, view.attempt) for view in views] == [("completed", 1)] * 2


def test_workers_that_cannot_start_end_the_supervisor_with_a_clear_line(env: dict[str, str]) -> None:
    ended = run("worker", "--processes", "2", env=env | {"RIACHO_AUDIO_MODEL": "none"})
    assert ended.returncode == 3
    *before, last = ended.stderr.splitlines()
    assert last.startswith("riacho: the worker-")
    assert last.endswith(" process cannot start; the line above says why")
    assert any(line.startswith("riacho: cannot load the Whisper model 'none'") for line in before)
    assert "Traceback" not in ended.stderr
