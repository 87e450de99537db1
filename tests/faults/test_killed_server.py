"""The embedded server is killed: it comes back with its data and everybody goes on, or all of it ends."""

import asyncio
import contextlib
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import aiohttp
import msgspec
import pytest
from redis import Redis as SyncRedis
from redis.asyncio import Redis
from redis.exceptions import ConnectionError as RedisConnectionError

from api import processes
from api.__main__ import with_server
from api.demo import Said, event, free_port
from api.signatures import sign
from config import Settings, load, replaced
from pipeline.embedded import EmbeddedServer
from pipeline.errors import EmbeddedServerFailed
from stages.notification.outbox import Sent
from tests.processes import children, command_line, environment, riacho, stop
from tests.support import eventually

pytestmark = pytest.mark.faults

SECRET = "a secret of this test"


async def kill(url: str) -> None:
    """SIGKILL the server, once nothing that it answered is still on its way into its append-only file."""
    async with Redis.from_url(url) as redis:

        async def written() -> bool:
            persistence = await redis.info("persistence")
            return int(persistence["aof_buffer_length"]) == 0

        await eventually(written)
        os.kill((await redis.info("server"))["process_id"], signal.SIGKILL)


@contextlib.contextmanager
def held_up(pid: int) -> Iterator[None]:
    """The process stands still while it lasts."""
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """A data folder; a server that a failed test leaves on it is stopped."""
    yield tmp_path
    with contextlib.suppress(EmbeddedServerFailed), EmbeddedServer(tmp_path):
        pass


async def ready(http: aiohttp.ClientSession) -> bool:
    try:
        async with http.get("/readyz") as answer:
            return answer.status == 200
    except aiohttp.ClientConnectionError:
        return False


async def accepted(http: aiohttp.ClientSession, chat: str) -> bool:
    """Whether a webhook with a message of this chat was."""
    body = msgspec.json.encode(event(Said(chat, text="Olá!")))
    signature = {"X-Hub-Signature-256": sign(body, SECRET)}
    async with http.post("/webhooks/whatsapp", data=body, headers=signature) as answer:
        assert answer.status in (200, 503)
        return answer.status == 200


def replied_to(folder: Path) -> list[str]:
    """The chats that the outbox has a reply for."""
    outbox = folder / "outbox.jsonl"
    lines = outbox.read_bytes().splitlines() if outbox.exists() else []
    return sorted(msgspec.json.decode(line, type=Sent).to for line in lines)


async def test_under_up_a_killed_server_comes_back_and_nothing_accepted_is_lost(folder: Path) -> None:
    port, log = free_port(), folder / "log"
    env = environment(RIACHO_DATA_FOLDER=folder, RIACHO_WHATSAPP_APP_SECRET=SECRET, RIACHO_WORKER_LEASE=1)
    before, after = [str(chat) for chat in range(100, 150)], "200"
    with log.open("wb") as stderr, riacho("up", "--port", str(port), env=env, stderr=stderr) as process:
        async with aiohttp.ClientSession(f"http://127.0.0.1:{port}") as http:
            await eventually(lambda: ready(http), what="readiness", deadline=40)
            (worker,) = (pid for pid in children(process.pid) if "process-conv" in command_line(pid))
            with held_up(worker):  # what was accepted is still to be worked when the server dies
                assert all(await asyncio.gather(*(accepted(http, chat) for chat in before)))
                await kill(EmbeddedServer(folder).url)
                await eventually(lambda: accepted(http, after), what="a webhook being accepted again")

        async def all_replied() -> bool:
            return {*before, after} <= set(replied_to(folder))

        await eventually(all_replied, what="a reply to every message")
        assert await asyncio.to_thread(stop, process) == 0
    assert replied_to(folder) == [*before, after], "one each"
    assert "the embedded server ended with exit code -9; starting it again" in log.read_text()


@pytest.fixture
def settings(folder: Path) -> Settings:
    return replaced(load(environ={}), data={"folder": folder})


def test_a_server_that_cannot_be_started_again_ends_the_work_and_says_so(
    settings: Settings, folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(processes, "SERVER_PAUSES", (0.0, 0.01, 0.01))
    ended = asyncio.Event()

    async def work(served: Settings) -> None:
        (folder / "appendonlydir" / "appendonly.aof.manifest").write_text("nonsense")
        await kill(served.redis.url.reveal())
        try:
            await asyncio.wait_for(asyncio.Event().wait(), 20)
        finally:
            ended.set()

    with pytest.raises(EmbeddedServerFailed, match=r"ended again and again; .*valkey\.log may say why"):
        with_server(settings, work)
    assert ended.is_set(), "it had a chance to end in order"
    assert caplog.text.count("did not start") == 3
    with pytest.raises(EmbeddedServerFailed), EmbeddedServer(folder):
        pass  # the folder is free again: it is its data that is refused


def test_work_that_ends_while_the_server_is_started_again_leaves_no_server(
    settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    urls = []

    async def work(served: Settings) -> str:
        urls.append(served.redis.url.reveal())
        await kill(urls[0])

        async def being_started() -> bool:
            return "starting it again" in caplog.text

        await eventually(being_started)
        return "done"

    assert with_server(settings, work) == "done"
    with pytest.raises(RedisConnectionError), SyncRedis.from_url(urls[0]) as redis:
        redis.ping()
