"""Rates and states from counters, whatever these do."""

import asyncio
from collections.abc import Sequence
from typing import cast

import pytest

from api.load import drain_seconds
from api.watching import Shared, Watch
from pipeline import Broker, Pipeline
from pipeline.backpressure import Memory
from pipeline.flow import SPACING, WINDOW, Count, Meter, Place, Rates, Totals, worst
from pipeline.views import StageAges, StageStatus
from tests.support import reached, stage, unused

pytestmark = pytest.mark.unit

STAGE = stage("one", unused, high_water=100)


def noted(*moments: tuple[float, int, int], meter: Meter | None = None) -> Meter:
    """A meter that was told of these: time, jobs ever added, jobs ever finished."""
    meter = meter or Meter()
    for at, added, finished in moments:
        meter.note(at, {("one", 0): Count(added, added - finished, -1, 0)})
    return meter


def test_rates_are_means_over_the_time_asked_for() -> None:
    meter = noted(*((float(at), 1000 + 10 * at, 3 * at) for at in range(0, 600, 2)))
    assert meter.rates(60)["one"] == meter.rates(300)["one"] == Rates(10, 3)
    meter = noted((600.0, 7000, 3000), meter=meter)
    assert meter.rates(60)["one"].into == pytest.approx((7000 - (1000 + 5400)) / 60)
    assert meter.rates(300)["one"].out == pytest.approx((3000 - 900) / 300)


def test_they_are_over_as_long_as_anybody_has_watched() -> None:
    assert Meter().rates(60) == {}
    meter = noted((50.0, 1000, 500))
    assert meter.rates(60)["one"] == Rates(0, 0), "what was before counts for nothing"
    assert noted((52.0, 1020, 510), meter=meter).rates(60)["one"] == Rates(10, 5)


def test_after_a_pause_in_watching_they_are_over_the_whole_of_it() -> None:
    meter = noted((0.0, 0, 0), (200.0, 400, 100))
    assert meter.rates(60)["one"] == Rates(2, 0.5)


@pytest.mark.parametrize("left", [(0, 0), (5, 5), (990, 480), (1000, 480)])
def test_counters_that_go_back_make_no_rate_negative_and_no_total_smaller(left: tuple[int, int]) -> None:
    meter = noted((0.0, 990, 490), (10.0, 1000, 500), (12.0, *left))
    assert meter.totals("one") == Totals(1000, 500)
    assert meter.rates(60)["one"] == Rates(10 / 12, 10 / 12)
    noted((14.0, left[0] + 7, left[1] + 3), meter=meter)
    assert meter.totals("one") == Totals(1007, 503)


def test_partitions_are_added_up_and_looked_at_one_by_one() -> None:
    meter = Meter()
    meter.note(0, {("one", 0): Count(1000, 0, -1, 0), ("one", 1): Count(10, 0, -1, 0)})
    meter.note(10, {("one", 0): Count(0, 0, -1, 0), ("one", 1): Count(30, 10, -1, 0)})
    assert meter.rates(60)["one"] == Rates(2, 1)
    assert meter.totals("one") == Totals(1030, 1020)


def test_what_is_kept_is_bounded_however_often_it_is_told() -> None:
    meter = noted(*((at / 10, at, at) for at in range(10_000)))
    assert WINDOW / SPACING <= len(meter._kept) <= WINDOW / SPACING + 2
    assert meter.rates(300)["one"].into == pytest.approx(10)
    noted((0.5, 0, 0), meter=meter)  # an answer that comes late
    assert meter.totals("one") == Totals(9999, 9999)


@pytest.mark.parametrize(
    ("unfinished", "opens_at", "expected"),
    [
        (90, -1, "ok"),
        (90, 90, "ok"),
        (91, -1, "throttling"),
        (91, 90, "shedding"),
        (99, -1, "throttling"),
        (100, -1, "shedding"),
        (120, 90, "shedding"),
    ],
)
def test_a_stage_says_whether_it_would_take_a_job_now(unfinished: int, opens_at: int, expected: str) -> None:
    assert Count(500, unfinished, opens_at, 0).pressure(STAGE) == expected


def test_the_worst_of_several_counts() -> None:
    assert worst(["ok", "shedding", "throttling"]) == "shedding"
    assert worst([]) == "ok"


def test_it_drains_as_fast_as_more_goes_out_than_comes_in() -> None:
    assert drain_seconds(100, Rates(5, 15)) == 10
    assert drain_seconds(100, Rates(15, 15)) is None
    assert drain_seconds(0, Rates(15, 5)) == 0


async def test_who_asks_at_the_same_time_shares_an_answer_and_a_failure() -> None:
    asked: list[int] = []
    answers: list[asyncio.Future[int]] = []

    async def ask() -> int:
        asked.append(len(asked))
        answers.append(asyncio.get_running_loop().create_future())
        return await answers[-1]

    async def all_of(shared: Shared[int], answer: int | Exception) -> Sequence[object]:
        waiting = [asyncio.create_task(shared.get()) for _ in range(200)]
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        waiting[0].cancel()
        if isinstance(answer, Exception):
            answers[-1].set_exception(answer)
        else:
            answers[-1].set_result(answer)
        return await asyncio.gather(*waiting[1:], return_exceptions=True)

    shared = Shared(ask, fresh=60)
    failed = OSError("away")
    assert set(await all_of(shared, failed)) == {failed}
    assert set(await all_of(shared, 7)) == {7}
    assert await shared.get() == 7
    assert len(asked) == 2
    await shared.close()


class Slow:
    """A broker on which counting goes through at once, and the rest of a look later."""

    pipeline = Pipeline([STAGE])

    def __init__(self) -> None:
        self.added = 0
        self.rest = asyncio.Event()

    async def flow(self) -> dict[Place, Count]:
        self.added += 10
        return {("one", 0): Count(self.added, 0, -1, 0)}

    async def memory(self) -> Memory:
        await self.rest.wait()
        return Memory(1, 2, full=False)

    async def status(self) -> list[StageStatus]:
        return [StageStatus("test", "one")]

    async def ages(self) -> dict[str, StageAges]:
        return {"one": StageAges(None, None)}

    async def workers(self, silent: float) -> dict[str, int]:
        return {"one": 0}


async def test_a_look_that_ends_after_a_later_count_counts_nothing_twice() -> None:
    broker = Slow()
    watch = Watch(cast("Broker", broker), 1.0)
    looking = asyncio.create_task(watch.seen())
    await reached(lambda: broker.added)
    await watch.count()
    broker.rest.set()
    assert (await looking).totals["one"].added == 20
    assert (await watch.seen()).totals["one"].added == 20
    await watch.count()
    assert watch._meter.totals("one").added == 30
