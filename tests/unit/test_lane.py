"""A lane never runs more than its slots, holds more than its room, or forgets what it holds."""

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import cast

import pytest

from pipeline import Broker, Context, Job, Pipeline, lane
from pipeline.executor import Executor
from pipeline.lane import Lane
from pipeline.message import Delivery, seal
from pipeline.outcome import Ending
from pipeline.settler import Settler
from tests.support import Number, stage

pytestmark = pytest.mark.unit


class Unsettled:
    """Stands where the settler stands, and keeps what it is given."""

    def __init__(self) -> None:
        self.outcomes: list[tuple[Delivery, Ending]] = []

    def come(self, holder: Lane) -> None:
        self.outcomes += holder.take_ended()


class Bench:
    """A lane whose handlers wait for `finish`."""

    def __init__(self, *, concurrency: int, prefetch: int) -> None:
        self.finish = asyncio.Event()
        self.fail_first = False
        self.started: list[int] = []
        self.settler = Unsettled()
        one = stage("one", self._handle, concurrency=concurrency, prefetch=prefetch)
        self.lane = Lane(
            one, Executor(Broker("redis://unused", Pipeline([one])), "a"), cast("Settler", self.settler)
        )

    def take(self, *numbers: int) -> None:
        self.lane.accept(deliveries(*numbers), 0)

    async def _handle(self, ctx: Context, payload: Number) -> None:
        self.started.append(payload.n)
        await self.finish.wait()
        if self.fail_first and ctx.attempt == 1:
            raise OSError("not yet")


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
    assert await bench.lane.reserve() == 5
    bench.lane.accept(deliveries(1, 2, 3, 4), 5)
    await turns()
    assert (bench.started, bench.lane.room()) == ([1, 2], 1)


async def test_what_is_reserved_is_nobody_elses(bench_of: MakeBench) -> None:
    bench = bench_of(2, 3)
    assert await bench.lane.reserve(3) == 2
    assert await bench.lane.reserve(3) == 1
    assert bench.lane.room() == 2
    bench.lane.accept([], 2)
    assert bench.lane.room() == 4


async def test_an_entry_already_held_is_not_started_twice(bench_of: MakeBench) -> None:
    bench = bench_of(5, 0)
    bench.take(1)
    bench.take(1)
    await turns()
    assert bench.started == [1]


async def test_an_entry_is_held_until_it_is_settled_but_its_slot_is_free_before(bench_of: MakeBench) -> None:
    bench = bench_of(1, 0)
    bench.take(1)
    room = asyncio.create_task(bench.lane.reserve())
    bench.finish.set()
    assert await room == 1
    assert list(bench.lane.held[0]) == [b"1-0"]
    assert len(bench.settler.outcomes) == 1
    bench.lane.let_go(bench.settler.outcomes)
    assert not bench.lane.unfinished()


async def test_a_prefetch_is_filled_up_when_half_of_it_is_used(bench_of: MakeBench) -> None:
    bench = bench_of(1, 4)
    bench.take(1, 2, 3, 4)
    room = asyncio.create_task(bench.lane.reserve())
    await turns()
    assert not room.done(), "one runs, three wait: not worth a fetch"
    bench.finish.set()
    assert await room >= 3


async def test_slots_that_are_free_are_fetched_for_while_another_is_busy(bench_of: MakeBench) -> None:
    bench = bench_of(3, 0)
    bench.lane.accept(deliveries(1), await bench.lane.reserve())
    async with asyncio.timeout(5):
        assert await bench.lane.reserve() == 2
    assert bench.started == [1]


async def test_a_closed_lane_has_no_room_wakes_who_waits_for_it_and_starts_nothing(bench_of: MakeBench) -> None:
    bench = bench_of(1, 1)
    bench.take(1, 2)
    waiting = asyncio.create_task(bench.lane.reserve())
    await turns()
    bench.lane.close()
    assert await waiting == 0
    bench.finish.set()
    await turns()
    assert bench.started == [1]


async def test_draining_waits_for_what_runs(bench_of: MakeBench) -> None:
    bench = bench_of(2, 2)
    bench.take(1, 2, 3)
    await turns()
    assert [delivery.entry for delivery in bench.lane.take_unstarted()] == [b"3-0"]
    bench.finish.set()
    assert await bench.lane.drain(5) == []
    assert len(bench.settler.outcomes) == 2


async def test_what_outlasts_the_grace_time_is_cut_off_and_no_longer_held(bench_of: MakeBench) -> None:
    bench = bench_of(1, 0)
    bench.take(1)
    await turns()
    assert [delivery.entry for delivery in await bench.lane.drain(0.01)] == [b"1-0"]
    assert (bench.settler.outcomes, bench.lane.unfinished()) == ([], 0)


async def test_handlers_that_never_wait_are_run_through_by_one_slot_in_order(bench_of: MakeBench) -> None:
    bench = bench_of(10, 200)
    bench.finish.set()
    bench.take(*range(200))
    await turns()
    assert bench.started == list(range(200))
    assert len(bench.settler.outcomes) == 200


async def test_an_entry_that_is_due_again_before_we_know_it_was_parked_is_not_lost(bench_of: MakeBench) -> None:
    bench = bench_of(1, 0)
    bench.fail_first = True
    bench.finish.set()
    bench.take(1)
    await turns()
    assert len(bench.settler.outcomes) == 1
    (again,) = deliveries(1)
    again.attempt = 2
    bench.lane.accept([again], 0)
    bench.lane.let_go(bench.settler.outcomes)
    assert list(bench.lane.held[0]) == [b"1-0"], "it is the second try that is held"
    await turns()
    assert bench.started == [1, 1]


async def test_what_is_not_settled_yet_has_a_bound_too(
    bench_of: MakeBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lane, "MOST_UNSETTLED", 2)
    bench = bench_of(1, 0)
    bench.finish.set()
    bench.take(1, 2, 3)
    room = asyncio.create_task(bench.lane.reserve())
    await turns()
    assert (bench.started, room.done()) == ([1, 2, 3], False)
    bench.lane.let_go(bench.settler.outcomes[:1])
    assert await room == 1
