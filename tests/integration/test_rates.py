"""Rate limits: a token bucket shared by everybody, and stages whose jobs wait for their token."""

import asyncio
import itertools
import secrets
import time
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from pipeline import Broker, Context, Pipeline, RetryPolicy
from pipeline.broker.consuming import Tokens
from pipeline.errors import ServerUnavailable
from pipeline.stage import RateLimit
from tests.support import (
    Connector,
    Noted,
    Number,
    add_all,
    add_one,
    jobs,
    look,
    reached,
    stage,
    status,
    until,
    working,
)

pytestmark = pytest.mark.integration

HOURLY = 1 / 3600
NOTHING = Pipeline([])


# ── the bucket ───────────────────────────────────────────────────────────────────────────────────


async def test_a_bucket_gives_its_burst_at_once_and_then_spaces_tokens_out(connector: Connector) -> None:
    async with connector(NOTHING)() as broker:
        before = time.monotonic()
        waits = [(await broker.throttle([RateLimit("a", HOURLY, burst=3)])).wait for _ in range(6)]
        elapsed = time.monotonic() - before
    assert waits[:3] == [0, 0, 0]
    for wait, due in zip(waits[3:], (3600, 7200, 10_800), strict=True):
        assert due - elapsed - 0.002 <= wait <= due


async def test_a_token_is_there_when_it_was_said_to_be(connector: Connector) -> None:
    limit = [RateLimit("a", 20)]
    async with connector(NOTHING)() as broker:
        assert await broker.throttle(limit) == (0, 1)
        wait, _ = await broker.throttle(limit)  # the token is given out with it
        assert 0 < wait <= 0.05
        await asyncio.sleep(wait + 0.051)
        assert await broker.throttle(limit) == (0, 1)


async def test_buckets_are_asked_in_turn_up_to_the_first_that_has_none(connector: Connector) -> None:
    fast, slow = RateLimit("fast", 1 / 60), RateLimit("slow", HOURLY)
    async with connector(NOTHING)() as broker:
        assert await broker.throttle([slow, fast]) == (0, 2)
        wait, count = await broker.throttle([slow, fast])
        assert (3590 < wait <= 3600, count) == (True, 1)
        wait, count = await broker.throttle([fast])
        assert (50 < wait <= 60, count) == (True, 1), "it had not been asked"


async def test_buckets_of_different_keys_and_namespaces_are_apart(
    connector: Connector, server: str, namespace: str
) -> None:
    async with connector(NOTHING)() as broker, Broker(server, NOTHING, namespace=f"{namespace}-2") as other:
        for one in (broker, other):
            for key in "ab":
                assert await one.throttle([RateLimit(key, HOURLY)]) == (0, 1)


@hypothesis_settings(max_examples=40)
@given(
    buckets=st.lists(st.tuples(st.integers(5, 100), st.integers(1, 5)), min_size=1, max_size=3),
    asked=st.lists(st.sets(st.integers(0, 2)), max_size=12),
)
def test_buckets_do_what_a_simple_model_of_them_does(
    server: str, buckets: list[tuple[int, int]], asked: list[set[int]]
) -> None:
    """Tokens so many seconds apart: whatever the order, the n-th of a bucket comes (n - burst) of these late."""
    taken = [0] * len(buckets)
    name = secrets.token_hex(6)
    limits = [RateLimit(f"{name}:{n}", 1 / gap, burst) for n, (gap, burst) in enumerate(buckets)]

    async def waits() -> list[tuple[float, float]]:
        found: list[tuple[float, float]] = []
        async with Broker(server, NOTHING, namespace=f"test-{name}") as broker:
            for wanted in asked:
                of_these = [n for n in wanted if n < len(buckets)]
                late = 0
                for n in of_these:
                    taken[n] += 1
                    late = max(0, taken[n] - buckets[n][1]) * buckets[n][0]
                    if late:
                        break
                if of_these:
                    found.append(((await broker.throttle([limits[n] for n in of_these])).wait, late))
        return found

    before = time.monotonic()
    answers = asyncio.run(waits())
    elapsed = time.monotonic() - before
    for wait, expected in answers:
        assert max(0, expected - elapsed - 0.002) <= wait <= expected + 0.002


# ── stages ───────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[Tokens]:
    """What every call for a token was answered."""
    answers: list[Tokens] = []
    throttle = Broker.throttle

    async def noting(self: Broker, limits: Sequence[RateLimit]) -> Tokens:
        answers.append(await throttle(self, limits))
        return answers[-1]

    monkeypatch.setattr(Broker, "throttle", noting)
    return answers


class Timed:
    """A handler that notes what it started when."""

    def __init__(self) -> None:
        self.started: list[tuple[int, float]] = []

    async def __call__(self, ctx: Context, payload: Number) -> int:
        self.started.append((payload.n, time.monotonic()))
        return ctx.attempt


async def test_jobs_run_at_their_rate_in_order_each_asking_once(connector: Connector, asked: list[Tokens]) -> None:
    timed = Timed()
    pipeline = Pipeline([stage("one", timed, prefetch=4, rates=lambda *_: [RateLimit("a", 20, burst=2)])])
    connect = connector(pipeline)
    async with connect() as broker, working(connect, pipeline) as worker:
        before = time.monotonic()
        ids = await add_all(broker, jobs("one", 10))
        views = [await until(broker, job, "completed") for job in ids]
        assert [(view.attempt, view.result) for view in views] == [(1, 1)] * 10
        assert worker.settler.counts["throttled"] == 8
    assert len(asked) == 10
    assert [n for n, _ in timed.started] == list(range(10))
    assert 8 / 20 - 0.01 <= timed.started[-1][1] - before < 5


async def test_two_workers_share_a_rate(connector: Connector, asked: list[Tokens]) -> None:
    timed = Timed()
    pipeline = Pipeline([stage("one", timed, concurrency=5, rates=lambda *_: [RateLimit("a", 25)])])
    connect = connector(pipeline)
    async with connect() as broker, working(connect, pipeline), working(connect, pipeline):
        before = time.monotonic()
        for job in await add_all(broker, jobs("one", 12)):
            await until(broker, job, "completed")
    assert max(at for _, at in timed.started) - before >= 11 / 25 - 0.01
    assert len(asked) == 12


async def test_a_token_of_one_limit_is_not_taken_while_another_is_waited_for(connector: Connector) -> None:
    """Else those that waited for a slow limit each, and come back together, are over the fast one they share."""
    timed = Timed()

    def rates(tenant: str, payload: Number) -> list[RateLimit]:
        return [RateLimit(f"own {payload.n % 5}", 2), RateLimit("shared", 20)]

    pipeline = Pipeline([stage("one", timed, concurrency=10, rates=rates)])
    connect = connector(pipeline)
    async with connect() as broker, working(connect, pipeline):
        ids = await add_all(broker, jobs("one", 10))
        for job in ids:
            assert (await until(broker, job, "completed")).attempt == 1
    second = sorted(at for _, at in timed.started)[5:]
    assert second[-1] - second[0] > 0.1, "five of them at 20 a second"


async def test_tokens_nobody_used_in_time_are_no_burst_later(connector: Connector) -> None:
    timed, gap = Timed(), 0.1
    pipeline = Pipeline([stage("one", timed, concurrency=5, rates=lambda *_: [RateLimit("a", 1 / gap)])])
    connect = connector(pipeline)
    async with connect() as broker:
        ids = await add_all(broker, jobs("one", 5))
        async with working(connect, pipeline) as worker:
            await reached(
                lambda: worker.settler.counts["throttled"] == 4, what="the others waiting for their token"
            )
        left = 5 - len(timed.started)
        assert left >= 2, "stopped before their time came"
        await asyncio.sleep(left * gap + 0.3)  # all their times have passed
        async with working(connect, pipeline):
            for job in ids:
                await until(broker, job, "completed")
    late = sorted(at for _, at in timed.started[-left:])
    assert all(after - before > 0.9 * gap for before, after in itertools.pairwise(late))


async def test_waiting_for_a_token_is_waiting_and_no_try(connector: Connector) -> None:
    noted = Noted()
    once = RetryPolicy(attempts=1)
    pipeline = Pipeline([stage("one", noted, retry=once, rates=lambda *_: [RateLimit("a", HOURLY)])])
    connect = connector(pipeline)
    async with connect() as broker, working(connect, pipeline) as worker:
        first, second = await add_all(broker, jobs("one", 2))
        await until(broker, first, "completed")
        while not worker.settler.counts["throttled"]:  # noqa: ASYNC110
            await asyncio.sleep(0.005)
        view = await look(broker, second)
        assert (view.state, view.attempt, view.error) == ("waiting", 0, "")
        found = await status(broker, "one")
        assert (found.waiting, found.active, found.retrying) == (1, 0, 0)
    assert noted.started == [0]


async def test_a_job_may_need_no_token(connector: Connector, asked: list[Tokens]) -> None:
    noted = Noted()
    pipeline = Pipeline([stage("one", noted, rates=lambda _, p: [RateLimit("a", HOURLY)] if p.n == 0 else [])])
    connect = connector(pipeline)
    async with connect() as broker, working(connect, pipeline):
        for job in await add_all(broker, jobs("one", 3)):
            await until(broker, job, "completed")
    assert asked == [(0, 1)]


async def test_a_limited_job_that_failed_asks_again_for_its_next_try(
    connector: Connector, asked: list[Tokens]
) -> None:
    async def flaky(ctx: Context, payload: Number) -> int:
        if ctx.attempt == 1:
            raise OSError("not yet")
        return ctx.attempt

    pipeline = Pipeline([stage("one", flaky, rates=lambda *_: [RateLimit("a", 20)])])
    connect = connector(pipeline)
    async with connect() as broker, working(connect, pipeline):
        job = await add_one(broker, jobs("one", 1)[0])
        assert (await until(broker, job, "completed")).result == 2
    assert len(asked) == 2


async def test_rates_that_raise_are_a_failed_try(connector: Connector) -> None:
    def rates(tenant: str, payload: Number) -> list[RateLimit]:
        raise LookupError("no such account")

    noted = Noted()
    pipeline = Pipeline([stage("one", noted, rates=rates, retry=RetryPolicy(attempts=2, base=0.01))])
    connect = connector(pipeline)
    async with connect() as broker, working(connect, pipeline):
        view = await until(broker, await add_one(broker, jobs("one", 1)[0]), "failed")
        assert (view.reason, view.error) == ("gave up after 2 tries", "LookupError: no such account")
    assert noted.started == []


async def test_a_server_that_gives_no_token_costs_no_try(
    connector: Connector, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def away(*_: object) -> float:
        raise ServerUnavailable("Redis is away")

    monkeypatch.setattr(Broker, "throttle", away)
    pipeline = Pipeline([stage("one", Noted(), rates=lambda *_: [RateLimit("a", 1)])])
    connect = connector(pipeline)
    async with connect() as broker, working(connect, pipeline):
        view = await until(broker, await add_one(broker, jobs("one", 1)[0]), "retrying")
        assert (view.attempt, view.error) == (0, "ServerUnavailable: Redis is away")
