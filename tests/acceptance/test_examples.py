"""The programs of examples/ beside a real `riacho up`, as a reader of the README tries them."""

import asyncio
import socket
import sys
from pathlib import Path

import pytest

from api.service import queue_service
from config import load
from pipeline.errors import ServerUnavailable
from tests.processes import SAMPLES, environment, riacho, stop
from tests.support import eventually

pytestmark = pytest.mark.acceptance

ROOT = Path(__file__).parent.parent.parent
EXAMPLES = ROOT / "examples"


async def printed(example: str, argument: object, env: dict[str, str]) -> str:
    """What an example says, which is expected to end well and without a word on stderr."""
    command = [sys.executable, str(EXAMPLES / example), str(argument)]
    process = await asyncio.create_subprocess_exec(
        *command, env=env, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    async with asyncio.timeout(60):
        out, err = await process.communicate()
    assert (process.returncode, err.decode()) == (0, "")
    return out.decode()


async def can_queue(env: dict[str, str]) -> bool:
    """Whether there is a server yet."""
    try:
        async with queue_service(load(environ=env)):
            return True
    except ServerUnavailable:
        return False


async def test_every_example_does_what_it_says(tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    env = environment(RIACHO_DATA_FOLDER=tmp_path, RIACHO_AUDIO_ROOTS=SAMPLES, RIACHO_HTTP_PORT=port)
    with riacho("up", env=env) as process:
        await eventually(lambda: can_queue(env), what="a server to queue on")
        transcript, told, cleaned = await asyncio.gather(
            printed("transcribe.py", SAMPLES / "pedido-pizzas.ogg", env),
            printed("notify_vendor.py", "11 98765-4321", env),
            printed("clean_up.py", 30, env),
        )
        assert await asyncio.to_thread(stop, process) == 0
    assert "gostaria de fazer um pedido de duas pizza" in transcript
    assert "completed: {'channel': 'outbox', 'messageId': 'outbox:send-vendor.0." in told
    outbox = (tmp_path / "outbox.jsonl").read_text("utf-8")
    assert (outbox.count("\n"), "+5511987654321" in outbox, "1042" in outbox) == (1, True, True)
    assert "completed: {" in cleaned
    assert "'dryRun': True" in cleaned


def test_the_readme_shows_an_example_as_it_is() -> None:
    *_, program = (EXAMPLES / "transcribe.py").read_text("utf-8").partition("async def main")
    assert program in (ROOT / "README.md").read_text("utf-8")
