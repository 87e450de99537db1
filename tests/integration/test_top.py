"""`riacho top` on a real terminal: what it shows, what its keys do, and what it leaves behind."""

import asyncio
import json
import signal
import subprocess
from collections.abc import AsyncIterator, Callable
from functools import partial
from pathlib import Path

import pytest

from api.adapters import Adapters
from api.root import connector
from config import load
from pipeline import Broker, Job
from stages.jobs import SendClient
from tests.commands import Command, call
from tests.faults.servers import OwnServer
from tests.processes import environment, riacho, stop
from tests.support import add_one, eventually, status
from tests.terminal import Terminal, on_terminal

pytestmark = pytest.mark.integration

SEND = ("enqueue", "notification", "send-client", '{"to": "5511987654321", "text": "Olá!"}')
KEYS = "p pause"
MAIN_SCREEN, CURSOR = "\x1b[?1049l", "\x1b[?25h"

Queue = Callable[[], None]


@pytest.fixture
def command(env: dict[str, str]) -> Command:
    return partial(call, env=env)


@pytest.fixture
async def top(env: dict[str, str]) -> AsyncIterator[Terminal]:
    with on_terminal("top", "--interval", "0.3", env=env) as terminal:
        await terminal.shows("riacho  ok", "transcribe", KEYS)
        yield terminal


@pytest.fixture
async def broker(server: str, namespace: str) -> AsyncIterator[Broker]:
    settings = load({"redis": {"url": server, "namespace": namespace}}, environ={})
    async with connector(settings, Adapters(settings).pipeline())() as opened:
        yield opened


async def until_paused(broker: Broker, name: str, *, paused: bool) -> None:
    async def asked() -> bool:
        return (await status(broker, name)).paused is paused

    await eventually(asked, what=f"{name} being paused: {paused}")


async def test_what_is_queued_comes_onto_the_screen(top: Terminal, broker: Broker) -> None:
    await add_one(broker, Job(stage="send-client", payload=SendClient(to="5511987654321", text="Olá!")))
    await top.shows("send-client          no worker")
    await top.shows("health", "tts-cache", "UTC")
    await top.shows("out 0.0/s")


async def test_the_selected_stage_is_paused_and_resumed_after_a_yes(top: Terminal, broker: Broker) -> None:
    top.type("\x1b[B")
    top.type("p")
    await top.shows("pause audio.process-conversation? y says yes")
    assert not (await status(broker, "process-conversation")).paused
    top.type("y")
    await top.shows("paused: audio.process-conversation", KEYS)
    await until_paused(broker, "process-conversation", paused=True)
    await top.shows("process-conversation paused")
    assert not (await status(broker, "transcribe")).paused
    top.type("r")
    await top.shows("resume audio.process-conversation? y says yes")
    top.type("y")
    await top.shows("resumed: audio.process-conversation")
    await until_paused(broker, "process-conversation", paused=False)


async def test_without_a_yes_nothing_is_done(top: Terminal, broker: Broker) -> None:
    top.type("p")
    await top.shows("pause audio.transcribe?")
    top.type("q")
    await top.shows("nothing was done", KEYS)
    assert not (await status(broker, "transcribe")).paused


async def test_help_is_shown_and_put_away(top: Terminal) -> None:
    top.type("?")
    await top.shows("it starts no more jobs", "share of the workers' places in use")
    top.type("?")
    await top.shows("transcribe")


async def test_a_new_size_is_drawn_at_once(env: dict[str, str]) -> None:
    with on_terminal("top", "--interval", "3600", env=env, width=60, height=10) as terminal:
        await terminal.shows("transcribe", "q quit")
        assert "retrying" not in terminal.picture
        terminal.resize(130, 40)
        await terminal.shows("retrying", "drains in", "health", KEYS)
        terminal.resize(20, 2)
        terminal.type("k")
        await terminal.shows("riacho")


@pytest.mark.parametrize("ending", ["q", "\x03", "\x1cq", signal.SIGTERM])
async def test_the_terminal_is_left_as_it_was(env: dict[str, str], ending: str | signal.Signals) -> None:
    with on_terminal("top", env=env) as terminal:
        before = terminal.modes
        await terminal.shows("riacho  ok", KEYS)
        assert terminal.modes != before
        if isinstance(ending, str):
            terminal.type(ending)
        else:
            terminal.process.send_signal(ending)
        assert await terminal.end() == 0
        assert terminal.modes == before
        await eventually(partial(_ended_with, terminal, MAIN_SCREEN, CURSOR), what="the screen from before")


async def test_it_ends_quietly_when_its_terminal_is_closed(env: dict[str, str], tmp_path: Path) -> None:
    with (
        (tmp_path / "errors").open("wb") as errors,
        on_terminal("top", "--interval", "0.2", env=env, stderr=errors) as terminal,
    ):
        await terminal.shows("riacho  ok", KEYS)
        terminal.close()
        assert await terminal.end() == 0
    assert (tmp_path / "errors").read_text() == ""


async def _ended_with(terminal: Terminal, *parts: str) -> bool:
    return all(part in terminal.output for part in parts)


async def test_while_redis_is_away_it_says_so_and_it_goes_on_after(tmp_path: Path) -> None:
    own = OwnServer(tmp_path)
    await own.start()
    env = environment(REDIS_URL=own.url, RIACHO_DATA_FOLDER=tmp_path)
    try:
        with (
            on_terminal("top", "--interval", "0.2", env=env) as terminal,
            riacho("top", "--json", "--interval", "0.2", env=env, stderr=subprocess.DEVNULL) as lines,
        ):
            await terminal.shows("riacho  ok", KEYS)
            await asyncio.to_thread(_read_until, lines, "state")
            await own.stop()
            await asyncio.to_thread(_read_until, lines, "error")
            await terminal.shows("Redis is away, figures are", "transcribe")
            terminal.type("py")
            await terminal.shows("could not pause audio.transcribe")
            await own.start()
            await terminal.shows("riacho  ok")
            await asyncio.to_thread(_read_until, lines, "state")
            terminal.type("q")
            assert await terminal.end() == 0
    finally:
        await own.stop()


def _read_until(process: "subprocess.Popen[bytes]", key: str) -> None:
    """Read lines until one has this key."""
    assert process.stdout
    while key not in json.loads(process.stdout.readline()):
        pass


# ── without a terminal ───────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("flags", [[], ["--once"]])
def test_in_a_pipe_it_is_printed_once(command: Command, flags: list[str]) -> None:
    assert command(*SEND).code == 0
    ended = command("top", *flags)
    assert (ended.code, ended.err) == (0, "")
    assert "\x1b" not in ended.out
    (line,) = [line for line in ended.out.splitlines() if "send-client" in line]
    assert line.split()[:8] == ["send-client", "no", "worker", "1", "0", "0", "0", "0"]
    assert "tts-cache" in ended.out


def test_once_as_json_is_what_there_is_in_one_line(command: Command) -> None:
    assert command(*SEND).code == 0
    ended = command("top", "--once", "--json")
    (line,) = ended.out.splitlines()
    found = json.loads(line)
    assert set(found) == {"state", "memory", "at", "queues", "workers", "letters", "schedules"}
    stages = {stage["stage"]: stage for queue in found["queues"] for stage in queue["stages"]}
    assert stages["send-client"]["waiting"] == 1
    assert "in1m" not in stages["send-client"], "of one look there are no rates"
    moments = {each["name"]: each["next"]["ms"] for each in found["schedules"]}
    assert list(moments.values()) == sorted(moments.values()), "the next first"
    assert moments["health"] == min(moments.values()), "though another may run at the same time"


def test_as_json_there_is_a_line_for_each_look_until_it_is_stopped(env: dict[str, str]) -> None:
    with riacho("top", "--json", "--interval", "0.2", env=env, stderr=subprocess.PIPE) as process:
        assert process.stdout
        assert process.stderr
        first, second = (json.loads(process.stdout.readline()) for _ in range(2))
        assert first["at"] < second["at"]
        assert second["queues"][0]["in1m"] == 0.0
        assert stop(process) == 0
        assert process.stderr.read() == b""


def test_without_a_server_it_ends_as_other_commands_do() -> None:
    ended = call("top", "--once", env=environment(REDIS_URL="redis://127.0.0.1:1"))
    assert (ended.code, "cannot reach" in ended.refusal) == (75, True)


@pytest.mark.parametrize("interval", ["0", "-1", "0.1", "4000", "nan", "inf"])
def test_an_interval_that_cannot_be_is_refused(command: Command, interval: str) -> None:
    assert command("top", "--interval", interval, "--once").code == 2
