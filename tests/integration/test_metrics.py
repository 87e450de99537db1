"""Every figure of the engine, of the WhatsApp client and of the HTTP service, as a real run leaves it."""

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from opentelemetry.sdk.metrics.export import Metric

from pipeline import Bury, Context, Done, Job, Pipeline, RetryLater
from pipeline import metrics as measured
from pipeline.metrics import OTHER, Few
from pipeline.stage import Batch, RateLimit
from stages.notification.cloud_api import CloudApi, Sender, Text
from stages.notification.errors import NotSent, OutcomeUnknown
from tests.desk import Serve, to_client
from tests.figures import Figures
from tests.support import (
    Connect,
    Noted,
    Number,
    add_all,
    add_one,
    jobs,
    reached,
    stage,
    until,
    working,
)

pytestmark = pytest.mark.integration

PROCESS = "messaging.process.duration"


async def failing(ctx: Context, payload: Number) -> None:
    raise OSError("line is down")


async def test_jobs_that_end_in_different_ways_are_told_apart(
    connector: Callable[..., Connect], figures: Figures
) -> None:
    async def fine(ctx: Context, payload: Number) -> Done:
        return Done(forward=(ctx.forward("next", Number(2)),))

    async def later(ctx: Context, payload: Number) -> None:
        if ctx.enqueued_ms and not noted:
            noted.append(ctx.attempt)
            raise RetryLater(0.01)

    async def hopeless(ctx: Context, payload: Number) -> Bury:
        return Bury("no use")

    noted: list[int] = []
    pipeline = Pipeline(
        [
            stage("fine", fine),
            stage("next", later),
            stage("failing", failing),
            stage("hopeless", hopeless),
        ]
    )
    connect = connector(pipeline)
    async with connect() as broker, working(connect, pipeline):
        added = {
            name: await add_one(broker, Job(stage=name, payload=Number(1), tenant="padaria", key="5511987654321"))
            for name in ("fine", "failing", "hopeless")
        }
        await until(broker, added["fine"], "completed")
        for name in ("failing", "hopeless"):
            await until(broker, added[name], "failed")
        await reached(lambda: figures.total("riacho.jobs.ended", stage="next", outcome="completed"))

        def of(name: str, **more: str) -> list[float]:
            return [figures.total(name, queue="test", stage=one, **more) for one in pipeline._stages]

        assert of("riacho.jobs.started") == [1, 2, 3, 1]
        assert of("riacho.jobs.ended", outcome="completed") == [1, 1, 0, 0]
        assert of("riacho.jobs.ended", outcome="retried") == of("riacho.job.retries") == [0, 1, 2, 0]
        assert of("riacho.jobs.ended", outcome="buried") == of("riacho.job.dead_letters") == [0, 0, 1, 1]
        assert of("riacho.job.waiting") == [1, 2, 3, 1]
        assert of("riacho.worker.slots") == [1, 1, 1, 1]
    assert figures.total("riacho.settle.size") >= 4
    assert figures.sum("riacho.settle.size") == 7
    assert_no_tenant(figures)
    destinations = {"test.fine": 1, "test.next": 1, "test.failing": 1, "test.hopeless": 1}
    for name, count in destinations.items():
        about = {"messaging_system": "redis_streams", "messaging_destination_name": name}
        sent = figures.total("messaging.client.sent.messages", messaging_operation_name="send", **about)
        assert sent == count
        about |= {"messaging_consumer_group_name": "riacho", "messaging_operation_name": "process"}
        assert figures.total("messaging.client.consumed.messages", **about) >= count
        assert figures.total(PROCESS, **about) == figures.total("riacho.jobs.started", stage=name[5:])
    errors = {point.attributes.get("error.type") for point in figures.points(PROCESS)}
    assert errors == {None, "OSError", "RetryLater", "bury"}
    assert figures.total("riacho.script.duration", script="add") >= 1
    assert figures.total("riacho.script.duration", script="settle") >= 1


def assert_no_tenant(figures: Figures) -> None:
    said = repr(figures.metrics())
    assert "padaria" not in said
    assert "5511987654321" not in said


async def test_what_a_job_waited_is_measured_before_its_try(
    connector: Callable[..., Connect], figures: Figures
) -> None:
    handler = Noted()
    pipeline = Pipeline([stage("one", handler)])
    connect = connector(pipeline)
    async with connect() as broker:
        await broker.ensure_groups()
        job = await add_one(broker, jobs("one", 1)[0])
        await asyncio.sleep(0.3)  # which is what is measured
        async with working(connect, pipeline):
            await until(broker, job, "completed")
    assert 0.25 < figures.sum("riacho.job.waiting") < 20
    assert figures.sum(PROCESS) < 0.25


async def test_slots_in_use_are_told_while_they_are(connector: Callable[..., Connect], figures: Figures) -> None:
    handler = Noted(finish=False)
    pipeline = Pipeline([stage("one", handler, concurrency=3)])
    connect = connector(pipeline)
    async with connect() as broker, working(connect, pipeline):
        await add_all(broker, jobs("one", 2))
        await reached(lambda: len(handler.started) == 2)
        assert (figures.total("riacho.worker.slots"), figures.total("riacho.worker.busy")) == (3, 2)
        assert figures.total("riacho.jobs.started") == 2
        assert figures.total("riacho.jobs.ended") == 0
        handler.finish.set()
        await reached(lambda: figures.total("riacho.worker.busy") == 0)
        await reached(lambda: figures.total("riacho.jobs.ended", outcome="completed") == 2)


async def test_a_batch_is_told_by_its_size_and_by_job(connector: Callable[..., Connect], figures: Figures) -> None:
    async def together(contexts: Sequence[Context], payloads: Sequence[Number]) -> list[Any]:
        return [Bury("odd") if payload.n % 2 else None for payload in payloads]

    pipeline = Pipeline([stage("one", together, batch=Batch(size=4, wait=0.5))])
    connect = connector(pipeline)
    async with connect() as broker, working(connect, pipeline):
        added = await add_all(broker, jobs("one", 4))
        for job, state in zip(added, ["completed", "failed"] * 2, strict=True):
            await until(broker, job, state)
    assert figures.sum("riacho.batch.size", stage="one") == 4
    assert figures.total("riacho.jobs.started") == 4
    assert figures.total(PROCESS, error_type="bury") == 2
    assert figures.total(PROCESS) == 4


async def test_cancelled_and_throttled_jobs_are_no_failures(
    connector: Callable[..., Connect], figures: Figures
) -> None:
    handler = Noted(finish=False)

    def rates(tenant: str, payload: Number) -> list[RateLimit]:
        return [RateLimit(f"test-{id(handler)}", 5.0)]

    pipeline = Pipeline([stage("held", handler), stage("slow", Noted(), rates=rates)])
    connect = connector(pipeline)
    async with connect() as broker, working(connect, pipeline):
        (held,) = await add_all(broker, jobs("held", 1))
        await reached(lambda: handler.started)
        await broker.cancel(held)
        for job in await add_all(broker, jobs("slow", 2)):
            await until(broker, job, "completed")
        await until(broker, held, "cancelled")
    assert figures.total("riacho.jobs.ended", stage="held", outcome="cancelled") == 1
    assert figures.total("riacho.jobs.ended", stage="held") == 1
    assert figures.total("riacho.jobs.ended", stage="slow", outcome="completed") == 2
    assert figures.total("riacho.jobs.ended", stage="slow", outcome="throttled") >= 1
    assert figures.total("riacho.jobs.started", stage="slow") == 2


async def test_without_an_sdk_nothing_is_made_to_measure_with(connector: Callable[..., Connect]) -> None:
    pipeline = Pipeline([stage("one", Noted())])
    connect = connector(pipeline)
    assert measured.provider() is None
    async with connect() as broker, working(connect, pipeline) as worker:
        assert (broker._figures, broker._wire.figures, worker.settler._figures) == (None, None, None)
        assert worker.lanes[0]._figures is None
        await until(broker, await add_one(broker, jobs("one", 1)[0]), "completed")


async def test_an_attribute_that_is_not_allowed_goes_no_further(figures: Figures) -> None:
    counter = measured.meter().create_counter("riacho.jobs.ended")
    counter.add(1, {"queue": "test", "tenant": "padaria"})
    (point,) = figures.points("riacho.jobs.ended")
    assert point.attributes == {"queue": "test"}


def test_of_values_from_outside_there_are_only_so_many() -> None:
    few = Few(2)
    assert [few(value) for value in ("a", "b", "c", "a")] == ["a", "b", OTHER, "a"]


async def test_instruments_have_units_and_say_what_they_are(
    connector: Callable[..., Connect], figures: Figures
) -> None:
    pipeline = Pipeline([stage("one", Noted())])
    connect = connector(pipeline)
    async with connect() as broker, working(connect, pipeline):
        await until(broker, await add_one(broker, jobs("one", 1)[0]), "completed")
        found: list[Metric] = list(figures.metrics().values())
    assert len(found) >= 9
    assert [metric.name for metric in found if not (metric.unit and metric.description)] == []


async def test_calls_of_whatsapp_are_counted_by_what_became_of_them(
    figures: Figures, unused_tcp_port: int
) -> None:
    answers = [
        web.json_response({"messages": [{"id": "wamid.1"}]}),
        web.json_response({"error": {"code": 131047, "message": "Re-engagement message"}}, status=400),
        web.Response(status=502),
    ]

    async def answer(request: web.Request) -> web.Response:
        if not answers:
            await asyncio.Event().wait()
        return answers.pop(0)

    app = web.Application()
    app.router.add_post("/{path:.*}", answer)
    async with TestServer(app, shutdown_timeout=0.01) as server, CloudApi(timeout=0.5) as api:
        for url in (*[str(server.make_url(""))] * 4, f"http://127.0.0.1:{unused_tcp_port}"):
            sender = Sender("106540352242922", "EAAGtoken", url, "v26.0")
            try:
                await api.send(sender, "5511987654321", Text("Olá"), job_id="a.0.1-0")
            except (NotSent, OutcomeUnknown):
                continue
    found = {point.attributes["outcome"]: point.value for point in figures.points("riacho.whatsapp.requests")}
    assert found == dict.fromkeys(["accepted", "131047", "http_502", "timeout", "unreachable"], 1)


@pytest.mark.on_uvloop
async def test_requests_are_measured_by_route_whichever_way_they_take(serve: Serve, figures: Figures) -> None:
    async with serve() as client:
        await client.post("/queue/notification/jobs", json=to_client("5511987650000"))  # alone: the short way
        await client.post("/queue/notification/jobs", json=[to_client("5511987650000")])
        await client.get("/queue/job/notification/send-client.0.1-1")
        await client.get("/made/up/5511987650000")
    points = figures.points("http.server.request.duration")
    found = {tuple(sorted((point.attributes or {}).items())): point.count for point in points}

    def about(method: str, status: int, **route: str) -> tuple[tuple[str, Any], ...]:
        named = {f"http.{name}": value for name, value in route.items()}
        said = {"http.request.method": method, "http.response.status_code": status, **named}
        return tuple(sorted(said.items()))

    assert found == {
        about("POST", 202, route="/queue/{queue}/jobs"): 2,
        about("GET", 404, route="/queue/job/{queue}/{jobId}"): 1,
        about("GET", 404): 1,
    }
