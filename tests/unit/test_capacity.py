"""The capacity model: what so many messages a second take, where a machine is full, and the page that says it."""

import itertools
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from benchmarks.__main__ import app
from benchmarks.capacity import FULL, HIGH_WATER, KNOWN, MEMORY_SHARE, Costs, Wanted, limits, needs, sustainable
from benchmarks.parts.chat import Asked, Kind, Reply, is_audio, kept_up, waiting
from benchmarks.reports.report import Report
from benchmarks.scenarios.capacity_check import highest
from config import load

pytestmark = pytest.mark.unit

COSTS = Costs(
    api_cpu_ms=0.5,
    worker_cpu_ms=5,
    server_cpu_ms=0.5,
    audio_server_cpu_ms=1.5,
    transcriber_cpu_ms=60,
    generator_cpu_ms=0.5,
    transcribed_audio_seconds_per_second=24,
    cores=2,
    note_seconds=8,
    waiting_bytes=300,
    known_bytes=100,
    text_bytes=900,
    audio_bytes=1700,
    empty_bytes=2_000_000,
)
WANTED = Wanted(rate=500, audio=0.2, outage=600, daily=100, busy=0.7, cores=2)


def want(**other: float) -> Wanted:
    return msgspec.structs.replace(WANTED, **other)


def test_processes_are_as_many_as_what_they_take_at_so_much_of_a_core() -> None:
    found = needs(COSTS, want(busy=1.0))
    assert found.apis == 1  # 0.25 cores
    assert found.workers == 3  # 2.5 cores at 0.95 each
    assert needs(COSTS, want(busy=0.5)).workers == 6
    assert needs(COSTS, want(rate=1)).workers == needs(COSTS, want(rate=1)).apis == 1


def test_transcribers_are_machines_that_hear_so_much_at_a_time() -> None:
    assert needs(COSTS, want(busy=1.0)).transcribers == 34  # 800 seconds a second, 24 each
    assert needs(COSTS, want(busy=1.0, cores=8)).transcribers == 9  # of 96
    assert needs(COSTS, want(audio=0)).transcribers == 0


def test_redis_is_to_have_memory_for_what_waits_and_what_is_remembered() -> None:
    found = needs(COSTS, want(daily=100))
    assert found.waiting_bytes == 500 * 600 * 300
    a_day, a_week = 86_400, 7 * 86_400
    assert a_week == KNOWN
    each = 0.8 * 900 + 0.2 * 1700 - 100
    assert found.remembered_bytes == pytest.approx(100 * (a_day * each + a_week * 100))
    assert found.redis_bytes * MEMORY_SHARE == pytest.approx(2e6 + found.waiting_bytes + found.remembered_bytes)
    assert load(environ={}).redis.memory_share == MEMORY_SHARE


def test_no_partition_refuses_messages_in_an_outage() -> None:
    found = needs(COSTS, want(audio=0.2, outage=600))
    assert found.partitions == 3  # 240,000 texts, up to 90,000 in each
    assert 500 * 600 * 0.8 / found.partitions < HIGH_WATER
    assert needs(COSTS, want(outage=0)).partitions == 1
    assert needs(COSTS, want(audio=1, outage=600)).partitions == 4


def test_redis_runs_commands_on_one_core() -> None:
    assert needs(COSTS, want()).redis_cores == pytest.approx(500 * (0.8 * 0.5 + 0.2 * 1.5) / 1000)


def test_what_is_full_first_is_where_a_machine_falls_behind() -> None:
    texts = limits(COSTS, 0)
    assert texts["worker"] == FULL * 200
    assert texts["cores"] == pytest.approx(2000 / 6.5)
    assert "transcriber" not in texts
    assert sustainable(COSTS, 0) == texts["worker"]
    mix = limits(COSTS, 0.1)
    assert mix["transcriber"] == 30
    assert mix["cores"] == pytest.approx(2000 / (6.6 + 48))
    assert sustainable(COSTS, 0.1) == 30


@given(st.floats(1, 5000), st.floats(0, 1), st.floats(0.1, 1.0), st.floats(1.01, 4))
def test_more_messages_never_take_less(rate: float, audio: float, busy: float, more: float) -> None:
    less = needs(COSTS, want(rate=rate, audio=audio, busy=busy))
    greater = needs(COSTS, want(rate=rate * more, audio=audio, busy=busy))
    for name in less.__struct_fields__:
        assert getattr(greater, name) >= getattr(less, name), name


@given(st.floats(0, 1))
def test_what_a_machine_sustains_needs_no_second_process(audio: float) -> None:
    found = needs(COSTS, want(rate=sustainable(COSTS, audio) * 0.999, audio=audio, busy=1.0))
    assert found.apis == found.workers == 1
    assert found.transcribers <= 1


def test_costs_are_found_in_a_report_and_what_is_missing_is_named() -> None:
    figures = COSTS.figures() | {"text_p50_ms": 7.0}
    assert Costs.of(figures) == COSTS
    del figures["cost_api_cpu_ms"]
    with pytest.raises(msgspec.ValidationError, match="api_cpu_ms"):
        Costs.of(figures)


def test_the_page_says_how_many_of_what(tmp_path: Path) -> None:
    (tmp_path / "chat.json").write_bytes(Report("chat", {}, COSTS.figures(), []).as_json())
    command = ["capacity", "--rate", "500", "--audio", "20", "--cores", "2", "--folder", str(tmp_path)]
    said = CliRunner().invoke(app, command)
    assert said.exit_code == 0, said.output
    lines = [line.split("|") for line in said.output.splitlines() if line.startswith("|")]
    table = {cells[1].strip(): cells[2].strip() for cells in lines}
    assert table["workers"] == "4"
    assert table["transcribers on 2 cores"] == "48"
    assert table["partitions"] == "3"
    assert "capacity-check does" in said.output
    checked = Report("capacity-check", {}, {"capacity_error_fraction": 0.12}, [])
    (tmp_path / "capacity-check.json").write_bytes(checked.as_json())
    assert "12% apart" in CliRunner().invoke(app, command).output
    assert "Split the shops over 4" in CliRunner().invoke(app, [*command, "--rate", "3000"]).output


def test_costs_that_are_not_there_are_asked_for(tmp_path: Path) -> None:
    command = ["capacity", "--rate", "500", "--folder", str(tmp_path)]
    assert "run chat" in CliRunner().invoke(app, command).output
    (tmp_path / "chat.json").write_bytes(Report("chat", {}, {}, []).as_json())
    assert "--notes" in CliRunner().invoke(app, command).output
    (tmp_path / "chat.json").write_text("[]")
    assert "no report that" in CliRunner().invoke(app, command, env={"COLUMNS": "500"}).output


# ── the measured side ────────────────────────────────────────────────────────────────────────────


def replies(rate: float, seconds: float, capacity: float, kind: Kind = "text") -> list[Reply]:
    """Of a chat that answers so many a second, one after the other."""
    found, free = [], 0.0
    for number in range(int(rate * seconds)):
        free = max(free, number / rate) + 1 / capacity
        found.append(Reply(Asked(kind, number / rate), free))
    return found


@pytest.mark.parametrize(("rate", "kept"), [(50, True), (95, True), (115, False), (200, False)])
def test_a_rate_is_kept_up_with_where_the_backlog_does_not_grow(rate: float, *, kept: bool) -> None:
    assert kept_up(replies(rate, 10, capacity=100)) is kept


def test_long_answers_are_no_backlog() -> None:
    assert kept_up([Reply(Asked("audio", number / 10), number / 10 + 3) for number in range(100)])
    assert kept_up([])


def test_what_waits_was_due_and_has_no_reply() -> None:
    sent = [Reply(Asked("text", 1.0), 2.0), Reply(Asked("text", 1.5), 3.0)]
    assert [waiting(sent, at) for at in (0.5, 1.0, 1.7, 2.0, 3.0)] == [0, 1, 2, 1, 0]


@pytest.mark.parametrize("guess", [20, 80, 100, 130, 900])
async def test_the_limit_is_found_from_any_guess(guess: float) -> None:
    tried: list[float] = []

    async def keeps_up(rate: float) -> bool:
        tried.append(rate)
        return rate < 100

    assert await highest(keeps_up, guess, 0.06) == pytest.approx(100, rel=0.06)
    assert len(tried) <= 12


@pytest.mark.parametrize("share", [0.0, 0.02, 0.2, 1 / 3, 1.0])
def test_voice_notes_come_evenly_among_texts(share: float) -> None:
    notes = [number for number in range(600) if is_audio(number, share)]
    assert len(notes) == pytest.approx(600 * share, abs=1)
    gaps = {after - before for before, after in itertools.pairwise(notes)}
    assert max(gaps, default=0) - min(gaps, default=0) <= 1


async def test_a_search_ends_where_there_is_no_limit() -> None:
    async def always(_: float) -> bool:
        return True

    async def never(_: float) -> bool:
        return False

    assert await highest(always, 10, 0.06) > 100
    assert await highest(never, 10, 0.06) < 1
