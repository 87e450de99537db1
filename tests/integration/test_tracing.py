"""One job through several stages and tries is one trace."""

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

import msgspec
import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ParentBased, Sampler, TraceIdRatioBased
from opentelemetry.trace import SpanKind

from config.telemetry import Keeping
from pipeline import Context, Done, Job, JobId, Pipeline, Retry, RetryPolicy, telemetry
from pipeline.keys import Keys
from pipeline.message import retraced, seal
from pipeline.stage import Batch
from tests.desk import Client, Serve
from tests.otlp import Seen, seen, tree
from tests.support import Connector, Number, add_all, add_one, jobs, reached, stage, until, working

pytestmark = pytest.mark.integration

NOTHING = Keeping(ParentBased(TraceIdRatioBased(0.0)))
SENT, PROCESSED = "PRODUCER send test", "CONSUMER process test"


def of(spans: InMemorySpanExporter, name: str = "") -> list[Seen]:
    return [span for span in seen(spans.get_finished_spans()) if span.name.endswith(name)]


async def ok(ctx: Context, payload: Number) -> None:
    pass


async def test_a_job_is_one_trace_through_its_stages_and_tries(
    connector: Connector, spans: InMemorySpanExporter
) -> None:
    async def first(ctx: Context, payload: Number) -> Done:
        if ctx.attempt == 1:
            raise OSError("line is down")
        return Done(forward=(ctx.forward("second", Number(2)),))

    pipeline = Pipeline([stage("first", first), stage("second", ok)])
    connect = connector(pipeline)
    async with connect() as broker, working(connect, pipeline):
        job = await add_one(broker, Job(stage="first", payload=Number(1), key="chat"))
        (following,) = (await until(broker, job, "completed")).next
        await until(broker, JobId.parse(following), "completed")

    sent, failed, worked, handed_on = of(spans)
    assert tree([sent, failed, worked, handed_on]) == {
        f"{SENT}.first": {f"{PROCESSED}.first": {}, f"{PROCESSED}.first #2": {f"{PROCESSED}.second": {}}}
    }
    assert len({span.trace for span in of(spans)}) == 1
    assert [span.links for span in (failed, worked, handed_on)] == [(sent.id,), (sent.id,), (worked.id,)]
    assert (failed.error, failed.attributes["error.type"]) == ("OSError: line is down", "OSError")
    assert [span.attributes["riacho.outcome"] for span in (failed, worked)] == ["retrying", "completed"]
    assert [span.attributes["riacho.attempt"] for span in (failed, worked, handed_on)] == [1, 2, 1]
    between = (worked.start - failed.end) / 1e9
    assert worked.attributes["riacho.waited"] < between, "since it was due again, not since it came"
    assert worked.error is None
    assert worked.attributes["messaging.message.id"] == sent.attributes["messaging.message.id"] == job.entry


async def test_a_try_says_how_long_its_job_waited_in_the_stream(
    connector: Connector, spans: InMemorySpanExporter
) -> None:
    pipeline = Pipeline([stage("one", ok)])
    connect = connector(pipeline)
    async with connect() as broker:
        job = await add_one(broker, Job(stage="one", payload=Number(1)))
        await asyncio.sleep(0.3)  # which is what is measured
        async with working(connect, pipeline):
            await until(broker, job, "completed")
    (tried,) = of(spans, "process test.one")
    waited = tried.attributes["riacho.waited"]
    assert 0.3 <= waited < 20
    assert tried.events == {"riacho.waited": {"riacho.waited": waited}}


async def test_one_that_asks_for_another_time_has_not_failed(
    connector: Connector, spans: InMemorySpanExporter
) -> None:
    async def patient(ctx: Context, payload: Number) -> Any:
        return Retry(0.01, "not its turn", counts=False) if not of(spans, "process test.one") else None

    pipeline = Pipeline([stage("one", patient)])
    connect = connector(pipeline)
    async with connect() as broker, working(connect, pipeline):
        await until(broker, await add_one(broker, Job(stage="one", payload=Number(1))), "completed")
    deferred, done = of(spans, "process test.one")
    assert (deferred.error, deferred.attributes["riacho.outcome"]) == (None, "deferred")
    assert deferred.attributes["riacho.reason"] == "not its turn"
    assert deferred.attributes["riacho.attempt"] == done.attributes["riacho.attempt"] == 1


async def test_each_job_of_a_batch_stays_in_its_own_trace_and_both_are_linked(
    connector: Connector, spans: InMemorySpanExporter
) -> None:
    async def many(contexts: Sequence[Context], payloads: Sequence[Number]) -> list[Any]:
        telemetry.start("inside", SpanKind.INTERNAL, {}).end()
        return [Done(forward=(ctx.forward("after", Number(1)),)) for ctx in contexts]

    pipeline = Pipeline([stage("many", many, batch=Batch(3, 5.0)), stage("after", ok)])
    connect = connector(pipeline)
    async with connect() as broker, working(connect, pipeline):
        for job in await add_all(broker, jobs("many", 3)):
            (following,) = (await until(broker, job, "completed")).next
            await until(broker, JobId.parse(following), "completed")

    (batch,) = of(spans, "(batch)")
    tries, sent = of(spans, "process test.many"), of(spans, "send test.many")
    assert batch.attributes["messaging.batch.message_count"] == 3
    assert set(batch.links) == {span.id for span in sent}
    assert [span.links for span in tries] == [(span.parent, batch.id) for span in tries]
    assert {span.parent for span in tries} == {span.id for span in sent}
    assert {span.parent for span in of(spans, "process test.after")} == {span.id for span in tries}
    assert [span.parent for span in of(spans, "inside")] == [batch.id]
    assert len({span.trace for span in of(spans)}) == 4


async def fail(ctx: Context, payload: Number) -> None:
    raise OSError("line is down")


async def test_what_a_job_of_a_batch_adds_is_of_its_own_trace(
    connector: Connector, spans: InMemorySpanExporter
) -> None:
    async def together(contexts: Sequence[Context], payloads: Sequence[Number]) -> list[str]:
        return [str(await ctx.add(Job(stage="second", payload=Number(1)))) for ctx in contexts]

    pipeline = Pipeline([stage("first", together, batch=Batch(2, 5.0)), stage("second", ok)])
    connect = connector(pipeline)
    async with connect() as broker, working(connect, pipeline):
        for job in await add_all(broker, jobs("first", 2)):
            added = (await until(broker, job, "completed")).result
            await until(broker, JobId.parse(added), "completed")
    way: dict[str, Any] = {
        f"{SENT}.first": {f"{PROCESSED}.first": {f"{SENT}.second": {f"{PROCESSED}.second": {}}}}
    }
    for sent in of(spans, "send test.first"):
        assert tree([span for span in of(spans) if span.trace == sent.trace]) == way


async def test_a_replay_is_a_new_trace_linked_to_the_one_it_was_buried_in(
    connector: Connector, spans: InMemorySpanExporter
) -> None:
    pipeline = Pipeline([stage("one", fail)])
    connect = connector(pipeline)
    async with connect() as broker, working(connect, pipeline):
        job = await add_one(broker, Job(stage="one", payload=Number(7), key="chat"))
        await until(broker, job, "failed")
        letter = await broker.dead_letter(job)
        assert letter
        again = await broker.replay(letter)
        assert again
        replayed = await until(broker, again, "failed")
        found = await broker.dead_letter(again)
        assert found
        assert (found.payload, found.key) == ({"n": 7}, "chat"), "but for its trace it is as it was"
    old, new = of(spans, "send test.one")
    assert new.trace != old.trace
    assert new.links == (old.id,)
    assert replayed.trace_id == new.trace
    *_, buried, first, _, last = of(spans, "process test.one")
    assert [span.trace for span in (buried, first, last)] == [old.trace, new.trace, new.trace]
    assert first.parent == last.parent == new.id
    assert last.attributes["riacho.outcome"] == "dead"
    assert last.error == "gave up after 3 tries: OSError: line is down"


async def test_an_unreadable_letter_is_replayed_all_the_same(
    connector: Connector, spans: InMemorySpanExporter, redis: Any, namespace: str
) -> None:
    pipeline = Pipeline([stage("one", ok)])
    connect = connector(pipeline)
    async with connect() as broker, working(connect, pipeline):
        entry = (await redis.xadd(broker._keys.stream("one", 0), {"e": "?"})).decode()
        await until(broker, JobId("one", 0, entry), "failed")
        letter = await broker.dead_letter(JobId("one", 0, entry))
        assert letter
        assert await broker.replay(letter)
        assert await broker.replay(letter) is None


async def test_what_is_not_sampled_has_no_spans_and_says_so_to_the_next(
    connector: Connector, trace_by: Callable[[Sampler], InMemorySpanExporter]
) -> None:
    spans = trace_by(NOTHING)
    told: list[str] = []

    async def first(ctx: Context, payload: Number) -> Done:
        told.append(ctx._envelope.trace)
        return Done(forward=(ctx.forward("second", Number(2)),))

    async def second(contexts: Sequence[Context], payloads: Sequence[Number]) -> list[None]:
        told.extend(ctx._envelope.trace for ctx in contexts)
        return [None]

    pipeline = Pipeline([stage("first", first), stage("second", second, batch=Batch(2))])
    connect = connector(pipeline)
    async with connect() as broker, working(connect, pipeline):
        job = await add_one(broker, Job(stage="first", payload=Number(1)))
        (following,) = (await until(broker, job, "completed")).next
        await until(broker, JobId.parse(following), "completed")
    assert of(spans) == []
    assert [trace[-3:] for trace in told] == ["-00", "-00"]
    assert told[0][:36] == told[1][:36], "one trace, had it been sampled"


@pytest.mark.parametrize("batch", [False, True])
async def test_tries_that_fail_are_kept_though_their_trace_is_not_sampled(
    connector: Connector, trace_by: Callable[[Sampler], InMemorySpanExporter], batch: bool
) -> None:
    spans = trace_by(NOTHING)
    pipeline = Pipeline([stage("one", fail, **({"batch": Batch(2)} if batch else {}))])
    connect = connector(pipeline)
    async with connect() as broker, working(connect, pipeline):
        job = await add_one(broker, Job(stage="one", payload=Number(1)))
        view = await until(broker, job, "failed")
    tries = of(spans)
    assert [span.attributes["riacho.attempt"] for span in tries] == [1, 2, 3]
    assert [span.attributes["riacho.kept"] for span in tries] == ["failed"] * 3
    assert [span.trace for span in tries] == [view.trace_id] * 3
    assert all(span.start < span.end for span in tries), "it began when the try did"
    assert [span.error for span in tries][-1] == "gave up after 3 tries: OSError: line is down"


async def test_slow_tries_are_kept_too(
    connector: Connector,
    trace_by: Callable[[Sampler], InMemorySpanExporter],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(telemetry, "SLOW", 0.05)
    spans = trace_by(NOTHING)

    async def slow(ctx: Context, payload: Number) -> None:
        await asyncio.sleep(0.06 if payload.n else 0)

    pipeline = Pipeline([stage("one", slow)])
    connect = connector(pipeline)
    async with connect() as broker, working(connect, pipeline):
        for job in await add_all(broker, jobs("one", 2)):
            await until(broker, job, "completed")
    assert [span.attributes["riacho.kept"] for span in of(spans)] == ["slow"]


async def test_without_an_sdk_envelopes_carry_no_trace_and_jobs_go_through(connector: Connector) -> None:
    pipeline = Pipeline([stage("one", ok)])
    connect = connector(pipeline)
    async with connect() as broker, working(connect, pipeline):
        await until(broker, await add_one(broker, Job(stage="one", payload=Number(1))), "completed")


# ── HTTP ─────────────────────────────────────────────────────────────────────────────────────────

JOB = {"kind": "send-client", "payload": {"to": "+5511987654321", "text": "Olá!"}, "tenant": "padaria"}
CLIENT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
POSTED: dict[str, Any] = {"SERVER POST /queue/{queue}/jobs": {"PRODUCER send notification.send-client": {}}}


async def post(client: Client, body: object, status: int = 202, **headers: str) -> None:
    async with client.post("/queue/notification/jobs", data=msgspec.json.encode(body), headers=headers) as answer:
        assert answer.status == status


@pytest.mark.on_uvloop
@pytest.mark.parametrize("body", [JOB, [JOB]], ids=["the short way", "the ordinary way"])
async def test_a_request_that_adds_a_job_begins_its_trace(
    serve: Serve, spans: InMemorySpanExporter, body: object
) -> None:
    async with serve() as client:
        await post(client, JOB)  # looks at the server's memory, for a second
        spans.clear()
        await post(client, body)
        await reached(lambda: len(of(spans)) == 2, what="two spans")
    assert tree(of(spans)) == POSTED
    assert [span.attributes.get("http.response.status_code") for span in of(spans)] == [202, None]


@pytest.mark.on_uvloop
async def test_a_client_s_trace_goes_on_here(serve: Serve, spans: InMemorySpanExporter) -> None:
    async with serve() as client:
        await post(client, JOB, traceparent=CLIENT)
        await reached(lambda: len(of(spans)) == 2, what="two spans")
    trace, span = CLIENT.split("-")[1:3]
    assert {found.trace for found in of(spans)} == {trace}
    assert tree(of(spans), span) == POSTED


@pytest.mark.on_uvloop
async def test_who_is_not_let_in_leaves_no_span_and_who_only_looks_neither(
    serve: Serve, spans: InMemorySpanExporter
) -> None:
    keys = {"shop": {"hash": "0" * 64, "scopes": ["enqueue"]}}
    async with serve(keys=keys) as client:
        await post(client, JOB, 401, traceparent=CLIENT)
        async with client.post("/nowhere") as answer:
            assert answer.status == 404
    async with serve() as client, client.get("/queue/status") as answer:
        assert answer.status == 200
    assert of(spans) == []


@pytest.mark.on_uvloop
async def test_a_webhook_s_sender_cannot_say_what_is_traced(serve: Serve, spans: InMemorySpanExporter) -> None:
    async with serve() as client, client.post("/webhooks/whatsapp", headers={"traceparent": CLIENT}) as answer:
        assert answer.status == 401
    (span,) = of(spans)
    assert span.trace != CLIENT.split("-")[1]
    assert (span.attributes["http.response.status_code"], span.error) == (401, None)


@pytest.mark.parametrize(
    "said",
    [
        *("", "00", "no trace", "00-1-2-01", f"00-{'0' * 32}-{'1' * 16}-01", f"00-{'1' * 32}-{'0' * 16}-01"),
        *(CLIENT.upper(), CLIENT.replace("4", "\u0664"), f"{CLIENT[:3]}{'f' * 5000}-{'1' * 16}-01", CLIENT[:-1]),
    ],
)
async def test_a_trace_that_is_none_begins_a_new_one(
    connector: Connector, spans: InMemorySpanExporter, redis: Any, namespace: str, said: str
) -> None:
    pipeline = Pipeline([stage("one", ok)])
    connect = connector(pipeline)
    async with connect() as broker, working(connect, pipeline):
        body = seal(Job(stage="one", payload=Number(1)), said)
        entry = await redis.xadd(Keys(namespace).stream("one", 0), {"e": body})
        await until(broker, JobId("one", 0, entry.decode()), "completed")
    (tried,) = of(spans)
    assert (tried.parent, tried.links) == ("", ())


async def test_what_is_added_together_is_not_traced_together(
    connector: Connector, spans: InMemorySpanExporter
) -> None:
    """The intake works for everybody: in nobody's context."""
    seen: list[str] = []
    pipeline = Pipeline([stage("one", ok)])
    async with connector(pipeline)() as broker:
        send = broker._intakes[0]._send

        def noting(offers: Any) -> Any:
            seen.append(telemetry.traceparent(trace.get_current_span()))
            return send(offers)

        broker._intakes[0]._send = noting
        with trace.use_span(telemetry.start("a request", SpanKind.SERVER, {}), end_on_exit=True):
            await asyncio.gather(*(add_one(broker, job) for job in jobs("one", 30)))
    assert set(seen) == {""}


async def test_one_that_lost_its_workers_too_often_has_a_span_for_its_end(
    connector: Connector, spans: InMemorySpanExporter, redis: Any, namespace: str
) -> None:
    pipeline = Pipeline([stage("one", ok, retry=RetryPolicy(attempts=1))])
    connect, keys = connector(pipeline), Keys(namespace)
    async with connect() as broker:
        job = await add_one(broker, Job(stage="one", payload=Number(1)))
        async with working(connect, pipeline):
            await until(broker, job, "completed")
        lost = await add_one(broker, Job(stage="one", payload=Number(1)))
        await redis.xreadgroup("riacho", "gone", {keys.stream("one", 0): ">"})
        async with working(connect, pipeline, lease=0.3):
            view = await until(broker, lost, "failed")
    *_, poison = of(spans, "process test.one")
    assert poison.error == "poison: its worker was lost 1 times"
    assert (poison.trace, poison.attributes["riacho.outcome"]) == (view.trace_id, "dead")


def test_a_replay_keeps_what_a_later_version_wrote() -> None:
    body = msgspec.msgpack.encode(
        [*msgspec.msgpack.decode(seal(Job(stage="one", payload=Number(1)), CLIENT)), "new"]
    )
    again = msgspec.msgpack.decode(retraced(body, "another"))
    assert (again[5], again[-1], len(again)) == ("another", "new", 9)
    assert msgspec.msgpack.decode(retraced(msgspec.msgpack.encode([1, None, "", "", 0]), "first"))[5] == "first"


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        ("OSError: no", "OSError"),
        ("EAAGm0PX4ZCpsBO1: no", "failed"),
        ("what happened", "failed"),
        (f"{'a' * 99}: no", "failed"),
    ],
)
def test_a_kind_of_error_is_an_exception_s_name_alone(error: str, kind: str) -> None:
    assert telemetry._kind_of(error) == kind
