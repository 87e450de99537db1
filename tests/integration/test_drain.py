"""A draining stage takes nothing new in, and finishes what it has."""

import asyncio

import pytest

from pipeline import Context, Done, Job, JobId, Pipeline
from pipeline.errors import StageDraining
from tests.support import Connector, Noted, Number, add_all, add_one, jobs, stage, status, until, unused, working

pytestmark = pytest.mark.integration

ONE = Job(stage="one", payload=Number(1))


async def test_a_draining_stage_refuses_new_jobs_and_says_so(connector: Connector) -> None:
    async with connector(Pipeline([stage("one", unused), stage("other", unused)]))() as broker:
        await add_all(broker, jobs("one", 3))
        await broker.drain([broker.pipeline.stage("one")])
        with pytest.raises(StageDraining, match=r"test\.one is being drained and takes no new jobs") as raised:
            await broker.enqueue(ONE)
        assert (raised.value.refusal.reason, raised.value.refusal.depth) == ("draining", 3)
        refused, taken = await broker.add([ONE, Job(stage="other", payload=Number(1))])
        assert refused.refusal
        assert taken.id
        found = await status(broker, "one")
        assert (found.waiting, found.draining, found.paused) == (3, True, False)


async def test_a_draining_stage_finishes_what_it_has_and_what_others_hand_on_to_it(connector: Connector) -> None:
    async def first(ctx: Context, payload: Number) -> Done:
        return Done(forward=(ctx.forward("one", payload),))

    noted = Noted()
    pipeline = Pipeline([stage("first", first), stage("one", noted)])
    connect = connector(pipeline)
    async with connect() as broker:
        await add_all(broker, jobs("one", 3))
        delayed = await add_one(broker, Job(stage="one", payload=Number(3), delay=0.05))
        await broker.drain([pipeline.stage("one")])
        async with working(connect, pipeline):
            job = await add_one(broker, Job(stage="first", payload=Number(4)))
            (following,) = (await until(broker, job, "completed")).next
            await until(broker, JobId.parse(following), "completed")
            await until(broker, delayed, "completed")
    assert sorted(noted.started) == [0, 1, 2, 3, 4]


async def test_a_draining_stage_still_knows_what_it_took_in_before(connector: Connector) -> None:
    async with connector(Pipeline([stage("one", unused)]))() as broker:
        once = Job(stage="one", payload=Number(1), dedup="x")
        job = await add_one(broker, once)
        await broker.drain(broker.pipeline)
        (again,) = await broker.add([once])
        assert (again.id, again.duplicate, again.refusal) == (job, True, None)


async def test_who_has_patience_gets_in_when_the_stage_is_resumed(connector: Connector) -> None:
    async with connector(Pipeline([stage("one", unused)]))() as broker:
        await broker.drain(broker.pipeline)
        adding = asyncio.create_task(broker.enqueue(ONE, patience=20))
        with pytest.raises(StageDraining):
            await broker.enqueue(ONE)
        assert not adding.done()
        await broker.resume(broker.pipeline)
        assert await adding
        found = await status(broker, "one")
        assert (found.waiting, found.draining) == (1, False)
