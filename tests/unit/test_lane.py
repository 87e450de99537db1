"""A lane never runs more than its slots, holds more than its room, or forgets what it holds."""

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any, cast

import pytest

from pipeline import Context, Job, Pipeline
from pipeline.executor import Executor
from pipeline.lane import Lane
from pipeline.message import Delivery, seal
from pipeline.settler import Settler
from tests.support import Number, stage

pytestmark = pytest.mark.unit


class Unsettled:
    """Stands where the settler stands, and keeps what it is given."""

    def __init__(self) -> None:
        self.outcomes: list[tuple[Delivery, Any]] = []

    def put(self, _: object, delivery: Delivery, __: object, settled: Any) -> None:
        self.outcomes.append((delivery, settled))


class Bench:
    """A lane whose handlers wait for `finish`."""

    def __init__(self, *, concurrency: int, prefetch: int) -> None:
        self.finish = asyncio.Event()
        self.started: list[int] = []
        self.settler = Unsettled()
        one = stage("one", self._handle, concurrency=concurrency, prefetch=prefetch)
        self.lane = Lane(one, Executor(Pipeline([one])), cast("Settler", self.settler))

    async def _handle(self, ctx: Context, payload: Number) -> None:
        self.started.append(payload.n)
        await self.finish.wait()


MakeBench = Callable[[int, int], Bench]


@pytest.fixture
async def bench_of() -> AsyncIterator[MakeBench]:
    """Makes benches, and lets what runs on them end with the test."""
    benches: list[Bench] = []

    def make(concurrency: int, prefetch: int) -> Bench:
        benches.append(Bench(concurrency=concurrency, prefetch=prefetch))
        return benches[-1]

    yield make
    for bench in benches:
        bench.lane.take_unstarted()
        bench.finish.set()
        await bench.lane.drain(5)


async def turns() -> None:
    """Let everything run that can: more turns of the loop than there are slots."""
    for _ in range(20):
        await asyncio.sleep(0)


def deliveries(*numbers: int) -> list[Delivery]:
    return [Delivery("one", 0, f"{n}-0".encode(), seal(Job(stage="one", payload=Number(n))), 1) for n in numbers]


async def test_only_as_many_run_as_there_are_slots(bench_of: MakeBench) -> None:
    bench = bench_of(2, 3)
    assert bench.lane.room() == 5
    assert bench.lane.accept(deliveries(1, 2, 3, 4)) == []
    await turns()
    assert (bench.started, bench.lane.room()) == ([1, 2], 1)


async def test_what_there_is_no_room_for_is_given_back_newest_first(bench_of: MakeBench) -> None:
    bench = bench_of(1, 1)
    back = bench.lane.accept(deliveries(1, 2, 3, 4))
    assert [delivery.entry for delivery in back] == [b"4-0", b"3-0"]
    assert set(bench.lane.held) == {(0, b"1-0"), (0, b"2-0")}


async def test_an_entry_already_held_is_not_started_twice(bench_of: MakeBench) -> None:
    bench = bench_of(5, 0)
    bench.lane.accept(deliveries(1))
    assert bench.lane.accept(deliveries(1)) == []
    await turns()
    assert bench.started == [1]


async def test_an_entry_is_held_until_it_is_settled_but_its_slot_is_free_before(bench_of: MakeBench) -> None:
    bench = bench_of(1, 0)
    bench.lane.accept(deliveries(1))
    room = asyncio.create_task(bench.lane.wait_for_room())
    bench.finish.set()
    assert await room == 1
    assert set(bench.lane.held) == {(0, b"1-0")}
    ((delivery, settled),) = bench.settler.outcomes
    settled(delivery)
    assert not bench.lane.held


async def test_a_closed_lane_has_no_room_and_wakes_who_waits_for_it(bench_of: MakeBench) -> None:
    bench = bench_of(1, 0)
    bench.lane.accept(deliveries(1))
    waiting = asyncio.create_task(bench.lane.wait_for_room())
    await turns()
    bench.lane.close()
    assert await waiting == 0


async def test_draining_waits_for_what_runs_and_counts_what_does_not_end(bench_of: MakeBench) -> None:
    bench = bench_of(2, 2)
    bench.lane.accept(deliveries(1, 2, 3))
    await turns()
    assert [delivery.entry for delivery in bench.lane.take_unstarted()] == [b"3-0"]
    bench.finish.set()
    assert await bench.lane.drain(5) == ([], 0)
    assert len(bench.settler.outcomes) == 2


async def test_what_outlasts_the_grace_time_is_cut_off_and_no_longer_held(bench_of: MakeBench) -> None:
    bench = bench_of(1, 0)
    bench.lane.accept(deliveries(1))
    await turns()
    cut_off, stuck = await bench.lane.drain(0.01)
    assert ([delivery.entry for delivery in cut_off], stuck) == ([b"1-0"], 0)
    assert (bench.settler.outcomes, bench.lane.held) == ([], {})
