"""Every transition of a job, on a real server: what it does, and what it refuses to do."""

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import msgspec
import pytest
from redis.asyncio import Redis

from pipeline import Broker, Bury, Job, JobId, Pipeline, Retry
from pipeline.errors import BadInput, UnknownStage
from pipeline.keys import Keys
from pipeline.message import Delivery, seal
from pipeline.outcome import Settled
from tests.support import Connect, Number, add_one, depths, eventually, jobs, stage, state, unused

pytestmark = pytest.mark.integration

FIRST = stage("first", unused, high_water=5)
SECOND = stage("second", unused)
PIPELINE = Pipeline([FIRST, SECOND])
SHORT = 0.05  # a lease, seconds


@pytest.fixture
async def broker(connector: Callable[..., Connect]) -> AsyncIterator[Broker]:
    async with connector(PIPELINE)() as broker:
        await broker.ensure_groups()
        yield broker


def done(result: object = None, forward: tuple[Job, ...] = ()) -> Settled:
    """What the executor makes of `Done`."""
    return Settled(
        msgspec.Raw(msgspec.msgpack.encode(result)), tuple((job.stage, seal(job), "", 0) for job in forward)
    )


async def fetch(broker: Broker, consumer: str = "a", count: int = 10, name: str = "first") -> list[Delivery]:
    return await broker.fetch(name, 0, consumer, count, 10)


async def reclaim(broker: Broker, consumer: str = "b", lease: float = 60, count: int = 10) -> list[Delivery]:
    return (await broker.reclaim("first", 0, consumer, lease, count)).deliveries


async def reclaimed(broker: Broker, consumer: str = "b", lease: float = 60) -> list[Delivery]:
    """What reclaiming brings, once it brings something."""

    async def once() -> list[Delivery]:
        return await reclaim(broker, consumer, lease)

    found: list[Delivery] = await eventually(once, what="an entry to reclaim")
    return found


async def delayed(broker: Broker, consumer: str = "b") -> list[Delivery]:
    """What a worker gets once a delayed job's time has come."""

    async def once() -> list[Delivery]:
        return await reclaim(broker, consumer) or await fetch(broker, consumer)

    found: list[Delivery] = await eventually(once, what="a delayed job")
    return found


# ── add ──────────────────────────────────────────────────────────────────────────────────────────


async def test_a_job_is_waiting_once_it_is_added(broker: Broker) -> None:
    job = await add_one(broker, Job(stage="first", payload=Number(1), tenant="shop"))
    view = await broker.look(job)
    assert view
    assert (view.state, view.queue, view.tenant, view.attempt) == ("waiting", "test", "shop", 0)
    assert await depths(broker, "first") == (1, 0, 0, 0)


async def test_a_dedup_id_is_taken_once_and_answered_with_the_first_job(broker: Broker) -> None:
    first, again, other = await broker.add(
        [Job(stage="first", payload=Number(n), dedup=dedup) for n, dedup in enumerate(("x", "x", "y"))]
    )
    assert (first.duplicate, again.duplicate, other.duplicate) == (False, True, False)
    assert again.id == first.id != other.id
    assert await depths(broker, "first") == (2, 0, 0, 0)


async def test_a_dedup_id_outlives_its_job_and_ends_with_its_ttl(
    broker: Broker, redis: "Redis", namespace: str
) -> None:
    job = await add_one(broker, Job(stage="first", payload=Number(1), dedup="x"))
    (delivery,) = await fetch(broker)
    await broker.settle(FIRST, 0, [(delivery, done())])
    (again,) = await broker.add([Job(stage="first", payload=Number(1), dedup="x")])
    assert (again.id, again.duplicate) == (job, True)
    ttl = await redis.pttl(Keys(namespace).dedup("first", 0, "x"))
    assert FIRST.dedup_ttl * 1000 - 60_000 < ttl <= FIRST.dedup_ttl * 1000


async def test_a_full_stage_refuses_exactly_what_is_over_its_mark(broker: Broker) -> None:
    answers = await broker.add(jobs("first", 7))
    assert [bool(answer.id) for answer in answers] == [True] * 5 + [False] * 2
    await fetch(broker)
    assert (await broker.add(jobs("first", 1)))[0].id is None, "entries being worked on count too"


async def test_one_unknown_stage_adds_nothing_at_all(broker: Broker) -> None:
    with pytest.raises(UnknownStage, match="did you mean 'second'"):
        await broker.add([*jobs("first", 1), *jobs("secnd", 1)])
    assert await depths(broker, "first") == (0, 0, 0, 0)


async def test_what_cannot_be_sent_fails_and_does_not_stop_what_comes_after(broker: Broker) -> None:
    async with asyncio.timeout(5):
        for _ in range(3):
            with pytest.raises(BadInput, match="UTF-8"):
                await broker.add([Job(stage="first", payload=Number(1), dedup="\ud800")])
        assert await add_one(broker, Job(stage="first", payload=Number(1)))


async def test_jobs_of_one_key_lie_in_one_partition(connector: Callable[..., Connect]) -> None:
    async with connector(PIPELINE, partitions=8)() as broker:
        asked = [Job(stage="second", payload=Number(n), key=f"chat-{n % 4}") for n in range(40)]
        ids = [answer.id for answer in await broker.add(asked)]
        places = {(job.key, added.partition) for job, added in zip(asked, ids, strict=True) if added}
        assert len(places) == 4
        spread = await broker.add(jobs("second", 64))
        assert len({answer.id.partition for answer in spread if answer.id}) > 1


async def test_jobs_added_before_the_group_was_made_are_not_lost(connector: Callable[..., Connect]) -> None:
    async with connector(PIPELINE)() as broker:
        job = await add_one(broker, Job(stage="first", payload=Number(1)))
        await broker.ensure_groups()
        await broker.ensure_groups()
        assert [delivery.id for delivery in await fetch(broker)] == [job]


# ── settle ───────────────────────────────────────────────────────────────────────────────────────


async def test_settling_hands_on_and_remembers(broker: Broker) -> None:
    job = await add_one(broker, Job(stage="first", payload=Number(1)))
    (delivery,) = await fetch(broker)
    assert await state(broker, job) == "active"
    forward = (Job(stage="second", payload=Number(2)), Job(stage="second", payload=Number(3)))
    assert await broker.settle(FIRST, 0, [(delivery, done({"n": 1}, forward))]) == 1
    view = await broker.look(job)
    assert view
    assert (view.state, view.result, view.attempt) == ("completed", {"n": 1}, 1)
    assert [await state(broker, JobId.parse(following)) for following in view.next] == ["waiting", "waiting"]
    assert await depths(broker, "first") == (0, 0, 0, 0)


async def test_a_zombie_and_its_successor_hand_on_exactly_once(broker: Broker) -> None:
    await broker.add(jobs("first", 1))
    (zombie,) = await fetch(broker, "zombie")
    (successor,) = await reclaimed(broker, "successor", SHORT)
    assert (successor.entry, successor.attempt) == (zombie.entry, 2)
    handing_on = done(forward=(Job(stage="second", payload=Number(2)),))
    assert await broker.settle(FIRST, 0, [(zombie, handing_on)]) == 1
    assert await broker.settle(FIRST, 0, [(successor, handing_on)]) == 0
    assert await depths(broker, "second") == (1, 0, 0, 0)


async def test_many_outcomes_settle_in_one_call_each_on_its_own(broker: Broker) -> None:
    await broker.add(jobs("first", 4))
    found = await fetch(broker)
    assert await broker.settle(FIRST, 0, [(found[1], done())]) == 1
    outcomes = [done(forward=(Job(stage="second", payload=Number(n)),) * n) for n in range(4)]
    assert await broker.settle(FIRST, 0, list(zip(found, outcomes, strict=True))) == 3
    assert await depths(broker, "second") == (0 + 2 + 3, 0, 0, 0)


async def test_a_stage_that_keeps_no_results_leaves_nothing_behind(
    connector: Callable[..., Connect], redis: "Redis", namespace: str
) -> None:
    bare = stage("bare", unused, keep_results=0)
    async with connector(Pipeline([bare]))() as broker:
        await broker.ensure_groups()
        job = await add_one(broker, Job(stage="bare", payload=Number(1)))
        (delivery,) = await fetch(broker, name="bare")
        assert await broker.settle(bare, 0, [(delivery, done("big"))]) == 1
        assert await broker.settle(bare, 0, [(delivery, done("big"))]) == 0
        assert await broker.look(job) is None
        assert [key async for key in redis.scan_iter(f"{{{namespace}:*")] == [
            Keys(namespace).stream("bare", 0).encode()
        ]


# ── retry ────────────────────────────────────────────────────────────────────────────────────────


async def test_a_failed_job_keeps_its_id_and_comes_back_when_it_is_due(broker: Broker) -> None:
    job = await add_one(broker, Job(stage="first", payload=Number(1)))
    assert await broker.retry(FIRST, 0, "a", [((await fetch(broker))[0], Retry(0.05, "boom"))]) == [True]
    view = await broker.look(job)
    assert view
    assert (view.state, view.error, view.attempt) == ("retrying", "boom", 1)
    assert await depths(broker, "first") == (0, 0, 1, 0)
    (again,) = await reclaimed(broker)
    assert (again.id, again.attempt) == (job, 2)
    assert await reclaim(broker, "c") == [], "nobody else gets it too"


async def test_a_parked_job_waits_out_its_backoff_whatever_the_lease(broker: Broker) -> None:
    await broker.add(jobs("first", 1))
    await broker.retry(FIRST, 0, "a", [((await fetch(broker))[0], Retry(60))])
    assert await reclaim(broker, lease=0) == []


async def test_a_try_that_does_not_count_leaves_the_attempts_as_they_were(broker: Broker) -> None:
    await broker.add(jobs("first", 1))
    await broker.retry(FIRST, 0, "a", [((await fetch(broker))[0], Retry(0, counts=False))])
    assert await depths(broker, "first") == (0, 0, 1, 0)
    assert [delivery.attempt for delivery in await reclaimed(broker)] == [1]


async def test_a_success_after_a_failure_takes_the_failure_back(broker: Broker) -> None:
    job = await add_one(broker, Job(stage="first", payload=Number(1)))
    await broker.retry(FIRST, 0, "a", [((await fetch(broker))[0], Retry(0, "boom"))])
    await broker.settle(FIRST, 0, [((await reclaimed(broker))[0], done())])
    view = await broker.look(job)
    assert view
    assert (view.state, view.error, view.attempt) == ("completed", "", 2)


@pytest.mark.parametrize("late", [False, True], ids=["a try that did not count", "who had lost it"])
async def test_a_failure_is_taken_back_where_no_results_are_kept(
    connector: Callable[..., Connect], late: bool
) -> None:
    bare = stage("first", unused, keep_results=0)
    async with connector(Pipeline([bare]))() as broker:
        await broker.ensure_groups()
        job = await add_one(broker, Job(stage="first", payload=Number(1)))
        (earlier,) = await fetch(broker)
        (failing,) = await reclaimed(broker, "a", SHORT) if late else [earlier]
        await broker.retry(bare, 0, "a", [(failing, Retry(0, "boom", counts=late))])
        (last,) = [earlier] if late else await reclaimed(broker)
        assert await broker.settle(bare, 0, [(last, done())]) == 1
        assert await state(broker, job) == "completed"


async def test_who_lost_the_lease_can_neither_retry_nor_bury_nor_release(broker: Broker) -> None:
    job = await add_one(broker, Job(stage="first", payload=Number(1)))
    (late,) = await fetch(broker, "late")
    (mine,) = await reclaimed(broker, "mine", SHORT)
    assert await broker.retry(FIRST, 0, "late", [(late, Retry(0))]) == [False]
    assert await broker.bury(FIRST, 0, "late", [(late, Bury("no"))]) == [False]
    assert await broker.release("first", 0, "late", [late]) == [False]
    assert await state(broker, job) == "active"
    assert await broker.settle(FIRST, 0, [(mine, done())]) == 1


# ── without a group ──────────────────────────────────────────────────────────────────────────────


async def test_jobs_are_cancelled_and_cleared_before_any_worker_made_a_group(
    connector: Callable[..., Connect],
) -> None:
    async with connector(PIPELINE)() as broker:
        job = await add_one(broker, Job(stage="first", payload=Number(1)))
        await broker.add(jobs("first", 2))
        assert await broker.cancel(job) == "cancelled"
        assert await broker.clear([FIRST]) == 2
        assert await depths(broker, "first") == (0, 0, 0, 0)


async def test_what_was_due_when_its_group_was_lost_is_not_taken_from_who_has_it_anew(
    broker: Broker, redis: "Redis", namespace: str
) -> None:
    await broker.add(jobs("first", 1))
    await broker.retry(FIRST, 0, "a", [((await fetch(broker))[0], Retry(0))])
    await redis.xgroup_destroy(Keys(namespace).stream("first", 0), "riacho")
    await broker.ensure_groups()
    (anew,) = await fetch(broker, "a")
    assert await reclaim(broker, "b") == []
    assert await broker.settle(FIRST, 0, [(anew, done())]) == 1


# ── reclaim, renew, release ──────────────────────────────────────────────────────────────────────


async def test_a_silent_worker_loses_its_entries_after_the_lease_and_not_before(broker: Broker) -> None:
    await broker.add(jobs("first", 3))
    await fetch(broker, "silent")
    assert await reclaim(broker, lease=60) == []
    assert len(await reclaimed(broker, lease=SHORT)) == 3


async def test_renewing_keeps_the_lease_and_tells_what_was_lost(broker: Broker) -> None:
    await broker.add(jobs("first", 2))
    kept, lost = await fetch(broker, "a")
    await broker.settle(FIRST, 0, [(lost, done())])
    assert (await broker.renew("first", 0, "a", [kept, lost])).lost == [lost.entry]
    assert (await broker.renew("first", 0, "b", [kept])).lost == [kept.entry]
    assert [delivery.attempt for delivery in await reclaimed(broker, "b", SHORT)] == [2], "renewing is no attempt"


async def test_reclaiming_takes_no_more_than_asked_for(broker: Broker) -> None:
    await broker.add(jobs("first", 5))
    found = await fetch(broker, "a")
    await broker.retry(FIRST, 0, "a", [(delivery, Retry(0)) for delivery in found[:3]])
    assert len(await reclaim(broker, count=2)) == 2
    assert len(await reclaim(broker, lease=0, count=2)) == 2


async def test_what_is_released_is_due_at_once_as_if_never_delivered(broker: Broker) -> None:
    job = await add_one(broker, Job(stage="first", payload=Number(1)))
    (delivery,) = await fetch(broker, "a")
    assert await broker.release("first", 0, "a", [delivery]) == [True]
    assert await depths(broker, "first") == (1, 0, 0, 0)
    assert await state(broker, job) == "waiting"
    (again,) = await reclaim(broker, "b")
    assert (again.id, again.attempt) == (job, 1)


async def test_a_consumer_that_holds_entries_is_not_forgotten(broker: Broker) -> None:
    await broker.add(jobs("first", 1))
    (delivery,) = await fetch(broker, "a")
    await broker.leave("a")
    assert await broker.settle(FIRST, 0, [(delivery, done())]) == 1


async def test_consumers_that_hold_nothing_and_were_long_silent_are_forgotten(
    broker: Broker, redis: "Redis", namespace: str
) -> None:
    await broker.add(jobs("first", 1))
    (delivery,) = await fetch(broker, "gone")
    await broker.settle(FIRST, 0, [(delivery, done())])

    async def only_me() -> bool:
        await reclaim(broker, "me", lease=0.001)
        names = {
            info["name"] for info in await redis.xinfo_consumers(Keys(namespace).stream("first", 0), "riacho")
        }
        return b"gone" not in names

    await eventually(only_me, what="forgetting the consumer")


async def test_saying_how_far_a_job_has_come_does_not_shorten_how_long_it_is_found(
    broker: Broker, redis: "Redis", namespace: str
) -> None:
    job = await add_one(broker, Job(stage="first", payload=Number(1), delay=0.001))
    (delivery,) = await delayed(broker)
    before = await redis.pttl(Keys(namespace).job(job))
    assert await broker.progress("b", delivery, 50)
    assert before - 10_000 < await redis.pttl(Keys(namespace).job(job)) <= before
    view = await broker.look(job)
    assert view
    assert (view.state, view.progress) == ("active", 50)


# ── bury ─────────────────────────────────────────────────────────────────────────────────────────


async def test_a_buried_job_keeps_its_bytes_and_its_reason(broker: Broker, redis: "Redis", namespace: str) -> None:
    job = await add_one(broker, Job(stage="first", payload=Number(1)))
    (delivery,) = await fetch(broker)
    assert await broker.bury(FIRST, 0, "a", [(delivery, Bury("no such number", "code 100"))]) == [True]
    view = await broker.look(job)
    assert view
    assert (view.state, view.reason, view.error) == ("failed", "no such number", "code 100")
    assert await depths(broker, "first") == (0, 0, 0, 1)
    letters: Any = await redis.xrange(Keys(namespace).dead("first", 0))
    ((_, letter),) = letters
    assert (letter[b"id"], letter[b"e"]) == (job.entry.encode(), delivery.body)


# ── what every key must have ─────────────────────────────────────────────────────────────────────


async def test_everything_but_streams_and_parked_work_has_an_end(
    broker: Broker, redis: "Redis", namespace: str
) -> None:
    await broker.add([Job(stage="first", payload=Number(n), dedup=str(n)) for n in range(5)])
    found = await fetch(broker)
    await broker.settle(FIRST, 0, [(found[0], done())])
    await broker.bury(FIRST, 0, "a", [(found[1], Bury("no"))])
    await broker.retry(FIRST, 0, "a", [(found[2], Retry(60, "boom"))])
    endless = [key async for key in redis.scan_iter(f"{{{namespace}:*") if await redis.ttl(key) == -1]
    keys = Keys(namespace)
    expected = {
        keys.stream("first", 0),
        keys.stream("second", 0),
        keys.place("first", 0).due,
        keys.place("first", 0).control,  # it was full
        keys.dead("first", 0),
        keys.letters("first", 0),
    }
    assert {key.decode() for key in endless} == expected


async def test_a_look_at_what_never_was_finds_nothing(broker: Broker) -> None:
    assert await broker.look(JobId("first", 0, "1-0")) is None
