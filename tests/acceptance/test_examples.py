"""The programs of examples/ beside a real `riacho up`, as a reader of the README tries them."""

import asyncio
import os
import runpy
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from api.service import queue_service
from pipeline.errors import ServerUnavailable
from tests.processes import SAMPLES, environment, riacho, stop
from tests.support import eventually

pytestmark = pytest.mark.acceptance

ROOT = Path(__file__).parent.parent.parent
EXAMPLES = ROOT / "examples"

Printed = Callable[[str, object], str]


@pytest.fixture
def env(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """The environment of `riacho up` and of the examples."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    env = environment(RIACHO_DATA_FOLDER=tmp_path, RIACHO_AUDIO_ROOTS=SAMPLES, RIACHO_HTTP_PORT=port)
    for name in os.environ.keys() - env.keys():
        monkeypatch.delenv(name)
    for name, value in env.items():
        monkeypatch.setenv(name, value)
    return env


@pytest.fixture
def printed(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Printed:
    """Runs an example in this process, which is much quicker than one each; returns what it says."""

    def run(example: str, argument: object) -> str:
        monkeypatch.setattr("sys.argv", [example, str(argument)])
        runpy.run_path(str(EXAMPLES / example), run_name="__main__")
        return capsys.readouterr().out

    return run


async def can_queue() -> bool:
    """Whether there is a server yet."""
    try:
        async with queue_service():
            return True
    except ServerUnavailable:
        return False


def test_every_example_does_what_it_says(env: dict[str, str], tmp_path: Path, printed: Printed) -> None:
    with riacho("up", env=env) as process:
        asyncio.run(eventually(can_queue, what="a server to queue on"))
        told, told_again = (printed("notify_vendor.py", "11 98765-4321") for _ in range(2))
        cleaned = printed("clean_up.py", 30)
        transcript = printed("transcribe.py", SAMPLES / "pedido-pizzas.ogg")
        assert stop(process) == 0
    assert "completed: {'channel': 'outbox', 'messageId': 'outbox:send-vendor.0." in told
    assert told_again == told, "one order, one message"
    outbox = (tmp_path / "outbox.jsonl").read_text("utf-8")
    assert (outbox.count("\n"), "+5511987654321" in outbox, "1042" in outbox) == (1, True, True)
    assert "completed: {" in cleaned
    assert "'dryRun': True" in cleaned
    assert "gostaria de fazer um pedido de duas pizza" in transcript


def test_the_readme_shows_an_example_as_it_is() -> None:
    shown = (EXAMPLES / "transcribe.py").read_text("utf-8").partition('"""\n\n')[2]
    assert f"```python\n{shown}```\n" in (ROOT / "README.md").read_text("utf-8")
