"""The keys and the screen of `riacho top`."""

import io
import random
from collections import deque

import pytest
from rich.console import Console

from api.keyboard import Keys
from api.load import QueueLoad, StageLoad
from api.schedules import Moment, ScheduleView
from api.screen import BARS, View, page, screen, shown, spark
from api.sight import Sight, Trend
from pipeline.views import DeadLetter, WorkerView

pytestmark = pytest.mark.unit

EVIL = "\x1b]0;owned\x07\x1b[2J[bold]\r\n\x9b31m\u202e"


def stage(name: str, **other: object) -> StageLoad:
    given: dict[str, object] = dict.fromkeys(("waiting", "delayed", "active", "retrying", "dead"), 0)
    given |= {"state": "ok", "paused": False, "draining": False, "oldest_waiting": None, "workers": 1, "slots": 2}
    given |= {"utilisation": 0.5, "high_water": 100, "low_water": 90, "demand": 0} | other
    return StageLoad(queue="audio", stage=name, **given)  # type: ignore[arg-type]


def sight(count: int = 3, **other: object) -> Sight:
    stages = [stage(f"stage-{n}") for n in range(count)]
    queue = QueueLoad(
        queue="audio", state="ok", waiting=1, delayed=0, active=0, retrying=0, dead=1, oldest_waiting=5.0,
        demand=1, stages=stages, in1m=1.25, out1m=2.5, drain_seconds=None,
    )  # fmt: skip
    given: dict[str, object] = {"workers": [], "letters": [], "schedules": []} | other
    return Sight(state="ok", memory=0.42, at=1_700_000_000_000, queues=[queue], **given)  # type: ignore[arg-type]


def view(found: Sight | None, **other: object) -> View:
    stages = [stage.stage for queue in (found.queues if found else []) for stage in queue.stages]
    trends = {name: Trend(deque([1.0, 2.0]), deque([0.0, 4.0])) for name in stages}
    return View(found, trends, **other)  # type: ignore[arg-type]


def drawn(what: View, width: int = 160, height: int = 40) -> list[str]:
    """The lines of a screen of that size."""
    console = Console(file=io.StringIO(), width=width, height=height, force_terminal=False)
    lines = console.render_lines(screen(what, width, height), console.options.update(width=width, height=height))
    return ["".join(segment.text for segment in line) for line in lines]


@pytest.mark.parametrize(
    ("sent", "keys"),
    [
        (b"q", ["q"]),
        (b"\x1b[A\x1b[Bp", ["up", "down", "p"]),
        (b"\x1bOA", ["up"]),
        (b"\x1b[5~y", ["y"]),
        (b"\x1b[1;5Cy", ["y"]),
        (b"\x1bq", ["q"]),
        (b"\xc3\xa9q", ["q"]),
        (b"\x1b[" + b"1" * 100 + b"q", ["1"] * 86 + ["q"]),
    ],
)
def test_keys_are_read_however_they_come(sent: bytes, keys: list[str]) -> None:
    wanted = [key for key in keys if key != "\x1b"]
    assert [key for key in Keys().read(sent) if key != "\x1b"] == wanted
    piecewise = Keys()
    assert [key for n in range(len(sent)) for key in piecewise.read(sent[n : n + 1]) if key != "\x1b"] == wanted


def test_any_bytes_are_some_keys_or_none_and_are_not_kept() -> None:
    chance, keys = random.Random(7), Keys()
    for _ in range(200):
        keys.read(chance.randbytes(50) + b"\x1b[" * chance.randint(0, 3))
        assert len(keys._left) < 20


def test_what_came_from_elsewhere_is_no_order_to_the_terminal() -> None:
    letter = DeadLetter(job_id="a.0.1-0", letter="1-0", reason=EVIL, error=EVIL * 100, attempt=1, buried_at=1)
    worker = WorkerView(EVIL, [EVIL], 1, 2.0)
    lines = drawn(view(sight(letters=[letter], workers=[worker]), away=EVIL, note=EVIL))
    assert "[bold]" in "".join(lines)
    assert all(char.isprintable() for line in lines for char in line)
    assert len(shown(EVIL * 1_000)) == 200


@pytest.mark.parametrize("height", [1, 2, 3, 5, 9, 24, 50])
@pytest.mark.parametrize("width", [1, 10, 40, 80, 100, 200])
def test_any_size_is_filled_and_not_gone_over(width: int, height: int) -> None:
    letter = DeadLetter(job_id="a.0.1-0", letter="1-0", reason="no", error="", attempt=1, buried_at=1)
    schedule = ScheduleView(
        "nightly", "0 2 * * *", "UTC", "a", "audio", "", "once", 1.0, paused=False, source="config",
        next=Moment("2026-01-01T02:00:00+00:00", 1_700_000_100_000), last=None, missed=0,
    )  # fmt: skip
    found = sight(
        20, letters=[letter] * 20, schedules=[schedule] * 20, workers=[WorkerView("w", ["a"], 1, 2.0)] * 20
    )
    asking = view(found, question="pause audio.stage-1?")
    for what in (view(found, selected="stage-19"), view(found, help=True), view(None), asking):
        lines = drawn(what, width, height)
        assert [len(line) for line in lines] == [width] * height


def test_the_selected_stage_is_on_a_screen_however_low() -> None:
    for n in range(20):
        assert f"stage-{n} " in "".join(drawn(view(sight(20), selected=f"stage-{n}"), 100, 6))


def test_figures_are_shown_as_they_are() -> None:
    lines = drawn(view(sight()))
    assert "ok  memory 42%  in 1.2/s  out 2.5/s" in lines[0]
    assert lines[2].split() == ["audio", "ok", "1", "0", "0", "0", "1", "5", "s", "1.2", "2.5", "not", "yet"]
    assert lines[3].split()[:9] == ["stage-0", "ok", "0", "0", "0", "0", "0", "-", "-"]
    assert lines[3].rstrip().endswith("▁█") or "▅█" in lines[3]


def test_while_the_server_is_away_the_last_figures_stay() -> None:
    lines = drawn(view(sight(), away="no answer", ago=12.0))
    assert "Redis is away, figures are 12 s old: no answer" in lines[0]
    assert "stage-0" in "".join(lines)
    assert "Redis is away: no answer" in drawn(view(None, away="no answer"))[0]


def test_printed_once_there_are_no_trends() -> None:
    console = Console(file=io.StringIO(), width=200)
    console.print(page(View(sight(), {}), 200))
    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert "drains in" in text
    assert "depth" not in text
    assert not set(BARS) & set(text)


def test_sparks_go_from_nothing_to_the_most() -> None:
    assert spark([]) == ""
    assert spark([0, 0]) == "▁▁"
    assert spark([0, 1, 2, 4, 8]) == "▁▂▃▅█"
    assert spark([0, 8], plain=True) == "_#"
    assert len(spark([1.0] * 100)) == 16
