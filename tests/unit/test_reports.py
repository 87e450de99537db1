"""Reports of benchmarks: medians with their spread, what changed between two, the page with its plots."""

import inspect
import random
import statistics
from pathlib import Path
from typing import get_args

import pytest
from typer.testing import CliRunner

from benchmarks.__main__ import app
from benchmarks.parts import postgres
from benchmarks.reports import readme
from benchmarks.reports.comparison import Change, compare
from benchmarks.reports.document import document
from benchmarks.reports.figures import is_peers, more_is_better
from benchmarks.reports.report import NoReport, Plot, Report, read, read_all, spread_of
from benchmarks.scenarios import NAMES, module_of

pytestmark = pytest.mark.unit

HERE = Path(__file__).parents[2]


def write(file: Path, **rounds: list[float]) -> Path:
    file.parent.mkdir(exist_ok=True)
    file.write_bytes(Report.of("engine", {"jobs": 1}, rounds, ["by a test"]).as_json())
    return file


def changed(
    tmp_path: Path, before: list[float], after: list[float], figure: str = "bulk_add_per_second"
) -> list[Change]:
    old = write(tmp_path / "a.json", **{figure: before})
    return compare(old, write(tmp_path / "b.json", **{figure: after}), 0.1).changes


def test_a_report_has_medians_and_the_rounds_they_are_of(tmp_path: Path) -> None:
    report = read(write(tmp_path / "a.json", bulk_add_per_second=[3.0, 1.0, 2.0], bytes=[5.0], none=[]))
    assert report.figures == {"bulk_add_per_second": 2.0, "bytes": 5.0}
    assert report.spread == {"bulk_add_per_second": pytest.approx((0.0, 6.4), abs=0.01)}
    assert report.taken
    assert "cores" in report.versions["machine"]


def test_a_file_that_does_not_say_where_and_when_it_was_taken_is_not_of_here_and_now(tmp_path: Path) -> None:
    (tmp_path / "old.json").write_text(
        '{"scenario": "engine", "knobs": {"jobs": 1}, "figures": {"bytes": 1}, "caveats": []}'
    )
    report = read(tmp_path / "old.json")
    assert (report.versions, report.commit, report.taken) == ({}, "", "")
    assert "jobs 1. Taken unknown, commit unknown." in document(tmp_path).read_text()


@pytest.mark.parametrize(
    ("before", "after", "worse"),
    [
        ([100, 110, 90], [50, 55, 45], True),
        ([50, 55, 45], [100, 110, 90], False),
        ([100, 110, 90], [80, 83, 77], None),  # three rounds know no better
        ([100, 110, 90] * 5, [80, 83, 77] * 5, True),
        ([100, 101, 99], [80, 102, 70], None),  # what was before is within the rounds of after
        ([100, 101, 99], [95, 96, 94], None),  # less than a tenth
        ([100], [72], None),  # once
        ([100], [50], True),
        ([0], [5], False),
        ([5], [0], True),
    ],
)
def test_what_is_outside_of_both_their_rounds_is_a_change(
    tmp_path: Path, before: list[float], after: list[float], *, worse: bool | None
) -> None:
    assert [change.worse for change in changed(tmp_path, before, after)] == ([] if worse is None else [worse])


def test_a_spread_has_the_next_median_nineteen_times_of_twenty() -> None:
    dice, missed = random.Random(1), 0
    for _ in range(400):
        one, other = ([dice.gauss(100, 10) for _ in range(5)] for _ in range(2))
        least, most = spread_of(one)
        missed += not least <= statistics.median(other) <= most
    assert missed < 0.07 * 400


def test_more_milliseconds_are_worse_and_peers_are_not_judged(tmp_path: Path) -> None:
    (change,) = changed(tmp_path, [5.0], [9.0], "p99_ms_at_half_load")
    assert change == Change("engine", "p99_ms_at_half_load", 5.0, 9.0, worse=True)
    assert changed(tmp_path, [5.0], [9.0], "p99_ms_at_half_load_bullmq") == []
    assert changed(tmp_path, [5.0], [9.0], "jobs") == [], "nobody knows what is better"


@pytest.mark.parametrize(
    ("before", "after", "worse"),
    [
        ([-0.02, -0.03, -0.01], [0.2, 0.21, 0.19], True),
        ([0.2, 0.21, 0.19], [-0.02, -0.03, -0.01], False),
        ([0.01, 0.01, 0.01], [0.03, 0.03, 0.03], None),  # three times as much is little
        ([0.0, 0.0, 0.0], [0.2, 0.2, 0.2], True),
    ],
)
def test_a_share_around_zero_changes_by_a_difference(
    tmp_path: Path, before: list[float], after: list[float], *, worse: bool | None
) -> None:
    found = changed(tmp_path, before, after, "lost_at_1_percent")
    assert [change.worse for change in found] == ([] if worse is None else [worse])


def test_a_rate_measured_once_can_become_worse_at_any_tolerance(tmp_path: Path) -> None:
    before = write(tmp_path / "a.json", bulk_add_per_second=[100.0])
    after = write(tmp_path / "b.json", bulk_add_per_second=[40.0])
    assert compare(before, after, 0.3).worse


@pytest.mark.parametrize(
    ("figure", "better"),
    [
        ("bulk_add_per_second", True),
        ("consume_vs_bullmq", True),
        ("bytes_per_waiting_job_vs_bullmq", False),
        ("bytes_per_waiting_job", False),
        ("accept_p99_ms_at_half_load", False),
        ("lost_at_1_percent", False),
        ("consume_cpu_seconds_per_million", False),
        ("redis_commands_per_second", False),
        ("batched_audio_seconds_per_second", True),
        ("first_job_seconds", False),
        ("chats", None),
        ("kept_up", True),
        ("kept_up_with_per_second", True),
        ("fresh_lost", False),
        ("old_left", False),
        ("ordered_overtaken", False),
        ("unordered_overtaken", None),
        ("cost_known_bytes", False),
        ("single_add_per_second", True),
        ("single_audio_seconds_per_second", None),
        ("single_word_error_rate", None),
        ("idle_single_ms", None),
        ("idle_p99_ms", False),
        ("arriving_notes_per_second", None),
        ("arriving_p95_ms", False),
        ("busy_cpu_fraction", None),
        ("cost_note_seconds", None),
        ("messages_per_second_off", True),
    ],
)
def test_a_figure_s_name_says_what_is_better(figure: str, *, better: bool | None) -> None:
    assert more_is_better(figure) is better


@pytest.mark.parametrize(
    ("figure", "peers"),
    [
        ("consume_per_second_arq", True),
        ("consume_per_second_bullmq_python", True),
        ("fastify_bullmq_accepted_per_second", True),
        ("consume_per_second", False),
        ("consume_vs_bullmq", False),
    ],
)
def test_a_figure_s_name_says_whose_it_is(figure: str, *, peers: bool) -> None:
    assert is_peers(figure) is peers


def test_compare_ends_with_1_where_something_became_worse(tmp_path: Path) -> None:
    before = write(tmp_path / "before" / "engine.json", bulk_add_per_second=[100.0])
    after = write(tmp_path / "after" / "engine.json", bulk_add_per_second=[50.0])
    found = CliRunner().invoke(app, ["compare", str(before.parent), str(after.parent)])
    assert found.exit_code == 1
    assert "| engine | `bulk_add_per_second` | 100 | 50.0 | -50% | **worse** |" in found.output
    same = CliRunner().invoke(app, ["compare", str(before), str(before)])
    assert (same.exit_code, same.output) == (0, "Nothing changed beyond the noise.\n")


def test_what_has_no_scenario_in_common_is_not_compared(tmp_path: Path) -> None:
    engine = write(tmp_path / "engine.json", bulk_add_per_second=[100.0])
    (tmp_path / "chat.json").write_bytes(Report.of("chat", {}, {}, []).as_json())
    found = CliRunner().invoke(app, ["compare", str(engine), str(tmp_path / "chat.json")], env={"COLUMNS": "500"})
    assert found.exit_code == 2
    assert "no scenario is both in" in found.output


def test_a_figure_that_is_gone_is_said_and_no_success(tmp_path: Path) -> None:
    before = write(tmp_path / "a.json", bulk_add_per_second=[100.0], single_add_per_second=[9.0])
    after = write(tmp_path / "b.json", bulk_add_per_second=[100.0], consume_per_second=[9.0])
    found = CliRunner().invoke(app, ["compare", str(before), str(after)])
    assert found.exit_code == 1
    assert "**missing** engine: `single_add_per_second` was measured, and is not." in found.output
    assert "engine: `consume_per_second` was not measured, and is." in found.output


def test_what_a_missing_peer_was_measured_by_is_not_missed(tmp_path: Path) -> None:
    ratios = {
        name: [9.0] for name in ("consume_vs_bullmq", "consume_vs_best_python_peer", "consume_per_second_arq")
    }
    before = write(tmp_path / "a.json", bulk_add_per_second=[100.0], **ratios)
    assert compare(before, write(tmp_path / "b.json", bulk_add_per_second=[100.0]), 0.1) == ([], [], [])


def test_what_was_measured_otherwise_is_said(tmp_path: Path) -> None:
    before = write(tmp_path / "a" / "engine.json", bulk_add_per_second=[100.0], single_add_per_second=[9.0])
    write(tmp_path / "a" / "idle.json").write_bytes(Report.of("idle", {}, {}, []).as_json())
    report = Report.of("engine", {"jobs": 2}, {"bulk_add_per_second": [100.0]}, [])
    report.versions["machine"] = "a larger one"
    after = write(tmp_path / "b" / "engine.json")
    after.write_bytes(report.as_json())
    found = compare(before.parent, after.parent, 0.1)
    assert not found.worse, "with other knobs another figure may be measured"
    assert found.notes[0] == f"idle is only in {before.parent}."
    assert found.notes[1] == "engine: `single_add_per_second` was measured, and is not."
    assert found.notes[2].startswith("engine was measured otherwise: jobs 1, now 2; machine ")
    assert found.notes[2].endswith(", now a larger one.")


def test_two_reports_of_the_same_are_refused(tmp_path: Path) -> None:
    write(tmp_path / "new" / "one.json", bulk_add_per_second=[100.0])
    write(tmp_path / "new" / "other.json", bulk_add_per_second=[50.0])
    with pytest.raises(NoReport, match=r"one\.json and .*other\.json are both of engine"):
        read_all(tmp_path / "new")


def test_what_is_no_report_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text("[]")
    files = [str(tmp_path / "a.json"), str(tmp_path / "none.json")]
    found = CliRunner().invoke(app, ["compare", *files], env={"COLUMNS": "500"})
    assert found.exit_code == 2
    assert "a.json" in found.output


def test_the_page_has_tables_and_plots(tmp_path: Path) -> None:
    report = Report.of(
        "engine",
        {"jobs": 5},
        {"consume_per_second": [1.0, 2.0, 4.0], "consume_per_second_arq": [1.0]},
        ["so it is"],
    )
    report.figures["bytes"] = 136.0
    report.plots["load"] = Plot("Latency by load", "a second", "ms", {"Riacho": [(1, 2), (2, 3)], "arq": [(1, 4)]})
    (tmp_path / "engine.json").write_bytes(report.as_json())
    page = document(tmp_path).read_text()
    assert "| Riacho | 2 (0 to 8.72) |\n| arq | 1 |" in page
    assert "| `bytes` | 136 |" in page
    assert "![Latency by load](engine-load.png)" in page
    assert "- so it is" in page
    assert (tmp_path / "engine-load.png").read_bytes().startswith(b"\x89PNG")


def test_figures_are_put_between_the_marks_of_a_readme(tmp_path: Path) -> None:
    rounds = {
        "consume_per_second": [99_000.0],
        "consume_per_second_bullmq": [9_000.0],
        "consume_per_second_arq": [900.0],
        "consume_per_second_rq": [700.0],
        "bulk_add_per_second": [99_000.0],
        "bulk_add_per_second_streaq": [800.0],
    }
    (tmp_path / "engine.json").write_bytes(Report.of("engine", {}, rounds, []).as_json())
    page = tmp_path / "README.md"
    page.write_text(f"before\n{readme.BEGIN}\nold\n{readme.END}\nafter\n")
    found = CliRunner().invoke(app, ["report", "--folder", str(tmp_path), "--readme", str(page)])
    assert found.exit_code == 0
    assert "| engine: jobs worked a second, 100 at a time | 99,000 | 9,000 | 900 (arq) |" in page.read_text()
    assert "| 99,000 | not measured | 800 (streaQ, the only one measured) |" in page.read_text()
    assert page.read_text().startswith("before\n<!--")
    assert page.read_text().endswith("-->\nafter\n")
    assert "old" not in page.read_text()


def test_what_the_readme_says_was_measured_and_is_committed() -> None:
    text = (HERE / "README.md").read_text()
    said = text.partition(readme.BEGIN)[2].partition(readme.END)[0].strip()
    assert said == readme.block(HERE / "benchmarks" / "results")


def test_a_page_of_nothing_says_how_to_measure(tmp_path: Path) -> None:
    found = CliRunner().invoke(app, ["report", "--folder", str(tmp_path)], env={"COLUMNS": "500"})
    assert found.exit_code == 2
    assert "python -m benchmarks run" in found.output


def test_an_unknown_scenario_is_refused_before_anything_is_measured(tmp_path: Path) -> None:
    found = CliRunner().invoke(app, ["run", "engine", "engin", "--folder", str(tmp_path / "new")])
    assert found.exit_code == 2
    assert "engin" in found.output
    assert not (tmp_path / "new").exists()


def test_what_can_be_measured_is_listed_with_what_it_is_for() -> None:
    lines = CliRunner().invoke(app, ["list"]).output.splitlines()
    assert all(len(line.split(maxsplit=1)) == 2 for line in lines)
    assert {"engine", "http", "tracing"} <= {line.split()[0] for line in lines}


@pytest.mark.parametrize(
    ("command", "said"),
    [
        ("capacity --rate 500 --busy 0", "--busy"),
        ("capacity --rate 500 --cores 0", "--cores"),
        ("capacity --rate 500 --outage -1", "--outage"),
        ("chat --rate 0", "--rate"),
        ("chat --loads abc", "'abc'"),
        ("chat --loads 20,0", "'20,0'"),
        ("capacity-check --notes 0", "--notes"),
        ("cleanup --database mysql", "'mysql'"),
        ("tracing --messages 3", "--messages"),
        ("order --messages 1 --rounds 1 --json missing/x.json", "no folder missing"),
        ("report --readme missing.md", "missing.md"),
    ],
)
def test_what_is_not_asked_for_rightly_is_named_before_anything_is_measured(command: str, said: str) -> None:
    found = CliRunner().invoke(app, command.split(), env={"COLUMNS": "500"})
    assert found.exit_code == 2
    assert said in found.output


def test_no_scenario_takes_a_number_of_which_none_is_enough() -> None:
    for name in NAMES:
        for knob in inspect.signature(module_of(name).measure, eval_str=True).parameters.values():
            number, option = get_args(knob.annotation)
            assert number not in {int, float} or option.min is not None, f"{name} --{knob.name}"


def test_a_program_that_is_missing_leaves_its_scenario_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(postgres, "programs", lambda: None)
    found = CliRunner().invoke(app, ["cleanup", "--database", "postgresql"], env={"COLUMNS": "500"})
    assert found.exit_code == 2
    assert "PostgreSQL is not installed" in found.output
