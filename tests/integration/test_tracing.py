"""One job through several stages and tries is one trace."""

from collections.abc import Callable

import pytest
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from pipeline import Context, Done, Job, JobId, Pipeline
from tests.support import Connect, Number, add_one, stage, until, working

pytestmark = pytest.mark.integration


async def test_a_job_is_one_trace_through_its_stages_and_tries(
    connector: Callable[..., Connect], spans: InMemorySpanExporter
) -> None:
    async def first(ctx: Context, payload: Number) -> Done:
        if ctx.attempt == 1:
            raise OSError("line is down")
        return Done(forward=(ctx.forward("second", Number(2)),))

    async def second(ctx: Context, payload: Number) -> None:
        pass

    pipeline = Pipeline([stage("first", first), stage("second", second)])
    connect = connector(pipeline)
    async with connect() as broker, working(connect, pipeline):
        job = await add_one(broker, Job(stage="first", payload=Number(1), key="chat"))
        (following,) = (await until(broker, job, "completed")).next
        await until(broker, JobId.parse(following), "completed")

    sent, failed, worked, handed_on = sorted(spans.get_finished_spans(), key=lambda span: span.start_time or 0)
    assert [span.name for span in (sent, failed, worked, handed_on)] == [
        "send test.first",
        "process test.first",
        "process test.first",
        "process test.second",
    ]
    assert _parents(sent, failed, worked, handed_on) == [None, sent, sent, worked]
    assert [link.context.span_id for link in failed.links] == [_id(sent)]
    assert failed.status.description == "OSError: line is down"
    assert worked.status.is_ok or worked.status.is_unset
    attributes = worked.attributes or {}
    assert (attributes["riacho.attempt"], attributes["messaging.message.id"]) == (2, job.entry)
    assert attributes["messaging.message.conversation_id"] == "chat"


def _id(span: ReadableSpan) -> int:
    assert span.context
    number: int = span.context.span_id
    return number


def _parents(*spans: ReadableSpan) -> list[ReadableSpan | None]:
    assert len({span.context.trace_id for span in spans if span.context}) == 1
    by_id = {_id(span): span for span in spans}
    return [by_id[span.parent.span_id] if span.parent else None for span in spans]


async def test_without_an_sdk_envelopes_carry_no_trace_and_jobs_go_through(
    connector: Callable[..., Connect],
) -> None:
    async def one(ctx: Context, payload: Number) -> None:
        pass

    pipeline = Pipeline([stage("one", one)])
    connect = connector(pipeline)
    async with connect() as broker, working(connect, pipeline):
        await until(broker, await add_one(broker, Job(stage="one", payload=Number(1))), "completed")
