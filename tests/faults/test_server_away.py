"""The server restarts, forgets, or is gone: workers go on by themselves, and lose nothing."""

import asyncio
import contextlib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from redis import Redis as SyncRedis
from redis.asyncio import Redis

from api.exits import SERVER_AWAY
from pipeline import Broker, Context, Done, Job, Pipeline
from pipeline.embedded import EmbeddedServer
from pipeline.errors import ServerUnavailable
from tests.commands import call
from tests.conftest import server_binary
from tests.faults.servers import OwnServer
from tests.processes import environment, run
from tests.support import Connect, Number, add_one, eventually, jobs, stage, until, unused, working

pytestmark = pytest.mark.faults


def connecting(own: OwnServer, pipeline: Pipeline) -> Connect:
    return lambda: Broker(own.url, pipeline)


async def test_a_restart_under_a_working_worker_loses_and_repeats_nothing(own: OwnServer) -> None:
    seen: Counter[int] = Counter()

    async def sink(ctx: Context, payload: Number) -> None:
        seen[payload.n] += 1
        await asyncio.sleep(0.002)

    pipeline = Pipeline([stage("sink", sink, concurrency=2, prefetch=10)])
    connect = connecting(own, pipeline)
    async with connect() as broker, working(connect, pipeline, lease=1.0):
        await broker.add(jobs("sink", 400))

        async def some_done() -> bool:
            return len(seen) > 50

        await eventually(some_done)
        await own.stop()
        await own.start()

        async def all_done() -> bool:
            return len(seen) == 400

        await eventually(all_done)
    # A batch whose answer the restart cut off comes again by its lease; what ran is not lost, and what is
    # repeated was never settled.
    assert set(seen) == set(range(400))
    assert max(seen.values()) <= 2


async def test_an_outcome_found_while_the_server_is_away_is_written_when_it_returns(
    own: OwnServer, caplog: pytest.LogCaptureFixture
) -> None:
    started, finish = asyncio.Event(), asyncio.Event()
    runs: list[int] = []

    async def first(ctx: Context, payload: Number) -> Done:
        runs.append(ctx.attempt)
        started.set()
        await finish.wait()
        return Done("found", forward=(ctx.forward("second", Number(1)),))

    async def second(ctx: Context, payload: Number) -> None:
        runs.append(-1)

    pipeline = Pipeline([stage("first", first), stage("second", second)])
    connect = connecting(own, pipeline)
    async with connect() as broker, working(connect, pipeline, lease=1):
        job = await add_one(broker, Job(stage="first", payload=Number(1)))
        await started.wait()
        await own.stop()
        finish.set()
        with pytest.raises(ServerUnavailable, match="Redis at unix://"):
            await broker.ping()

        async def noticed_by_all() -> bool:
            return all(said in caplog.text for said in ("cannot read", "Renewer.run_once", "wait to be written"))

        await eventually(noticed_by_all, what="everybody missing the server")
        await own.start()
        assert (await until(broker, job, "completed")).result == "found"

        async def handed_on() -> bool:
            return -1 in runs

        await eventually(handed_on)
    assert runs == [1, -1]


async def test_a_job_whose_answer_was_lost_is_not_added_again_by_the_client() -> None:
    asked: list[bytes] = []

    async def take_and_hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            while command := await reader.read(65_536):
                if b"EVALSHA" in command:
                    asked.append(command)
                    break
                writer.write(b"+OK\r\n" * command.count(b"\r\nCLIENT\r\n"))
                if b"\r\nINFO\r\n" in command:
                    info = b"maxmemory:0\r\nused_memory:0\r\ntotal_system_memory:1\r\n"
                    writer.write(b"$%d\r\n%s\r\n" % (len(info), info))
        writer.close()

    pipeline = Pipeline([stage("one", unused)])
    async with await asyncio.start_server(take_and_hang_up, "127.0.0.1") as server:
        port = server.sockets[0].getsockname()[1]
        async with Broker(f"redis://127.0.0.1:{port}", pipeline) as broker:
            with pytest.raises(ServerUnavailable):
                await broker.add(jobs("one", 1))
    assert len(asked) == 1


@pytest.mark.parametrize("forgetting", [("SCRIPT", "FLUSH"), ("FLUSHALL",)])
async def test_a_server_that_forgot_its_scripts_or_everything_is_worked_on(
    own: OwnServer, forgetting: tuple[str, ...]
) -> None:
    async def handle(ctx: Context, payload: Number) -> int:
        return payload.n

    pipeline = Pipeline([stage("one", handle)])
    connect = connecting(own, pipeline)
    client: Redis = Redis.from_url(own.url)
    async with client, connect() as broker, working(connect, pipeline):
        await until(broker, await add_one(broker, Job(stage="one", payload=Number(1))), "completed")
        await client.execute_command(*forgetting)
        await until(broker, await add_one(broker, Job(stage="one", payload=Number(2))), "completed")


DOWN = "redis://:hunter2@127.0.0.1:1/0"


@pytest.mark.parametrize("command", ["api", "worker", "up"])
def test_a_server_that_is_down_at_start_is_one_clear_line(command: str) -> None:
    ended = run(command, env=environment(REDIS_URL=DOWN, RIACHO_AUDIO_MODEL="none"))
    assert ended.returncode == SERVER_AWAY
    (line,) = ended.stderr.splitlines()
    assert line.startswith("riacho: cannot reach Redis at redis://127.0.0.1:1/0: ")
    assert "Start Redis there, or set REDIS_URL" in line
    assert "hunter2" not in ended.stderr + ended.stdout


@pytest.mark.parametrize("command", ["status", "demo"])
def test_commands_too_say_that_it_is_down(command: str) -> None:
    ended = call(command, env=environment(REDIS_URL=DOWN, RIACHO_AUDIO_MODEL="none"))
    assert ended.refusal.startswith("cannot reach Redis at redis://127.0.0.1:1/0: ")
    assert "Start Redis there, or set REDIS_URL" in ended.refusal
    assert "hunter2" not in ended.refusal + ended.out + ended.err


@pytest.mark.parametrize("command", ["api", "worker", "status"])
def test_where_no_server_is_named_the_one_of_up_is_meant(tmp_path: Path, command: str) -> None:
    ended = call(command, env=environment(RIACHO_DATA_FOLDER=tmp_path))
    assert ended.refusal.startswith(f"cannot reach Redis at unix://{tmp_path}/valkey.sock: ")


def test_a_server_that_may_evict_jobs_is_warned_of_loudly(own_sync: str) -> None:
    ended = run("status", env=environment(REDIS_URL=own_sync))
    assert ended.returncode == 0
    assert "WARNING: jobs may be lost" in ended.stderr
    assert "maxmemory-policy is 'allkeys-lru'" in ended.stderr
    assert "set it to 'noeviction'" in ended.stderr


@pytest.fixture
def own_sync(tmp_path: Path) -> Iterator[str]:
    """A server set to evict."""
    with EmbeddedServer(tmp_path, binary=server_binary()) as server:
        with SyncRedis.from_url(server.url) as client:
            client.config_set("maxmemory-policy", "allkeys-lru")
        yield server.url
