"""What a job's burial is handed on to: whatever it was buried for, once, and in the same step."""

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest

from pipeline import Broker, Context, Job, Permanent, Pipeline, RetryPolicy
from pipeline.message import Delivery
from pipeline.outcome import Bury
from pipeline.stage import Batch
from tests.support import Connector, Noted, Number, add_all, add_one, depths, jobs, stage, until, unused, working

pytestmark = pytest.mark.integration

TWICE = RetryPolicy(attempts=2, base=0.01)


class Rescue:
    """Hands a buried job on to the stage `rescue`; notes what it was told."""

    def __init__(self) -> None:
        self.told: list[tuple[int, int, str, str]] = []

    def __call__(self, ctx: Context, payload: Number, why: Bury) -> Sequence[Job]:
        self.told.append((payload.n, ctx.attempt, why.reason, why.error))
        return [ctx.forward("rescue", Number(payload.n + 100))]


async def permanent(ctx: Context, payload: Number) -> None:
    raise Permanent("never")


async def failing(ctx: Context, payload: Number) -> None:
    raise OSError("not today")


async def endless(ctx: Context, payload: Number) -> None:
    await asyncio.Event().wait()


async def unwritable(ctx: Context, payload: Number) -> object:
    return object()


@pytest.mark.parametrize(
    ("handler", "told"),
    [
        (permanent, (1, 1, "never", "")),
        (failing, (1, 2, "gave up after 2 tries", "OSError: not today")),
        (endless, (1, 2, "gave up after 2 tries", "took longer than 0.1 s")),
    ],
)
async def test_whatever_a_job_is_buried_for_it_is_handed_on(
    connector: Connector, handler: Any, told: tuple[Any, ...]
) -> None:
    rescue, noted = Rescue(), Noted()
    failing_stage = stage("one", handler, retry=TWICE, timeout=0.1, buried=rescue)
    pipeline = Pipeline([failing_stage, stage("rescue", noted)])
    connect = connector(pipeline)
    async with connect() as broker, working(connect, pipeline):
        (job,) = await add_all(broker, [Job(stage="one", payload=Number(1), tenant="shop", key="chat")])
        view = await until(broker, job, "failed")
        (following,) = view.next
        assert following.startswith("rescue.0.")
        assert (await until(broker, type(job).parse(following), "completed")).result == 101
        assert await depths(broker, "one") == (0, 0, 0, 1)
    assert rescue.told == [told]


async def test_poison_is_handed_on_though_no_handler_ran(connector: Connector) -> None:
    rescue, noted = Rescue(), Noted()
    pipeline = Pipeline([stage("one", unused, retry=TWICE, buried=rescue), stage("rescue", noted)])
    connect = connector(pipeline)
    async with connect() as broker:
        await broker.ensure_groups()
        job = await add_one(broker, Job(stage="one", payload=Number(1)))
        await broker.fetch("one", 0, "lost", 1, 10)
        for _ in range(2):  # two workers that took it over were lost, too
            ((delivery,), _) = await broker.reclaim("one", 0, "lost", 0.0, 1)
        assert delivery.attempt == 3
        async with working(connect, pipeline, lease=0.2):
            await until(broker, job, "failed")
            await until(broker, type(job).parse((await until(broker, job, "failed")).next[0]), "completed")
    assert rescue.told == [(1, 4, "poison: its worker was lost 3 times", "")]


async def test_each_of_a_batch_is_handed_on(connector: Connector) -> None:
    async def batches(contexts: Sequence[Context], payloads: Sequence[Number]) -> list[Any]:
        return [Bury("odd") if payload.n % 2 else payload.n for payload in payloads]

    rescue, noted = Rescue(), Noted()
    one = stage("one", batches, batch=Batch(4, 0.2), buried=rescue)
    pipeline = Pipeline([one, stage("rescue", noted)])
    connect = connector(pipeline)
    async with connect() as broker, working(connect, pipeline):
        ids = await add_all(broker, jobs("one", 4))
        for job, wanted in zip(ids, ("completed", "failed") * 2, strict=True):
            await until(broker, job, wanted)
    assert sorted(noted.started) == [101, 103]


async def test_a_stage_that_cannot_say_what_follows_still_buries(
    connector: Connector, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(ctx: Context, payload: Number, why: Bury) -> list[Job]:
        raise LookupError("no such shop")

    pipeline = Pipeline([stage("one", permanent, buried=broken)])
    connect = connector(pipeline)
    async with connect() as broker, working(connect, pipeline):
        job = await add_one(broker, Job(stage="one", payload=Number(1)))
        view = await until(broker, job, "failed")
        assert (view.reason, view.next) == ("never", [])
        assert await depths(broker, "one") == (0, 0, 0, 1)
    assert "no such shop" in caplog.text


async def test_who_lost_a_job_hands_nothing_on_for_it(connector: Connector) -> None:
    pipeline = Pipeline([stage("one", unused), stage("rescue", unused)])
    async with connector(pipeline)() as broker:
        await broker.ensure_groups()
        await add_one(broker, Job(stage="one", payload=Number(1)))
        (mine,) = await broker.fetch("one", 0, "first", 1, 10)
        ((theirs,), _) = await broker.reclaim("one", 0, "second", 0.0, 1)
        assert await buried_by(broker, "first", mine) == [False]
        assert await buried_by(broker, "second", theirs) == [True]
        assert await buried_by(broker, "second", theirs) == [False]
        assert await depths(broker, "rescue") == (1, 0, 0, 0)


async def buried_by(broker: Broker, consumer: str, delivery: Delivery) -> list[bool]:
    forward = ("rescue", delivery.body, "", 0)
    return await broker.bury(
        broker.pipeline.stage("one"), 0, consumer, [(delivery, Bury("over", forwards=(forward,)))]
    )
