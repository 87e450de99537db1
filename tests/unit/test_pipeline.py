"""Finding stages, and errors that say what was meant."""

import msgspec
import pytest

from pipeline import Job, Pipeline
from pipeline.errors import BadInput, BadPayload, UnknownStage
from pipeline.keys import Keys
from pipeline.message import JobId
from tests.support import Number, stage, unused

pytestmark = pytest.mark.unit

one, two = stage("transcribe", unused), stage("send", unused)
pipeline = Pipeline([one, two])


def test_stages_are_found_by_name_and_queue() -> None:
    assert pipeline.stage("send") is two
    assert pipeline.find("test", "transcribe") is one
    assert pipeline.queues == ["test"]


@pytest.mark.parametrize(
    ("queue", "kind", "message"),
    [
        ("tset", "send", "no queue 'tset'; did you mean 'test'?"),
        ("test", "transcribed", "queue 'test' has no kind 'transcribed'; did you mean 'transcribe'?"),
        ("test", "xyz", "queue 'test' has no kind 'xyz'; known: send, transcribe"),
    ],
)
def test_an_unknown_name_is_answered_with_the_one_that_was_meant(queue: str, kind: str, message: str) -> None:
    with pytest.raises(UnknownStage) as raised:
        pipeline.find(queue, kind)
    assert str(raised.value) == message


def test_a_payload_of_another_shape_is_refused_naming_the_field() -> None:
    assert pipeline.payload(one, {"n": 3}) == Number(3)
    with pytest.raises(BadPayload, match=r"payload of test.transcribe: .*\$.n"):
        pipeline.payload(one, {"n": "three"})


def test_what_comes_from_outside_is_kept_as_its_check_returns_it() -> None:
    def doubled(tenant: str, payload: Number) -> Number:
        if payload.n > 10:
            raise ValueError(f"{payload.n} is too much for {tenant}; 10 is the most")
        return Number(payload.n * 2)

    checked = stage("checked", unused, check=doubled)
    assert pipeline.payload(checked, {"n": 3}, "shop") == Number(6)
    with pytest.raises(BadPayload, match=r"payload of test.checked: 11 is too much for shop; 10 is the most"):
        pipeline.payload(checked, {"n": 11}, "shop")


def test_two_stages_cannot_share_a_name() -> None:
    with pytest.raises(ValueError, match="taken"):
        Pipeline([one, one])


def test_all_keys_of_a_partition_share_its_hash_tag() -> None:
    keys, job = Keys("ns"), JobId("a", 3, "1-0")
    names = [*keys.place("a", 3), keys.dead("a", 3), keys.letters("a", 3), keys.job(job), keys.dedup("a", 3, "x")]
    assert all(name.startswith("{ns:3}:") for name in names)
    assert len(set(names)) == len(names)


@pytest.mark.parametrize("name", ["tenant", "key", "dedup"])
def test_a_name_that_cannot_be_written_is_refused_before_it_goes_out_with_others_jobs(name: str) -> None:
    job = Job(stage="send", payload=Number(1))
    assert pipeline.check(msgspec.structs.replace(job, **{name: "zé 🙂"})) is two
    with pytest.raises(BadInput, match=r"(tenant|key|id) '\\udcff' is no text"):
        pipeline.check(msgspec.structs.replace(job, **{name: "\udcff"}))
