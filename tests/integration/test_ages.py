"""How the server is, how old the oldest work of a stage is, and how much was buried when."""

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from redis.asyncio import Redis

from pipeline import Broker, Job, Permanent, Pipeline
from pipeline.keys import GROUP, Keys
from pipeline.message import Delivery, now_ms
from pipeline.outcome import Retry, Throttled
from pipeline.views import StageAges
from tests.faults.servers import OwnServer
from tests.support import (
    Connector,
    Noted,
    Number,
    add_one,
    eventually,
    stage,
    until,
    unused,
    working,
)

pytestmark = pytest.mark.integration

NONE = StageAges(None, None)
PIPELINE = Pipeline([stage("one", unused), stage("two", unused, tenant_limit=1)])


@pytest.fixture
async def broker(connector: Connector) -> AsyncIterator[Broker]:
    async with connector(PIPELINE, partitions=2)() as broker:
        yield broker


async def ages(broker: Broker, name: str = "one") -> StageAges:
    return (await broker.ages())[name]


async def taken(broker: Broker, name: str = "one", consumer: str = "a") -> Delivery:
    """A job that a worker has."""
    await broker.ensure_groups()
    job = await add_one(broker, Job(stage=name, payload=Number(1)))
    (delivery,) = await broker.fetch(name, job.partition, consumer, 1, 100)
    return delivery


async def aged(redis: Redis, keys: Keys, partition: int, seconds: float) -> None:
    """An entry of stage one that has been in the stream for so long."""
    entry = f"{now_ms() - int(seconds * 1000)}-0"
    await redis.xadd(keys.stream("one", partition), {"e": b"x"}, id=entry)


# ── the server ───────────────────────────────────────────────────────────────────────────────────


async def test_the_server_says_how_it_is(tmp_path: Path) -> None:
    own = OwnServer(tmp_path)
    await own.start()
    async with Broker(own.url, PIPELINE) as broker:
        facts = await broker.server()
        assert 0 < facts.latency < 1
        assert facts.version.split(".")[0] >= "7"
        assert (facts.role, facts.replicas, facts.linked, facts.lag) == ("primary", 0, True, 0)
        assert (facts.append_only, facts.writes_fail, facts.warnings) == (True, "", [])
        assert 0 < facts.memory < facts.most_memory
        await own.ask("CONFIG", "SET", "maxmemory", "100mb", "maxmemory-policy", "allkeys-lru", "appendonly", "no")
        facts = await broker.server()
        assert facts.most_memory == 100 * 2**20
        assert ["allkeys-lru" in facts.evicts, "appendonly" in facts.forgets] == [True, True]
    await own.stop()


async def test_a_replica_says_so_and_whether_its_primary_is_there(tmp_path: Path) -> None:
    first, second = OwnServer(tmp_path / "a"), OwnServer(tmp_path / "b")
    await first.start()
    await second.start()
    await first.ask("CONFIG", "SET", "repl-diskless-sync-delay", 0)
    await second.ask("REPLICAOF", "127.0.0.1", await first.listen())
    async with Broker(first.url, PIPELINE) as primary, Broker(second.url, PIPELINE) as replica:

        async def follows() -> bool:
            return (await replica.server()).linked and (await primary.server()).replicas == 1

        await eventually(follows)
        assert (await replica.server()).role == "replica"
        await first.stop()

        async def lost() -> bool:
            return not (await replica.server()).linked

        await eventually(lost)
    await second.stop()


# ── waiting ──────────────────────────────────────────────────────────────────────────────────────


async def test_nothing_is_old_where_there_is_nothing(broker: Broker) -> None:
    assert await broker.ages() == {"one": NONE, "two": NONE}
    await broker.ensure_groups()
    assert await broker.ages() == {"one": NONE, "two": NONE}


async def test_the_oldest_waiting_job_is_that_of_any_partition(
    broker: Broker, redis: Redis, namespace: str
) -> None:
    keys = Keys(namespace)
    await aged(redis, keys, 0, 50)
    assert (await ages(broker)).waiting == pytest.approx(50, abs=5), "without a group, too"
    await broker.ensure_groups()
    await aged(redis, keys, 1, 100)
    assert (await ages(broker)).waiting == pytest.approx(100, abs=5)
    await broker.fetch("one", 1, "a", 10, 100)
    assert (await ages(broker)).waiting == pytest.approx(50, abs=5), "what is with a worker does not wait"


async def test_what_a_paused_stage_holds_waits_on(broker: Broker, redis: Redis, namespace: str) -> None:
    await broker.ensure_groups()
    await taken(broker)
    await broker.pause(PIPELINE)
    await add_one(broker, Job(stage="one", payload=Number(2)))
    await asyncio.sleep(0.05)
    assert (await ages(broker)).waiting == pytest.approx(0.05, abs=2)
    await broker.resume(PIPELINE)
    assert (await ages(broker)).waiting is not None


async def test_what_is_not_due_is_not_stuck_and_what_is_due_is(broker: Broker) -> None:
    await add_one(broker, Job(stage="one", payload=Number(1), delay=3600))
    backing_off, limited = await taken(broker), await taken(broker)
    await broker.retry(PIPELINE.stage("one"), backing_off.partition, "a", [(backing_off, Retry(3600))])
    await broker.throttled(PIPELINE.stage("one"), limited.partition, "a", [(limited, Throttled(3600))])
    assert await ages(broker) == NONE
    released = await taken(broker)
    await broker.release("one", released.partition, "a", [released])
    assert (await ages(broker)).waiting is not None


async def test_what_backed_off_or_was_delayed_waits_since_it_was_due(broker: Broker) -> None:
    await add_one(broker, Job(stage="one", payload=Number(1), delay=0.05))
    await asyncio.sleep(0.2)
    waiting = (await ages(broker)).waiting
    assert waiting is not None
    assert 0.1 < waiting < 2
    failed = await taken(broker, "two")
    await broker.retry(PIPELINE.stage("two"), failed.partition, "a", [(failed, Retry(0.05))])
    await asyncio.sleep(0.2)
    waiting = (await ages(broker, "two")).waiting
    assert waiting is not None
    assert 0.1 < waiting < 2


async def test_a_parked_entry_that_somebody_settled_does_not_wait(
    broker: Broker, redis: Redis, namespace: str
) -> None:
    gone = await taken(broker)
    await broker.release("one", gone.partition, "a", [gone])
    await redis.xack(Keys(namespace).stream("one", gone.partition), GROUP, gone.entry)
    await redis.xdel(Keys(namespace).stream("one", gone.partition), gone.entry)
    assert await ages(broker) == NONE


async def test_what_is_held_back_for_its_tenant_is_not_stuck_by_itself(broker: Broker) -> None:
    await broker.ensure_groups()
    first = await taken(broker, "two")
    await add_one(broker, Job(stage="two", payload=Number(2), key="k"))
    held = [await add_one(broker, Job(stage="two", payload=Number(n), key="k")) for n in range(3)]
    for partition in (0, 1):
        await broker.fetch("two", partition, "a", 10, 50)
    assert held
    assert first
    assert (await ages(broker, "two")).waiting is None
    assert (await ages(broker, "two")).active is not None


# ── active ───────────────────────────────────────────────────────────────────────────────────────


async def test_an_active_job_is_as_old_as_its_time_with_the_worker(
    connector: Connector,
) -> None:
    noted = Noted(finish=False)
    pipeline = Pipeline([stage("one", noted)])
    connect = connector(pipeline)
    async with connect() as broker, working(connect, pipeline, lease=0.6):
        started = time.monotonic()
        await add_one(broker, Job(stage="one", payload=Number(1)))

        async def renewed() -> bool:
            age = (await ages(broker)).active
            return age is not None and age > 0.9

        await eventually(renewed)
        assert time.monotonic() - started >= 0.9
        found = (await ages(broker)).active
        assert found is not None
        assert found <= time.monotonic() - started + 0.05
        noted.finish.set()

        async def over() -> bool:
            return await ages(broker) == NONE

        await eventually(over, what="the stage becoming idle")


async def test_time_in_the_queue_is_no_time_with_a_worker(broker: Broker, redis: Redis, namespace: str) -> None:
    await broker.ensure_groups()
    await aged(redis, Keys(namespace), 0, 1000)
    (delivery,) = await broker.fetch("one", 0, "a", 1, 100)
    delivery.taken = time.monotonic() - 100
    assert (await ages(broker)).active == pytest.approx(0, abs=5), "before the first renewal"
    await broker.renew("one", 0, "a", [delivery])
    assert (await ages(broker)).active == pytest.approx(100, abs=5)
    await broker.release("one", 0, "a", [delivery])
    assert (await ages(broker)).active is None


async def test_what_another_worker_took_over_is_as_old_as_its_time_with_that_one(broker: Broker) -> None:
    delivery = await taken(broker)
    delivery.taken = time.monotonic() - 100
    await broker.renew("one", delivery.partition, "a", [delivery])
    await broker.reclaim("one", delivery.partition, "b", 0.0, 1)
    assert (await ages(broker)).active == pytest.approx(0, abs=5)


async def test_of_several_the_oldest_counts(broker: Broker, redis: Redis, namespace: str) -> None:
    await broker.ensure_groups()
    for seconds in (3, 2, 1):
        await aged(redis, Keys(namespace), 0, seconds)
    held = await broker.fetch("one", 0, "a", 3, 100)
    for delivery, age in zip(held, (10, 300, 20), strict=True):
        delivery.taken = time.monotonic() - age
    await broker.renew("one", 0, "a", held)
    assert (await ages(broker)).active == pytest.approx(300, abs=5)


# ── dead letters ─────────────────────────────────────────────────────────────────────────────────


async def test_the_buried_are_counted_by_tenant(connector: Connector, redis: Redis, namespace: str) -> None:
    async def refuse(*_: object) -> None:
        raise Permanent("no")

    pipeline = Pipeline([stage("one", refuse, concurrency=5), stage("two", refuse, concurrency=5)])
    connect = connector(pipeline, partitions=2)
    async with connect() as broker, working(connect, pipeline):
        await broker.ensure_groups()
        before = now_ms()
        wanted = [("one", "a"), ("two", "a"), ("one", "b"), ("one", "")]
        for name, tenant in wanted:
            await until(broker, await add_one(broker, Job(stage=name, payload=Number(1), tenant=tenant)), "failed")
        await redis.xadd(Keys(namespace).dead("one", 0), {"id": b"1-0", "e": b"\xc1", "record": b""})
        after = now_ms() + 1000
        assert await broker.buried_between(before - 1000, after) == {"a": 2, "b": 1, "": 2}
        assert await broker.buried_between(after, after + 1000) == {}
        assert await broker.buried_between(0, before - 1000) == {}


async def test_they_are_counted_page_by_page_and_the_end_is_not_among_them(
    broker: Broker, redis: Redis, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipeline.broker.looking.LETTERS", 2)
    for n in range(1, 8):
        await redis.xadd(Keys(namespace).dead("two", 1), {"e": b"?"}, id=f"{n * 1000}-5")
    assert await broker.buried_between(2000, 7000) == {"": 5}


async def test_of_consumers_that_are_gone_nothing_is_kept(broker: Broker, redis: Redis, namespace: str) -> None:
    noted = Keys(namespace).held_longest("one", 0)
    await broker.ensure_groups()
    for consumer in ("leaves", "falls-silent"):
        await broker.add([Job(stage="one", payload=Number(n)) for n in range(8)])
        (delivery, *others) = await broker.fetch("one", 0, consumer, 8, 100)
        delivery.taken = time.monotonic()
        await broker.renew("one", 0, consumer, [delivery])
        await broker.release("one", 0, consumer, [delivery, *others])
    assert set(await redis.hkeys(noted)) == {b"leaves", b"falls-silent"}
    await broker.leave("leaves")
    assert await redis.hkeys(noted) == [b"falls-silent"]

    async def forgotten() -> bool:
        await broker.reclaim("one", 0, "another", 0.001, 1)
        return not await redis.exists(noted)

    await eventually(forgotten)
