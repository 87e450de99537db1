"""What somebody new does first: the demo, the whole pipeline, a look at its status."""

import asyncio
import json
import os
import signal
import socket
from pathlib import Path

import aiohttp
import pytest

from pipeline.embedded import EmbeddedServer
from tests.processes import children, command_line, environment, riacho, run, stop
from tests.support import eventually

pytestmark = pytest.mark.acceptance


@pytest.fixture
def port() -> int:
    """A port nobody uses."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        number: int = free.getsockname()[1]
        return number


async def answers(url: str) -> int:
    """The status of a GET, 0 while nobody listens."""
    try:
        async with aiohttp.ClientSession() as http, http.get(url) as answer:
            return answer.status
    except aiohttp.ClientError:
        return 0


def test_the_demo_shows_a_voice_note_go_in_and_a_reply_go_out_twice(tmp_path: Path) -> None:
    for _ in range(2):
        ended = run("demo", "--data", str(tmp_path), env=environment())
        assert ended.returncode == 0, ended.stdout + ended.stderr
        assert "transcript of pedido-pizzas.ogg (7.74 s): 'Olá, eu gostaria de fazer um pedido" in ended.stdout
        assert "reply to 5511987654321: 'Anotado!" in ended.stdout
        assert "reply to 14155550123: 'Let me check the price" in ended.stdout
        assert "reply to 34655501234: '¡Gracias!" in ended.stdout
        assert "the shop's products are known: 3" in ended.stdout
        assert "reply to 5511987654321: 'Pizza de calabresa: R$ 49,90" in ended.stdout
        assert "reply to 5511987654321: 'Pedido 1042 (R$ 105,90): pago, em preparação.'" in ended.stdout
        assert "WhatsApp took all 7 replies, and says that they were delivered" in ended.stdout
        assert "every reply has gone out" in ended.stdout
        assert ended.stderr == ""


def test_the_demo_fails_where_a_step_fails_and_says_why(tmp_path: Path) -> None:
    ended = run("demo", "--data", str(tmp_path), env=environment(RIACHO_AUDIO_MODEL=str(tmp_path / "none")))
    assert ended.returncode == 1
    assert "cannot load the Whisper model" in ended.stderr
    assert "failed: one of the processes crashed" in ended.stdout


async def test_up_serves_restarts_what_crashes_and_ends_clean(tmp_path: Path, port: int) -> None:
    env = environment(RIACHO_DATA_FOLDER=tmp_path)
    with riacho("up", "--port", str(port), env=env) as process:
        await eventually(lambda: answers(f"http://127.0.0.1:{port}/readyz"), what="readiness", deadline=40)
        second = await asyncio.to_thread(run, "up", "--port", str(port), env=env)
        assert second.returncode == 3
        assert second.stderr.startswith(f"riacho: another Riacho (process {process.pid}) runs on {tmp_path};")
        status = await asyncio.to_thread(run, "status", "--json", env=env)
        queues = [queue["queue"] for queue in json.loads(status.stdout)["queues"]]
        assert queues == ["audio", "notification", "cleanup", "sync"]

        def api() -> list[int]:
            return [child for child in children(process.pid) if "api api" in command_line(child)]

        (before,) = api()
        os.kill(before, signal.SIGKILL)

        async def another() -> bool:
            return bool(api()) and api() != [before] and await answers(f"http://127.0.0.1:{port}/healthz") == 200

        await eventually(another, what="the API starting again")
        tree = children(process.pid)
        assert len(tree) == 4
        assert await asyncio.to_thread(stop, process) == 0
    assert [command_line(child) for child in tree] == [""] * 4


def test_a_store_that_is_down_ends_up_with_one_clear_line(server: str, tmp_path: Path) -> None:
    variables = {
        "REDIS_URL": server,
        "RIACHO_DATA_FOLDER": str(tmp_path),
        "RIACHO_STORE_URL": "postgresql+asyncpg://user:hush@127.0.0.1:1/db",
    }
    ended = run("worker", "--stages", "send-client", env=environment(**variables))
    assert ended.returncode == 3
    (line,) = ended.stderr.splitlines()
    assert line.startswith("riacho: cannot use the database postgresql+asyncpg://user:***@127.0.0.1:1/db (")


@pytest.mark.parametrize("signal_sent", [signal.SIGTERM, signal.SIGHUP])
async def test_a_demo_that_is_stopped_leaves_nothing_behind(tmp_path: Path, signal_sent: signal.Signals) -> None:
    with riacho("demo", "--data", str(tmp_path), env=environment()) as process:

        async def started() -> bool:
            return len(children(process.pid)) == 4

        await eventually(started, what="the processes starting")
        tree = children(process.pid)
        process.send_signal(signal_sent)
        assert await asyncio.to_thread(process.wait, 40) == 1
        assert [command_line(child) for child in tree] == [""] * 4


async def test_when_up_is_killed_its_processes_end_by_themselves(tmp_path: Path, port: int) -> None:
    with riacho("up", "--port", str(port), env=environment(RIACHO_DATA_FOLDER=tmp_path)) as process:
        await eventually(lambda: answers(f"http://127.0.0.1:{port}/readyz"), what="readiness", deadline=40)
        ours = [child for child in children(process.pid) if "valkey" not in command_line(child)]
        assert len(ours) == 3
        process.kill()

        async def gone() -> bool:
            return not any(command_line(child) for child in ours)

        await eventually(gone, what="the children ending")
    with EmbeddedServer(tmp_path):
        pass  # stops the server that was left behind


@pytest.mark.parametrize("command", ["api", "up"])
def test_a_port_that_is_taken_is_said_so_and_ends_it(server: str, tmp_path: Path, command: str) -> None:
    env = environment(REDIS_URL=server, RIACHO_DATA_FOLDER=tmp_path)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        ended = run(command, "--port", str(port), env=env)
    assert ended.returncode == 3
    assert f"riacho: cannot listen on 127.0.0.1:{port}: Address already in use; choose another" in ended.stderr


@pytest.mark.parametrize(
    ("arguments", "variables", "said"),
    [
        (["worker", "--processes", "2", "--stages", "trancribe"], {}, "no stage 'trancribe'"),
        (["up"], {"RIACHO_HTTP_PROT": "1"}, "RIACHO_HTTP_PROT is no setting; did you mean 'RIACHO_HTTP_PORT'?"),
    ],
)
def test_what_is_misspelt_is_said_in_one_line(arguments: list[str], variables: dict[str, str], said: str) -> None:
    ended = run(*arguments, env=environment(**variables))
    assert ended.returncode == 3
    (line,) = ended.stderr.splitlines()
    assert line.startswith("riacho: ")
    assert said in line
