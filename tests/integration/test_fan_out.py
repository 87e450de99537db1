"""One event for several stages: added in one step, and handed on in one step."""

from typing import Any

import msgspec
import pytest
from redis.asyncio import Redis

from pipeline import Broker, Context, Done, Job, JobId, Pipeline, Stage
from pipeline.message import seal
from pipeline.outcome import Settled
from tests.support import Connector, Number, add_one, look, stage, state, status, until, unused, working

pytestmark = pytest.mark.integration

NAMES = ["archive", "index", "notify"]


def targets(**options: Any) -> list[Stage]:
    return [stage(name, unused, **options) for name in NAMES]


def event(n: int) -> list[Job]:
    return [Job(stage=name, payload=Number(n), key=f"chat-{n}") for name in NAMES]


async def script_calls(redis: "Redis") -> int:
    stats = await redis.info("commandstats")
    return sum(stats.get(f"cmdstat_{name}", {"calls": 0})["calls"] for name in ("eval", "evalsha"))


async def test_an_event_for_several_stages_is_added_in_one_step(connector: Connector, redis: "Redis") -> None:
    async with connector(Pipeline(targets()), partitions=8)() as broker:
        await broker.add(event(0))  # the server knows the script from here on
        before = await script_calls(redis)
        added = await broker.add(event(1))
        assert await script_calls(redis) == before + 1
        ids = [one.id for one in added if one.id]
        assert [job.stage for job in ids] == NAMES
        assert len({job.partition for job in ids}) == 1


async def test_events_of_several_keys_come_back_in_their_order(connector: Connector) -> None:
    async with connector(Pipeline(targets()), partitions=8)() as broker:
        asked = [job for n in range(20) for job in event(n)]
        added = await broker.add(asked)
        for job, one in zip(asked, added, strict=True):
            assert one.id
            assert one.id.stage == job.stage
        partitions = [{one.id.partition for one in added[n : n + 3] if one.id} for n in range(0, 60, 3)]
        assert all(len(together) == 1 for together in partitions)
        assert len(set.union(*partitions)) > 1


async def test_a_stage_that_is_full_does_not_keep_an_event_from_the_others(connector: Connector) -> None:
    first, *rest = targets()
    async with connector(Pipeline([stage(first.name, unused, high_water=1), *rest]))() as broker:
        await broker.add(event(0))
        full, *others = await broker.add(event(1))
        assert full.refusal
        assert full.refusal.reason == "full"
        assert all(other.id and not other.refusal for other in others)


async def test_what_is_handed_on_to_several_stages_is_added_in_the_step_that_settles(
    connector: Connector,
) -> None:
    async def first(ctx: Context, payload: Number) -> Done:
        return Done("sent on", forward=tuple(ctx.forward(name, payload) for name in (*NAMES, "archive")))

    pipeline = Pipeline([stage("first", first, tenant_limit=2), *targets(tenant_limit=1)])
    connect = connector(pipeline)
    async with connect() as broker, working(connect, Pipeline([pipeline.stage("first")])):
        job = await add_one(broker, Job(stage="first", payload=Number(1), tenant="shop", key="k"))
        view = await until(broker, job, "completed")
        following = [JobId.parse(text) for text in view.next]
        assert [one.stage for one in following] == [*NAMES, "archive"]
        assert [await state(broker, one) for one in following] == ["waiting"] * 4
        assert {(await look(broker, one)).tenant for one in following} == {"shop"}
        assert await waiting(broker) == [2, 1, 1]


async def test_several_outcomes_with_forwards_to_several_stages_are_one_call(
    connector: Connector, redis: "Redis"
) -> None:
    first = stage("first", unused)
    async with connector(Pipeline([first, *targets()]))() as broker:
        await broker.ensure_groups()
        await broker.add([Job(stage="first", payload=Number(n)) for n in range(6)])
        found = await broker.fetch("first", 0, "a", 10, 10)
        forwards = tuple((name, seal(Job(stage=name, payload=Number(1))), "", 0) for name in NAMES)
        handing_on = Settled(msgspec.Raw(b"\xc0"), forwards)
        await broker.settle(first, 0, [(found[0], handing_on)])  # the server knows the script from here on
        before = await script_calls(redis)
        assert await broker.settle(first, 0, [(delivery, handing_on) for delivery in found[1:]]) == 5
        assert await script_calls(redis) == before + 1
        assert await waiting(broker) == [6, 6, 6]


async def waiting(broker: Broker) -> list[int]:
    return [(await status(broker, name)).waiting for name in NAMES]


async def test_what_a_handler_adds_is_there_whatever_it_ends_in_and_once(connector: Connector) -> None:
    async def failing(ctx: Context, payload: Number) -> None:
        await ctx.add(Job(stage="notify", payload=payload, dedup="told"))
        raise OSError("not today")

    first = stage("first", failing)
    pipeline = Pipeline([first, *targets()])
    connect = connector(pipeline)
    async with connect() as broker, working(connect, Pipeline([first])):
        await until(broker, await add_one(broker, Job(stage="first", payload=Number(1))), "failed")
        assert (await status(broker, "notify")).waiting == 1
