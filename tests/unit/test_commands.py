"""What the commands make of names and of what they show."""

import msgspec
import pytest

from api import steer
from api.jobs import _shown
from api.operating import named
from pipeline import Broker, Pipeline
from pipeline.errors import UnknownStage
from pipeline.views import StageStatus
from tests.support import stage, unused

pytestmark = pytest.mark.unit

one, two, other = stage("one", unused), stage("two", unused), stage("three", unused, queue="other")
pipeline = Pipeline([one, two, other])


def test_a_queue_stands_for_its_stages_and_each_stage_comes_once() -> None:
    assert named(pipeline, ["two", "test", "other"]) == [two, one, other]


def test_an_unknown_name_is_compared_with_queues_and_stages() -> None:
    for name, hint in (("tree", "did you mean 'three'?"), ("xyz", "known: one, other, test, three, two")):
        with pytest.raises(UnknownStage) as raised:
            named(pipeline, ["test", name])
        assert str(raised.value) == f"no queue or stage '{name}'; {hint}"


@pytest.mark.parametrize(
    ("name", "value", "shown"),
    [
        ("state", "waiting", "waiting"),
        ("endedAt", 1_700_000_000_123, "2023-11-14 22:13:20 UTC"),
        ("error", "\x1b[2J\n", r'"\u001b[2J\n"'),
        ("result", {"text": "Olá\x1b"}, r'{"text":"Olá\u001b"}'),
        ("attempt", 2, "2"),
    ],
)
def test_what_is_shown_is_one_line_that_a_terminal_can_take(name: str, value: object, shown: str) -> None:
    assert _shown(name, value) == shown


async def test_waiting_for_a_drained_stage_ends_when_only_others_have_jobs_left(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    busy = StageStatus("test", "two", waiting=1)
    found = [
        msgspec.convert({"queue": "test", "stage": "one", depth: 1}, StageStatus)
        for depth in ("waiting", "delayed", "active", "retrying")
    ]
    answers = iter([*([status, busy] for status in found), [StageStatus("test", "one", dead=1), busy]])

    async def status() -> list[StageStatus]:
        return next(answers)

    monkeypatch.setattr(steer, "LOOK_EVERY", 0.0)
    async with Broker("redis://nowhere", pipeline) as broker:
        monkeypatch.setattr(broker, "status", status)
        assert await steer._left_after(broker, ["one"], 60) == []
    assert next(answers, None) is None, "looked until the stage was empty"
