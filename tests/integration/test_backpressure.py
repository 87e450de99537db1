"""What is refused, why, and when to come again."""

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest
from redis.asyncio import Redis

from pipeline import Broker, Bury, Context, Done, Job, Outcome, Pipeline, Retry, backpressure
from pipeline.embedded import EmbeddedServer
from pipeline.errors import Refused, ServerFull, StageFull
from pipeline.outcome import Settled
from tests.conftest import server_binary
from tests.support import (
    Connect,
    Connector,
    Noted,
    Number,
    add_all,
    add_one,
    eventually,
    jobs,
    reached,
    stage,
    state,
    status,
    until,
    unused,
    working,
)

pytestmark = pytest.mark.integration

ONE = Job(stage="one", payload=Number(1))
DONE = Settled(msgspec.Raw(b"\xc0"))


# ── a full stage ─────────────────────────────────────────────────────────────────────────────────


async def test_a_refusal_says_exactly_how_many_unfinished_jobs_there_are(connector: Connector) -> None:
    one = stage("one", unused, high_water=8, tenant_limit=3)
    async with connector(Pipeline([one]))() as broker:
        await broker.ensure_groups()
        await add_all(broker, jobs("one", 5))  # two of them held back
        await add_one(broker, Job(stage="one", payload=Number(1), delay=60))
        await broker.fetch("one", 0, "a", 2, 10)
        answers = await broker.add(jobs("one", 4))
        assert [bool(answer.id) for answer in answers] == [True, True, False, False]
        for refused in answers[2:]:
            assert refused.refusal
            assert (refused.refusal.reason, refused.refusal.depth) == ("full", 8)
            assert 0 < refused.refusal.wait <= 60
        found = await status(broker, "one")
        assert found.waiting + found.delayed + found.active == 8


async def test_the_wait_suggested_follows_from_how_fast_the_stage_is_worked_off(connector: Connector) -> None:
    one = stage("one", unused, high_water=100, keep_results=0)
    async with connector(Pipeline([one]))() as broker:
        await broker.ensure_groups()
        await add_all(broker, jobs("one", 100))
        earliest = time.monotonic()
        await refused_for(broker)
        latest = time.monotonic()
        found = await broker.fetch("one", 0, "a", 20, 10)
        await asyncio.sleep(0.5)  # what is measured
        await broker.settle(one, 0, [(delivery, DONE) for delivery in found])
        await add_all(broker, jobs("one", 20))
        shortest = time.monotonic() - latest
        wait = await refused_for(broker)
        longest = time.monotonic() - earliest
    # 20 jobs in that time: the 10 that are over nine tenths of the mark take half of it.
    assert shortest / 2 - 0.005 <= wait <= longest / 2 + 0.005


async def test_the_wait_suggested_is_never_over_a_minute(connector: Connector) -> None:
    one = stage("one", unused, high_water=20_000, keep_results=0)
    async with connector(Pipeline([one]))() as broker:
        await broker.ensure_groups()
        await add_all(broker, jobs("one", 20_000))
        assert 0 < await refused_for(broker) <= 60
        (found,) = await broker.fetch("one", 0, "a", 1, 10)
        await asyncio.sleep(0.1)  # one job in this time, and 2,000 to go
        await broker.settle(one, 0, [(found, DONE)])
        assert await refused_for(broker) == 60


async def refused_for(broker: Broker) -> float:
    """The wait suggested by a full stage."""
    with pytest.raises(StageFull) as raised:
        await broker.enqueue(ONE)
    return raised.value.refusal.wait


async def test_who_is_refused_is_told_by_an_error_of_its_own(connector: Connector) -> None:
    async with connector(Pipeline([stage("one", unused, high_water=1)]))() as broker:
        await add_one(broker, ONE)
        said = r"^test\.one holds 1 unfinished jobs, as many as it may; try again in [\d.]+ s$"
        with pytest.raises(Refused, match=said) as raised:
            await broker.enqueue(ONE)
        assert isinstance(raised.value, StageFull)
        assert raised.value.refusal.depth == 1


async def test_who_has_patience_gets_in_once_there_is_room(connector: Connector) -> None:
    noted = Noted(finish=False)
    pipeline = Pipeline([stage("one", noted, high_water=2)])
    connect = connector(pipeline)
    async with connect() as broker, working(connect, pipeline):
        await add_all(broker, jobs("one", 2))
        await reached(lambda: noted.started)
        adding = asyncio.create_task(broker.enqueue(ONE, patience=20))
        with pytest.raises(StageFull):
            await broker.enqueue(ONE)
        assert not adding.done()
        noted.finish.set()
        await until(broker, await adding, "completed")


async def test_patience_has_an_end(connector: Connector) -> None:
    async with connector(Pipeline([stage("one", unused, high_water=1)]))() as broker:
        await add_one(broker, ONE)
        before = time.monotonic()
        with pytest.raises(StageFull):
            await broker.enqueue(ONE, patience=0.3)
        assert 0.3 <= time.monotonic() - before < 5
        assert (await status(broker, "one")).waiting == 1


# ── a full server ────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
async def own(tmp_path: Path) -> AsyncIterator["Redis"]:
    """A client of a server whose memory this test may limit."""
    with EmbeddedServer(tmp_path, binary=server_binary()) as server:
        client: Redis = Redis.from_url(server.url)
        async with client:
            yield client


async def test_a_server_nearly_out_of_memory_takes_nothing_in_and_has_jobs_finished(
    own: "Redis", tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backpressure, "LOOK_EVERY", 0.05)
    noted = Noted(finish=False)
    pipeline = Pipeline([stage("one", noted)])
    connect = connecting(tmp_path, pipeline, memory_share=0.3)
    async with connect() as broker, working(connect, pipeline):
        ids = await add_all(broker, jobs("one", 20))
        await reached(lambda: noted.started)
        await own.config_set("maxmemory", 3 * await used(own))

        async def refused() -> bool:
            (answer,) = await broker.add([ONE])
            return answer.refusal is not None and answer.refusal.reason == "memory"

        await eventually(refused, what="refusing")
        with pytest.raises(ServerFull, match="the server's memory is nearly full; try again in") as raised:
            await broker.enqueue(ONE)
        assert raised.value.refusal.wait > 0
        noted.finish.set()
        for job in ids:
            await until(broker, job, "completed")
        adding = asyncio.create_task(broker.enqueue(ONE, patience=20))
        await own.config_set("maxmemory", 0)
        await until(broker, await adding, "completed")


async def test_a_server_that_is_out_of_memory_still_has_jobs_run_handed_on_tried_again_and_buried(
    own: "Redis", tmp_path: Path
) -> None:
    """Whoever could not finish what was taken in could never make room."""

    async def end(ctx: Context, payload: Number) -> Outcome:
        await ctx.progress(50)
        outcomes: list[Outcome] = [Bury("no"), Retry(0.05), Done(1, forward=(ctx.forward("next", payload),))]
        return outcomes[payload.n if ctx.attempt == 1 else 2]

    noted = Noted()
    following = stage("next", noted, tenant_limit=1, keep_results=0)
    bare = stage("bare", noted, keep_results=0)
    pipeline = Pipeline([stage("one", end), following, bare])
    connect = connecting(tmp_path, pipeline)
    async with connect() as broker:
        ids = await add_all(broker, [*jobs("one", 3), *jobs("bare", 3)])
        cancelled = await add_one(broker, Job(stage="one", payload=Number(2), delay=60))
        await add_one(broker, Job(stage="one", payload=Number(2), delay=0.1))
        await own.config_set("maxmemory", await used(own) // 2)
        with pytest.raises(ServerFull):
            await broker.enqueue(ONE)
        async with working(connect, pipeline) as worker:
            assert await broker.cancel(cancelled) == "cancelled"
            # One buried, one tried again, and all others settled: three plain, three handed on, and again.
            wanted = {"buried": 1, "retried": 1, "settled": 3 + 3 + 3}
            await reached(lambda: worker.settler.counts == wanted | {"settled elsewhere": 0})
            await own.config_set("maxmemory", 0)
            assert [await state(broker, job) for job in ids[:3]] == ["failed", "completed", "completed"]
    assert sorted(noted.started) == [0, 1, 1, 2, 2, 2]


def connecting(folder: Path, pipeline: Pipeline, **options: float) -> Connect:
    url = EmbeddedServer(folder, binary=server_binary()).url
    return lambda: Broker(url, pipeline, **options)  # type: ignore[arg-type]


async def used(client: "Redis") -> int:
    memory: int = (await client.info("memory"))["used_memory"]
    return memory


async def test_the_share_of_the_memory_that_may_be_used_is_a_setting(server: str, namespace: str) -> None:
    pipeline = Pipeline([stage("one", unused)])
    async with Broker(server, pipeline, namespace=namespace, memory_share=0.0) as broker:
        with pytest.raises(ServerFull):
            await broker.enqueue(ONE)
