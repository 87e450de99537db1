"""The benchmark's own parts: ratios, the table, peers that cannot be measured, and the commands they answer."""

import asyncio
import json
import re
import subprocess
import sys
import tomllib
import venv
from collections import Counter, deque
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from benchmarks.notes import VoiceNote, voice_notes
from benchmarks.parts.contest import Contest
from benchmarks.parts.server import Server
from benchmarks.peers import environments
from benchmarks.peers.entrants import PEERS, RIACHO, Entrant
from benchmarks.peers.environments import Command, Unavailable, node_peer, python_peer
from benchmarks.peers.process import Process
from benchmarks.peers.serving import FAILURES, Contestant, Countdown, Failure, Handler, Session, job, parts
from benchmarks.reports.document import contestants
from benchmarks.reports.report import Report
from benchmarks.scenarios import fanout, retry_storm, transcribe
from benchmarks.scenarios.engine import RATIOS, ratios
from benchmarks.scenarios.order import jobs_of, overtaken
from stages.audio.decode import RATE, decode

pytestmark = pytest.mark.unit

NOWHERE = "unix:///nowhere"
HERE = Path(__file__).parent
NOTES = HERE.parents[1] / "benchmarks" / "notes"
LOCKS = sorted(environments.HERE.glob("*.txt"))
NODE_LOCKS = sorted(environments.HERE.glob("*/package-lock.json"))


def figures(suffix: str, value: float) -> dict[str, float]:
    return {name + suffix: value for name in RATIOS.values()}


def test_a_ratio_is_ours_divided_by_theirs() -> None:
    found = ratios(figures("", 600) | figures("_bullmq", 200) | figures("_arq", 100) | figures("_taskiq", 150))
    assert found == {
        "bulk_add_vs_bullmq": 3,
        "single_add_vs_bullmq": 3,
        "consume_vs_bullmq": 3,
        "bytes_per_waiting_job_vs_bullmq": 3,
        "consume_vs_best_python_peer": 4,
    }


def test_there_is_no_ratio_to_a_peer_that_was_left_out() -> None:
    assert ratios(figures("", 600)) == {}
    assert list(ratios(figures("", 600) | figures("_streaq", 6))) == ["consume_vs_best_python_peer"]


@pytest.mark.parametrize(("scenario", "name"), [(retry_storm, "retry_storm"), (fanout, "fanout")])
def test_what_two_scenarios_compare_is_a_rate(scenario: Any, name: str) -> None:
    rate = f"{name}_per_second"
    found = scenario.ratios({rate: 600, f"{rate}_bullmq": 200, f"{rate}_arq": 100, f"{rate}_saq": 150})
    assert found == {f"{name}_vs_bullmq": 3, f"{name}_vs_best_python_peer": 4}
    assert scenario.ratios({rate: 600}) == {}


def test_the_table_has_a_row_for_each_contestant_that_was_measured() -> None:
    measured = figures("", 1234.5) | figures("_bullmq", 12.34) | {"consume_per_second_arq": 99.0, "alone": 1.0}
    report = Report("engine", {}, measured, [], {"consume_per_second_arq": (98.0, 101.0)})
    head, _, *lines = contestants(report).splitlines()
    assert "alone" not in head
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    assert [row[0] for row in rows] == ["Riacho", "BullMQ", "arq"]
    assert [row[1] for row in rows] == ["1,234", "12.3", "not measured"]
    assert "99.0 (98.0 to 101)" in rows[2]
    assert {line.count("|") for line in lines} == {len(RATIOS) + 2}


@pytest.mark.parametrize("tool", ["node", "npm"])
def test_a_missing_tool_is_named(tool: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in {"node", "npm"} - {tool}:
        (tmp_path / name).touch(mode=0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(Unavailable, match=f"^{tool} is not installed$"):
        node_peer("bullmq")


def test_a_failed_installation_is_told_and_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(environments, "CACHE", tmp_path)
    monkeypatch.setattr(venv, "create", lambda folder, **_: folder.mkdir(exist_ok=True))

    def fail(command: tuple[str, ...], **_: object) -> None:
        raise subprocess.CalledProcessError(1, command, stderr="trying\nno network\n")

    monkeypatch.setattr(subprocess, "run", fail)
    for _ in range(2):
        with pytest.raises(Unavailable, match=r"^installing it failed: no network$"):
            python_peer("arq")
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: None)
    command = python_peer("arq")
    assert [path.name for path in command.folder.iterdir()] == ["benchmarks"]  # and nothing else of ours


def program(code: str) -> Command:
    prelude = "import json, sys; say = lambda answer: print(json.dumps(answer), flush=True); "
    return Command((sys.executable, "-c", prelude + code), HERE)


def test_a_process_that_ends_leaves_its_last_words() -> None:
    with Process(program("say({}); input(); sys.exit('out of luck')"), NOWHERE) as process:
        with pytest.raises(Unavailable, match="ended: out of luck"):
            process.ask("add", 50, 50)
        with pytest.raises(Unavailable, match="ended: out of luck"):
            process.ask("add", 50, 50)


def test_a_silent_process_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("benchmarks.peers.process.LONGEST_ANSWER", 0.3)
    with pytest.raises(Unavailable, match="killed"), Process(program("input()"), NOWHERE):
        pass


def test_a_process_is_asked_a_line_and_answers_a_line() -> None:
    with Process(program("say({'made': '1'}); say(input())"), NOWHERE) as process:
        assert process.versions == {"made": "1"}
        assert process.ask("add", 100, 50) == "add 100 50"


def test_a_peer_that_cannot_start_is_left_out_and_said_so(capsys: pytest.CaptureFixture[str]) -> None:
    def missing() -> Command:
        raise Unavailable("node is not installed")

    with ExitStack() as stack:
        contest = Contest(Server(NOWHERE), stack)
        contest.enter([Entrant("made_up", "Made-up", 1, 1, missing)])
    assert contest.standings == []
    assert contest.left_out == ["Made-up is left out: node is not installed."]
    assert contest.left_out[0] in capsys.readouterr().err


def test_who_cannot_do_a_scenario_says_so_and_is_out_of_it() -> None:
    with ExitStack() as stack:
        contest = Contest(Server(NOWHERE), stack)
        command = program("say({}); input(); say({'cannot': 'it knows no retries'}); input()")
        contest.enter([Entrant("made_up", "Made-up", 1, 1, lambda: command)])
        contest.each("storm", lambda standing: standing.process.ask("storm", 10))
        assert contest.standings == []
    assert contest.left_out == ["Made-up is left out: it knows no retries."]


def test_who_finds_no_server_that_is_new_enough_says_so_in_place_of_its_versions() -> None:
    with ExitStack() as stack:
        contest = Contest(Server(NOWHERE), stack)
        command = program("say({'cannot': 'it needs XADD with IDMP'})")
        contest.enter([Entrant("made_up", "Made-up", 1, 1, lambda: command)])
        assert contest.standings == []
    assert contest.left_out == ["Made-up is left out: it needs XADD with IDMP."]


def test_riacho_itself_is_never_left_out() -> None:
    with ExitStack() as stack:
        contest = Contest(Server(NOWHERE), stack)
        with pytest.raises(Unavailable), contest._measuring("round", RIACHO):
            raise Unavailable("it ended")


class Queue:
    """A contestant that keeps its jobs in memory."""

    def __init__(self) -> None:
        self.calls: list[list[dict[str, Any]]] = []
        self.tries: Counter[int] = Counter()
        self.contestant = Contestant(("uvloop",), self.producer, self.work, calls=3)

    @asynccontextmanager
    async def producer(self, _: str) -> AsyncIterator[Any]:
        async def add(jobs: list[dict[str, Any]]) -> None:
            await asyncio.sleep(0)
            self.calls.append(jobs)

        yield add

    async def work(self, _: str, jobs: int, handler: Handler) -> float:
        countdown = Countdown(jobs)
        waiting = deque(job for call in self.calls for job in call)
        while waiting:
            job = waiting.popleft()
            self.tries[job["number"]] += 1
            try:
                handler(job["number"], job["due"])
            except Failure:
                waiting.append(job)
            else:
                countdown.one()
        await countdown.wait()
        return 1.5


async def test_jobs_are_added_once_each_and_so_many_a_call() -> None:
    queue = Queue()
    assert await Session(queue.contestant, NOWHERE).add(200, 50) > 0
    assert [len(call) for call in queue.calls] == [50] * 4
    assert sorted(job["number"] for call in queue.calls for job in call) == list(range(200))


async def test_jobs_are_produced_when_they_are_due() -> None:
    queue = Queue()
    session = Session(queue.contestant, NOWHERE)
    assert await session.produce(100, 1000) >= 0.099
    assert sum(map(len, queue.calls)) == 100
    p50, p99 = await session.latency(100)
    assert 0 < p50 < p99
    assert await session.work(100) == 1.5


async def test_in_a_storm_each_job_fails_twice_and_then_comes_through() -> None:
    queue = Queue()
    session = Session(queue.contestant, NOWHERE)
    await session.add(100, 50)
    assert await session.storm(100) == 1.5
    assert queue.tries == Counter(dict.fromkeys(range(100), FAILURES + 1))
    assert await session.storm(100) == 1.5  # each storm counts anew
    assert set(queue.tries.values()) == {2 * (FAILURES + 1)}


async def test_what_a_contestant_cannot_do_it_is_not_asked_for() -> None:
    queue = Queue()
    retries = replace(queue.contestant, retries="it forgets what failed")
    assert await Session(retries, NOWHERE).storm(10) == {"cannot": "it forgets what failed"}
    assert queue.tries == {}
    alone = replace(queue.contestant, fan_out="its jobs add none")
    assert await Session(alone, NOWHERE).fan_out(10, 3) == {"cannot": "its jobs add none"}


async def test_a_contestant_fans_out_itself() -> None:
    async def fan_out(_: str, jobs: int, children: int) -> float:
        return jobs * (1 + children) / 100

    assert await Session(replace(Queue().contestant, fan_out=fan_out), NOWHERE).fan_out(10, 9) == 1.0


async def test_voice_notes_are_heard_by_both_in_every_round() -> None:
    class Hears:
        async def hear_all(self, notes: list[VoiceNote]) -> list[str]:
            return [note.words for note in notes]

    both: Any = Hears()
    found = await transcribe._compare(both, both, voice_notes()[:2], 3)
    assert {len(values) for values in found.values()} == {3}
    assert set(found["single_word_error_rate"] + found["batched_word_error_rate"]) == {0}
    ratios = [one / other for one, other in zip(found["single_seconds"], found["batched_seconds"], strict=True)]
    assert found["batched_vs_single"] == ratios


def test_no_two_parts_have_the_same_number() -> None:
    made = [part for number in range(10) for part in parts(job(number), 7)]
    assert [part["number"] for part in made] == list(range(70))
    assert all(part.keys() == job(0).keys() for part in made)


def test_a_burst_is_of_one_chat_and_each_chat_s_messages_are_in_order() -> None:
    jobs = jobs_of("0", 7, 3)
    assert [job.key for job in jobs] == ["0-0"] * 3 + ["0-1"] * 3 + ["0-2"]
    messages = [job.payload.message for job in jobs]
    assert all(message.chat == job.key for message, job in zip(messages, jobs, strict=True))
    first = messages[:3]
    assert first == sorted(first, key=lambda message: (message.sent_ms, message.id))
    assert len({message.id for message in messages}) == 7
    assert len({job.tenant for job in jobs}) == 3


def test_who_was_asked_after_a_later_one_of_its_chat_was_overtaken() -> None:
    in_order = [("a", "1"), ("b", "1"), ("a", "2"), ("b", "2")]
    assert overtaken(in_order) == 0
    assert overtaken([("a", "3"), ("a", "1"), ("a", "2"), ("b", "1")]) == 0.5


@pytest.mark.parametrize("lock", LOCKS, ids=lambda lock: lock.stem)
def test_what_python_peers_install_is_pinned_by_hash_and_names_no_registry(lock: Path) -> None:
    lines = lock.read_text().splitlines()
    assert all(
        re.match(r"[a-z0-9-]+==[^ ]+ (; .+ )?\\$|    --hash=sha256:[0-9a-f]{64}( \\)?$", line) for line in lines
    )


@pytest.mark.parametrize("lock", NODE_LOCKS, ids=lambda lock: lock.parent.name)
def test_what_node_peers_install_is_pinned_by_hash_and_names_no_registry(lock: Path) -> None:
    packages = json.loads(lock.read_text())["packages"]
    assert all("resolved" not in package for package in packages.values())
    assert all("integrity" in package for path, package in packages.items() if path)


def test_every_python_peer_has_its_lock() -> None:
    assert {peer.name for peer in PEERS if peer.python} == {lock.stem for lock in LOCKS}


def test_every_node_peer_has_its_lock_and_comes_with_the_package() -> None:
    peers = {peer.name for peer in PEERS if not peer.python} | {"fastify"}
    assert peers == {lock.parent.name for lock in NODE_LOCKS}
    data = tomllib.loads((HERE.parents[1] / "pyproject.toml").read_text())["tool"]["setuptools"]["package-data"]
    assert {f"{name}/*" for name in peers} | {"*.txt"} == set(data["benchmarks.peers"])


def test_every_voice_note_is_listed_and_as_long_as_it_says() -> None:
    listed = json.loads((NOTES / "notes.json").read_bytes())
    assert {note["file"] for note in listed} == {path.name for path in NOTES.glob("*.ogg")}
    for note in listed:
        samples = decode((NOTES / note["file"]).read_bytes(), 900)
        assert len(samples) / RATE == pytest.approx(note["seconds"], abs=0.01), note["file"]
