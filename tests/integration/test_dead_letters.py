"""Dead letters: listed with their reasons, put back to work, deleted."""

from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from pipeline import Broker, Context, Job, JobId, Permanent, Pipeline, broker
from pipeline.keys import Keys
from pipeline.views import DeadLetter
from tests.support import Connect, Number, add_one, depths, jobs, stage, until, working

pytestmark = pytest.mark.integration

Connector = Callable[..., Connect]


class Picky:
    """A handler that refuses everything until it is told to be kind."""

    def __init__(self) -> None:
        self.kind = False

    async def __call__(self, ctx: Context, payload: Number) -> int:
        if not self.kind:
            raise Permanent(f"not {payload.n}")
        return ctx.attempt


@pytest.fixture
def picky() -> Picky:
    return Picky()


@pytest.fixture
async def open_broker(connector: Connector, picky: Picky) -> AsyncIterator[Broker]:
    """A broker with a worker beside it."""
    pipeline = Pipeline([stage("picky", picky, concurrency=5), stage("other", picky)])
    connect = connector(pipeline)
    async with connect() as open_broker, working(connect, pipeline):
        yield open_broker


async def letters(of: Broker, name: str = "picky") -> list[DeadLetter]:
    return [letter async for letter in of.dead_letters([of.pipeline.stage(name)])]


async def buried(of: Broker, count: int) -> list[DeadLetter]:
    for added in await of.add(jobs("picky", count)):
        assert added.id
        await until(of, added.id, "failed")
    return await letters(of)


async def test_they_are_listed_with_payload_and_reason_page_by_page(
    open_broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(broker, "MOST_PER_CALL", 2)
    found = await buried(open_broker, 5)
    assert [(letter.payload, letter.reason) for letter in found] == [({"n": n}, f"not {n}") for n in range(5)]
    assert await letters(open_broker, "other") == []


async def test_one_that_cannot_be_read_is_listed_all_the_same(
    open_broker: Broker, redis: Any, namespace: str
) -> None:
    await redis.xadd(Keys(namespace).stream("picky", 0), {"e": "?"})
    good = await add_one(open_broker, Job(stage="picky", payload=Number(1)))
    await until(open_broker, good, "failed")
    unreadable, _ = sorted(await letters(open_broker), key=lambda letter: letter.payload is not None)
    assert unreadable.reason.startswith("cannot be read")


async def test_a_replayed_one_is_a_new_job_with_all_its_tries_and_found_from_the_old_one(
    open_broker: Broker, picky: Picky
) -> None:
    (letter,) = await buried(open_broker, 1)
    picky.kind = True
    new = await open_broker.replay(letter)
    assert new
    assert (await until(open_broker, new, "completed")).result == 1
    old = await open_broker.look(JobId.parse(letter.job_id))
    assert old
    assert (old.state, old.next) == ("failed", [str(new)])
    assert await open_broker.replay(letter) is None, "it is put back once"
    assert await depths(open_broker, "picky") == (0, 0, 0, 0)


async def test_one_is_found_by_its_job_as_long_as_it_is_there(open_broker: Broker) -> None:
    found = await buried(open_broker, 3)
    jobs_of = [JobId.parse(letter.job_id) for letter in found]
    assert [await open_broker.dead_letter(job) for job in jobs_of] == found
    await open_broker.replay(found[1])
    left = [await open_broker.dead_letter(job) for job in jobs_of]
    assert left == [found[0], None, found[2]]
    await open_broker.purge(open_broker.pipeline)
    assert [await open_broker.dead_letter(job) for job in jobs_of] == [None] * 3


async def test_the_index_of_dead_letters_goes_with_them(
    open_broker: Broker, redis: Any, namespace: str, picky: Picky
) -> None:
    first, *_ = await buried(open_broker, 3)
    key = Keys(namespace).letters("picky", 0)
    picky.kind = True
    await open_broker.replay(first)
    assert await redis.hlen(key) == 2
    await open_broker.purge(open_broker.pipeline)
    assert not await redis.exists(key)


async def test_purging_leaves_the_freeing_of_memory_to_the_servers_spare_time(
    open_broker: Broker, redis: Any
) -> None:
    await buried(open_broker, 1)
    before = await redis.info("commandstats")
    await open_broker.purge(open_broker.pipeline)
    after = await redis.info("commandstats")
    calls = [known.get("cmdstat_unlink", {"calls": 0})["calls"] for known in (before, after)]
    assert calls[1] - calls[0] == 2
    assert after.get("cmdstat_del") == before.get("cmdstat_del")


async def test_purging_deletes_those_of_the_stages_named_and_counts_them(open_broker: Broker) -> None:
    await buried(open_broker, 3)
    assert await open_broker.purge([open_broker.pipeline.stage("other")]) == 0
    assert await open_broker.purge(open_broker.pipeline) == 3
    assert await letters(open_broker) == []
