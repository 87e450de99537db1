"""Envelopes and job ids."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline import Job, JobId
from pipeline.errors import BadJobId
from pipeline.message import IsProbe, opener, seal, seal_probe, trace_id_of, unseal

pytestmark = pytest.mark.unit

names = st.from_regex(r"[a-z][a-z-]{0,20}", fullmatch=True)
numbers = st.integers(0, 2**64 - 1)


@given(names, st.integers(0, 10_000), numbers, numbers)
def test_a_job_id_reads_back_as_it_was_written(stage: str, partition: int, ms: int, sequence: int) -> None:
    job = JobId(stage, partition, f"{ms}-{sequence}")
    assert JobId.parse(str(job)) == job


NO_JOB_IDS = ["", "transcribe", "a.b.1-0", "a.0.1", "a.0.1-", "a.0.-1-0", f"a.0.{2**64}-0", "a.0.٣-0"]
ENDLESS = [f"a.{'9' * 5000}.1-0", f"a.0.{'0' * 4000}1-0"]


@pytest.mark.parametrize("text", NO_JOB_IDS + ENDLESS)
def test_what_is_no_job_id_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(BadJobId, match="one looks like"):
        JobId.parse(text)


@given(st.dictionaries(st.text(), st.integers(-(2**63), 2**63) | st.text() | st.none()), st.text(), st.text())
def test_an_envelope_brings_back_what_was_put_in(payload: dict[str, object], tenant: str, key: str) -> None:
    envelope = unseal(seal(Job(stage="any", payload=payload, tenant=tenant, key=key), trace="00-aa-bb-01"))
    assert msgspec.msgpack.decode(envelope.payload) == payload
    assert (envelope.tenant, envelope.key, envelope.trace) == (tenant, key, "00-aa-bb-01")


def test_an_envelope_may_grow_new_fields_at_its_end() -> None:
    fields = msgspec.msgpack.decode(seal(Job(stage="any", payload=1, tenant="shop")))
    assert unseal(msgspec.msgpack.encode([*fields, "from the future"])).tenant == "shop"


@given(st.binary())
def test_any_other_bytes_are_refused_with_a_reason(body: bytes) -> None:
    with pytest.raises(ValueError, match=r"envelope"):
        unseal(body)


def test_another_wire_version_is_refused() -> None:
    fields = msgspec.msgpack.decode(seal(Job(stage="any", payload=1)))
    with pytest.raises(ValueError, match="version 2"):
        unseal(msgspec.msgpack.encode([2, *fields[1:]]))


@pytest.mark.parametrize("payload", [dict, object, type(None)])
def test_a_probe_is_no_job_whatever_its_stage_takes(payload: type) -> None:
    with pytest.raises(IsProbe):
        opener(payload)(seal_probe())


def test_a_probe_is_of_a_version_that_workers_without_probes_have_never_read() -> None:
    version, payload, *_ = msgspec.msgpack.decode(seal_probe())
    assert (version, payload) == (0, None), "not 1, the one that they ran handlers for"


TRACE = "0af7651916cd43dd8448eb211c80319c"


@pytest.mark.parametrize(
    ("traceparent", "expected"),
    [(f"00-{TRACE}-b7ad6b7169203331-01", TRACE), ("", ""), ("00-aa-bb-01", ""), (f"00-{TRACE}", "")],
)
def test_a_trace_id_is_that_of_a_traceparent(traceparent: str, expected: str) -> None:
    assert trace_id_of(traceparent) == expected
