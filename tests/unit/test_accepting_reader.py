"""The short way takes no job that the ordinary way would refuse, and reads each as that does."""

import json
from typing import Any

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from api.accepting import reader
from api.adapters import Adapters
from api.queues import JobRequest, job_of
from config import load
from pipeline import Job, Pipeline, RiachoError, Stage

pytestmark = pytest.mark.unit

PIPELINE = Adapters(load(environ={})).pipeline()
MESSAGE = {"chat": "5511900000007", "id": "wamid.7", "sent_ms": 1_795_363_715_263}
PAYLOAD = {"message": MESSAGE, "text": "Olá"}

texts = st.one_of(st.text(max_size=3), st.sampled_from(["shop", "x" * 200, "x" * 201, "\0", "\\u0000"]))
odd = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False, allow_infinity=False), texts)
kinds = st.one_of(odd, st.sampled_from(["process-conversation", "transcribe", "send-client", ".", ""]))
payloads = st.one_of(
    odd,
    st.just(PAYLOAD),
    st.just({**PAYLOAD, "text": "\0"}),
    st.just({"source": "https://media.example/1"}),
    st.just({"message": MESSAGE}),
)
members = st.fixed_dictionaries(
    {},
    optional={
        "kind": kinds,
        "payload": payloads,
        "tenant": st.one_of(texts, odd),
        "key": texts,
        "id": texts,
        "delay": st.one_of(odd, st.sampled_from([-1, 0.5, 1e12])),
        "other": odd,
    },
)


def written(members: list[tuple[str, Any]]) -> bytes:
    return ("{" + ", ".join(f"{json.dumps(name)}: {json.dumps(value)}" for name, value in members) + "}").encode()


def found(pipeline: Pipeline, queue: str, body: bytes) -> Job | None:
    try:
        return job_of(pipeline, queue, msgspec.json.decode(body, type=JobRequest))
    except (RiachoError, ValueError):
        return None


def read(pipeline: Pipeline, queue: str, body: bytes) -> Job | None:
    try:
        return reader(pipeline, queue)(body)
    except (RiachoError, ValueError):
        return None


@given(members.flatmap(lambda some: st.permutations(list(some.items()))), st.lists(kinds, max_size=1))
@example([("kind", "process-conversation"), ("payload", PAYLOAD)], [])
@example([("kind", "process-conversation"), ("payload", PAYLOAD)], ["transcribe"])
@example([("payload", PAYLOAD), ("tenant", "x" * 201), ("kind", "process-conversation")], [])
@example([("payload", PAYLOAD), ("key", "a\0"), ("kind", "process-conversation")], [])
@example([("payload", PAYLOAD), ("kind", ".")], [])
@example([("payload", PAYLOAD)], [])
@example([("kind", "process-conversation"), ("payload", PAYLOAD), ("delay", 1e12)], [])
@example([("kind", "process-conversation"), ("payload", PAYLOAD), ("delay", -1)], [])
def test_what_is_read_is_what_the_ordinary_way_reads(some: list[tuple[str, Any]], again: list[Any]) -> None:
    body = written([*some, *(("kind", kind) for kind in again)])
    job = read(PIPELINE, "audio", body)
    assert job is None or job == found(PIPELINE, "audio", body)


def test_a_plain_job_is_read() -> None:
    body = written([("kind", "process-conversation"), ("payload", PAYLOAD), ("tenant", "shop"), ("id", "7")])
    job = read(PIPELINE, "audio", body)
    assert job
    assert job == found(PIPELINE, "audio", body)


class Count(msgspec.Struct):
    n: int


async def ignore(context: object, count: Count) -> None: ...


def test_a_queues_only_stage_is_asked_for_by_its_kind() -> None:
    alone = Pipeline([Stage(name="only", queue="one", payload=Count, handler=ignore)])
    assert read(alone, "one", b'{"kind": "only", "payload": {"n": 1}}') == Job(stage="only", payload=Count(1))
    for kind in (b"", b'"kind": ".", ', b'"kind": "other", '):
        assert read(alone, "one", b"{" + kind + b'"payload": {"n": 1}}') is None
