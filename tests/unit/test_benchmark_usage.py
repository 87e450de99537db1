"""What benchmarks say of CPU, memory and commands: of whom, and what of it is better."""

import subprocess
import sys
from collections import namedtuple
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import psutil
import pytest

from benchmarks.parts.contest import Contest
from benchmarks.parts.server import Server
from benchmarks.parts.usage import MILLION, PeakMemory, Usage, cpu_of, cpu_of_all, memory_of
from benchmarks.peers.entrants import PEERS, Entrant
from benchmarks.peers.environments import HERE, Command, Unavailable
from benchmarks.peers.process import Process
from benchmarks.reports.figures import more_is_better
from benchmarks.scenarios import chat

pytestmark = pytest.mark.unit

NOWHERE = "unix:///nowhere"
HOLDS = 50 * MILLION  # bytes
CHILD = f"held = b'x' * {HOLDS}; print('ready', flush=True); input()"
WITH_A_CHILD = f"""
import subprocess, sys
child = subprocess.Popen([sys.executable, "-c", {CHILD!r}], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
child.stdout.readline()
print("ready", flush=True)
input()
child.communicate(b"\\n")
print("ended", flush=True)
input()
"""
BUSY = "print('ready', flush=True); input(); sum(range(3_000_000)); print('done', flush=True); input()"


@contextmanager
def program(code: str) -> Iterator["subprocess.Popen[str]"]:
    """One that goes on at every line."""
    command = [sys.executable, "-c", code]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            said(process)
            yield process
        finally:
            process.kill()


def said(process: "subprocess.Popen[str]") -> str:
    assert process.stdout
    return process.stdout.readline().strip()


def go_on(process: "subprocess.Popen[str]") -> None:
    assert process.stdin
    process.stdin.write("\n")
    process.stdin.flush()


def test_a_process_stands_for_its_children() -> None:
    with program(WITH_A_CHILD) as process:
        with_child, used = memory_of(process.pid), cpu_of(process.pid)
        go_on(process)
        assert said(process) == "ended"
        assert with_child - memory_of(process.pid) > HOLDS
        assert cpu_of(process.pid) > used - 0.03, "a child's time stays in the account, but for parts of ticks"


def test_cpu_is_known_beyond_ticks() -> None:
    with program(BUSY) as process:
        before = cpu_of(process.pid)
        go_on(process)
        said(process)
        used = cpu_of(process.pid) - before
        assert used > 0
        assert used * 100 != round(used * 100)


def test_who_is_gone_takes_nothing_more() -> None:
    with program("print('ready', flush=True)") as process:
        process.wait()
    assert (memory_of(process.pid), cpu_of(process.pid)) == (0, 0)


def test_the_peak_is_seen_though_it_is_over() -> None:
    with program(WITH_A_CHILD) as process, PeakMemory(process.pid) as peak:
        go_on(process)
        assert said(process) == "ended"
        now = memory_of(process.pid)
    assert peak.mb * MILLION > now + HOLDS


def test_the_machine_s_cpu_is_known_where_interrupts_are_not_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    times = namedtuple("times", ["user", "nice", "system", "idle"])  # noqa: PYI024 - as psutil makes it on macOS
    monkeypatch.setattr(psutil, "cpu_times", lambda: times(1.0, 2.0, 3.0, 99.0))
    assert cpu_of_all() == 6


def test_what_needs_linux_says_so_before_anything_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    with pytest.raises(Unavailable, match="needs Linux"):
        chat.measure(loads="none of it is measured")
    for file in HERE.glob("*.py"):
        if "from benchmarks.peers.forking" in file.read_text():
            (entrant,) = [entrant for entrant in PEERS if entrant.name == file.stem]
            with pytest.raises(Unavailable, match="needs Linux"):
                entrant.command()


def test_what_jobs_and_hours_take() -> None:
    before = Usage(100.0, 2.0, 1.0, 1000, 5 * MILLION)
    after = Usage(110.0, 2.5, 1.1, 2001, 40 * MILLION)
    assert after.since(before, 500) == pytest.approx(
        {"cpu_seconds_per_million": 1000, "server_cpu_seconds_per_million": 200, "redis_commands_per_job": 2}
    )
    hourly = {"cpu_seconds_per_hour": 180, "server_cpu_seconds_per_hour": 36}
    assert after.over(before) == pytest.approx(hourly | {"redis_commands_per_second": 100, "memory_mb": 40})


@pytest.mark.parametrize(
    ("figure", "more"),
    [
        ("redis_commands_per_second", False),
        ("consume_redis_commands_per_job", False),
        ("cpu_seconds_per_hour", False),
        ("rss_bytes_per_waiting_job", False),
        ("first_result_seconds_small_backlog", False),
        ("up_memory_mb", False),
        ("status_ms", False),
        ("add_per_second_at_last", True),
        ("drain_per_second_small_backlog", True),
        ("consume_vs_bullmq", True),
        ("backlog_jobs", None),
    ],
)
def test_what_is_better(figure: str, more: bool | None) -> None:
    assert more_is_better(figure) is more


def contestant(code: str) -> Entrant:
    prelude = "import json, os; say = lambda answer: print(json.dumps(answer), flush=True); say({}); input(); "
    command = Command((sys.executable, "-c", prelude + code), Path(__file__).parent)
    return Entrant("made_up", "Made-up", 1, 1, lambda: command)


def test_a_process_can_be_told_more_than_the_others() -> None:
    entrant = contestant("say([os.environ.get(f'BENCHMARK_{name}') for name in ('BACKOFF', 'CONCURRENCY')])")
    with ExitStack() as stack:
        contest = Contest(Server(NOWHERE), stack, {"BENCHMARK_BACKOFF": "0.1"})
        assert contest.process(entrant, stack, concurrency=10).ask("who") == ["0.1", "10"]


def test_an_idle_worker_that_ended_is_not_measured() -> None:
    entrant = contestant("input()")
    with Process(entrant.command(), NOWHERE) as process:
        process.send("work", 10)
        process.must_be_busy()
        process.send("")
        with pytest.raises(Unavailable, match="its process ended: without a word"):
            process.answer()
        with pytest.raises(Unavailable, match="its process ended"):
            process.must_be_busy()
