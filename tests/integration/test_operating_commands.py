"""The commands of an operator: what they answer to programs, their exit codes, and what the shell completes."""

import json
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import typer.testing
from redis import Redis

from api.__main__ import app
from api.console import progress
from pipeline.keys import GROUP, Keys
from pipeline.message import Record, encode_record
from tests import processes
from tests.commands import Command, call

pytestmark = pytest.mark.integration

SEND = ("enqueue", "notification", "send-client", '{"to": "5511987654321", "text": "Olá!"}')
GONE = "send-client.0.1-0"

Bury = Callable[..., str]


@pytest.fixture
def riacho(env: dict[str, str]) -> Command:
    return partial(call, env=env)


@pytest.fixture
def answer(riacho: Command) -> Callable[..., Any]:
    """What a command says to programs, which is all that it says."""

    def ask(*arguments: str) -> Any:
        ended = riacho(*arguments, "--json")
        assert (ended.code, ended.err) == (0, "")
        return json.loads(ended.out)

    return ask


@pytest.fixture
def bury(server: str, namespace: str) -> Bury:
    """Makes a dead letter of send-client, with an index or as a version without one did; its job's id."""
    keys = Keys(namespace)

    def made(entry: str, *, indexed: bool = True, reason: str = "cannot be") -> str:
        record = encode_record(Record(state="failed", attempt=4, at_ms=1_700_000_000_000, reason=reason))
        with Redis.from_url(server) as redis:
            letter: Any = redis.xadd(keys.dead("send-client", 0), {"id": entry, "e": "?", "record": record})
            if indexed:
                redis.hset(keys.letters("send-client", 0), entry, letter)
        return f"send-client.0.{entry}"

    return made


# ── to programs ──────────────────────────────────────────────────────────────────────────────────


def test_stages_are_steered_and_emptied(answer: Callable[..., Any]) -> None:
    both = ["audio.transcribe", "audio.process-conversation"]
    for what in ("pause", "drain", "resume"):
        assert answer(what, "audio") == {"stages": both}
    answer("pause", "send-client")
    job = answer(*SEND)["jobId"]
    assert answer("cancel", job) == {"jobId": job, "answer": "cancelled"}
    answer(*SEND)
    assert answer("drain", "audio", "--wait", "5") == {"stages": both, "left": []}
    assert answer("clear", "notification", "--yes") == {"cleared": 1}


def test_what_is_left_after_draining_is_told_to_programs_with_exit_code_1(riacho: Command) -> None:
    riacho(*SEND)
    ended = riacho("drain", "send-client", "--wait", "0.1", "--json")
    assert ended.code == 1
    said = json.loads(ended.out)
    assert said["stages"] == ["notification.send-client"]
    assert [(left["stage"], left["waiting"]) for left in said["left"]] == [("send-client", 1)]


def test_a_question_is_not_mixed_with_the_answer(riacho: Command, bury: Bury) -> None:
    bury("5-1")
    ended = riacho("dead", "purge", "--json", typed="y\n")
    assert ended.out.splitlines()[1:] == ['{"purged":1}'], "under what was typed"
    assert "for good?" in ended.err
    assert "for good?" in riacho("clear", "audio", "--json", typed="y\n").err


def test_dead_letters_are_shown_put_back_and_deleted(answer: Callable[..., Any], bury: Bury) -> None:
    ids = [bury(f"5-{n}", indexed=n % 2 == 0) for n in range(1, 6)]
    assert [answer("dead", "show", job)["jobId"] for job in ids] == ids, "in the index or not"
    assert [letter["jobId"] for letter in answer("dead", "list", "--queue", "notification")] == ids
    assert answer("dead", "list", "--queue", "audio") == []

    assert answer("retry", ids[0])["jobId"].startswith("send-client.0.")
    assert answer("retry", ids[1])["jobId"].startswith("send-client.0.")
    replayed = answer("dead", "replay", ids[2])
    assert (replayed["replayed"], replayed["jobs"][0]["was"]) == (1, ids[2])
    assert answer("dead", "replay", "--all", "--queue", "audio") == {"replayed": 0}
    assert answer("dead", "replay", "--all", "--stage", "send-client") == {"replayed": 2}
    bury("6-1")
    assert answer("dead", "purge", "--yes", "--queue", "audio") == {"purged": 0}
    assert answer("dead", "purge", "--yes", "--queue", "notification") == {"purged": 1}


def test_retry_prints_the_new_jobs_id_and_nothing_else(riacho: Command, bury: Bury) -> None:
    new = riacho("retry", bury("5-1")).out.strip()
    assert riacho("job", new).code == 0


def test_workers_are_listed(riacho: Command, answer: Callable[..., Any], server: str, namespace: str) -> None:
    assert riacho("workers").out == "no worker has left a trace\n"
    assert answer("workers") == {"workers": []}
    stream = Keys(namespace).stream("send-client", 0)
    riacho(*SEND)
    with Redis.from_url(server) as redis:
        redis.xgroup_create(stream, GROUP, "0")
        redis.xreadgroup(GROUP.decode(), "host.3", {stream: ">"})
    (worker,) = answer("workers")["workers"]
    assert (worker["worker"], worker["stages"], worker["active"]) == ("host.3", ["send-client"], 1)
    assert "host.3" in riacho("workers").out


def test_what_came_from_elsewhere_is_no_order_to_the_terminal(
    riacho: Command, bury: Bury, server: str, namespace: str
) -> None:
    evil = "\x1b]0;owned\x07\x1b[2J[bold]\u202e"
    bury("5-1", reason=evil)
    stream = Keys(namespace).stream("send-client", 0)
    riacho(*SEND)
    with Redis.from_url(server) as redis:
        redis.xgroup_create(stream, GROUP, "0")
        redis.xreadgroup(GROUP.decode(), f"{evil}.3", {stream: ">"})
    for command in (("dead", "list"), ("workers",)):
        shown = riacho(*command).out
        assert "[bold]" in shown
        assert all(char.isprintable() or char == "\n" for char in shown)


def test_schedules_are_put_paused_fired_and_removed(answer: Callable[..., Any]) -> None:
    about = ("--cron", "0 5 * * *", "--stage", "stats")
    assert answer("schedule", "add", "mine", *about)["stage"] == "stats"
    assert answer("schedule", "pause", "mine") == {"schedule": "mine", "paused": True}
    assert answer("schedule", "resume", "mine") == {"schedule": "mine", "paused": False}
    assert answer("schedule", "run", "mine")["jobId"].startswith("stats.0.")
    assert answer("schedule", "remove", "mine") == {"schedule": "mine", "removed": True}


def test_a_new_key_is_told_to_programs(answer: Callable[..., Any]) -> None:
    assert answer("key", "new", "page").keys() == {"key", "line", "variable"}


# ── exit codes ───────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (("job", GONE), 1),
        (("cancel", GONE), 1),
        (("retry", GONE), 1),
        (("dead", "show", GONE), 1),
        (("dead", "replay", GONE), 1),
        (("schedule", "run", "statz"), 1),
        (("senders", "resume", "shop"), 1),
        (("hold", "add", "shop", "55"), 1),
        (("retry", "7"), 2),
        (("retry", "sned-client.0.1-0"), 2),
        (("pause", "audoi"), 2),
        (("dead", "list", "--queue", "audio", "--stage", "send-client"), 2),
        (("enqueue", "notification", "send-client", "{}"), 2),
        (("dead", "replay"), 2),
        (("pause",), 2),
        (("worker", "--stages", "trancribe"), 3),
    ],
)
def test_what_a_command_ends_in_says_whose_fault_it_is(
    riacho: Command, arguments: tuple[str, ...], code: int
) -> None:
    ended = riacho(*arguments)
    assert (ended.code, ended.out) == (code, "")


def test_what_a_draining_stage_refuses_is_a_no(riacho: Command) -> None:
    riacho("drain", "send-client")
    assert riacho(*SEND).code == 1


def test_settings_that_cannot_be_and_a_server_that_is_away_are_told_apart(
    env: dict[str, str], tmp_path: Path
) -> None:
    own = json.dumps({"stats": {"cron": "0 5 * * *", "stage": "stats"}})
    assert call("schedule", "list", env=env | {"RIACHO_SCHEDULES_OWN": own}).code == 3
    assert call("status", env=env | {"RIACHO_HTTP_PORT": "none"}).code == 3
    assert call("status", env=env | {"REDIS_URL": f"unix://{tmp_path}/gone.sock"}).code == 75


@pytest.mark.parametrize("closed", ["<&-", ">&-", "<&- >&- 2>&-"])
def test_without_standard_input_or_output_commands_run_all_the_same(env: dict[str, str], closed: str) -> None:
    command = f'"$0" -m api status --json {closed}'
    assert subprocess.run(["/bin/sh", "-c", command, sys.executable], env=env, check=False).returncode == 0


@pytest.mark.parametrize("command", [("dead", "list"), ("top", "--once")])
def test_what_a_terminal_cannot_show_is_shown_as_question_marks(
    env: dict[str, str], bury: Bury, command: tuple[str, ...]
) -> None:
    bury("5-1", reason="não 漢字")
    ended = processes.run(*command, env=env | {"PYTHONIOENCODING": "ascii"})
    assert (ended.returncode, "n?o ??" in ended.stdout) == (0, True)


def test_the_exit_codes_are_explained(riacho: Command) -> None:
    assert "Exit codes: 0 done; 1 the answer is no" in riacho("--help").out


# ── before a terminal ────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("terminal", [True, False])
def test_long_work_shows_how_far_it_is_to_whoever_sits_before_a_terminal(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, terminal: bool
) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("FORCE_COLOR", "1")  # rich has its own idea of a terminal
    monkeypatch.setattr(sys.stderr, "isatty", lambda: terminal, raising=False)
    for as_json in (False, True):
        with progress("clearing", 1000, as_json=as_json) as advance:
            advance(1000)
        said = capsys.readouterr()
        assert said.out == ""
        assert ("clearing" in said.err and "1000/1000" in said.err) is (terminal and not as_json)


# ── completion ───────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("line", "offered"),
    [
        ("riacho pause a", ["audio", "alert"]),
        ("riacho clear send-c", ["send-client"]),
        ("riacho enqueue n", ["notification"]),
        ("riacho enqueue cleanup st", ["stats"]),
        ("riacho enqueue audio st", []),
        ("riacho dead list --stage tr", ["transcribe"]),
        ("riacho dead purge --queue c", ["cleanup"]),
        ("riacho worker --stages alert,stats,tr", ["alert,stats,transcribe"]),
        ("riacho worker --stages alert,stats,a", []),
    ],
)
def test_names_are_completed_without_any_server(line: str, offered: list[str], tmp_path: Path) -> None:
    asking = asked(line) | {"REDIS_URL": f"unix://{tmp_path}/gone.sock"}
    ended = typer.testing.CliRunner().invoke(app, [], env=asking, prog_name="riacho")
    assert (ended.stdout.split(), ended.stderr) == (offered, "")


def test_nothing_is_offered_where_the_settings_cannot_be_read() -> None:
    asking = asked("riacho pause a") | {"RIACHO_HTTP_PORT": "none"}
    ended = typer.testing.CliRunner().invoke(app, [], env=asking, prog_name="riacho")
    assert (ended.stdout.split(), ended.stderr) == ([], "")


def test_a_shell_that_asks_is_told_names(env: dict[str, str]) -> None:
    program = Path(sys.executable).with_name("riacho")
    ended = subprocess.run(
        [program], env=env | asked("riacho pause a"), capture_output=True, text=True, check=True
    )
    assert (ended.stdout, ended.stderr) == ("audio\nalert\n", "")


def asked(line: str) -> dict[str, str]:
    """How bash asks, by the script that `riacho --show-completion bash` prints."""
    last = str(len(line.split(" ")) - 1)
    return {"_RIACHO_COMPLETE": "complete_bash", "COMP_WORDS": line, "COMP_CWORD": last}
