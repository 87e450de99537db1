"""The open loop: what is due is sent when it is due, and counts from then, whatever earlier ones do."""

import asyncio
import selectors
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.parts.openloop import Due, Latencies, Offer, Pace, offer

pytestmark = pytest.mark.unit


class Idle(selectors.DefaultSelector):
    """Lets time pass at once instead of sleeping."""

    now = 0.0

    def select(self, timeout: float | None = None) -> Any:
        self.now += timeout or 0.0
        return super().select(0)


class Virtual(asyncio.SelectorEventLoop):
    """A loop in which a second takes no time, but for `block`."""

    def __init__(self) -> None:
        self._idle = Idle()
        super().__init__(self._idle)

    def time(self) -> float:
        return self._idle.now

    def block(self, seconds: float) -> None:
        """As code does that never awaits."""
        self._idle.now += seconds


def run(pace: Pace, send: Callable[[Virtual, Due], Any], at_once: int = 100) -> Offer:
    """Offer to a target, on a virtual loop."""

    async def main() -> Offer:
        return await offer(pace, lambda due: send(loop, due), at_once, loop.time)

    loop = Virtual()
    with asyncio.Runner(loop_factory=lambda: loop) as runner:
        return runner.run(main())


class OneByOne:
    """A target that does one thing at a time, each for its number of seconds."""

    def __init__(self, services: Sequence[float]) -> None:
        self._services = services
        self._free = asyncio.Lock()

    async def __call__(self, _: Virtual, due: Due) -> None:
        async with self._free:
            await asyncio.sleep(self._services[due.number])


def waits(services: Sequence[float], rate: float) -> list[float]:
    """From when each is due until it is done, one after the other."""
    found, free = [], 0.0
    for number, service in enumerate(services):
        free = max(free, number / rate) + service
        found.append(free - number / rate)
    return found


def recorded(seconds: Sequence[float]) -> Latencies:
    latencies = Latencies()
    for each in seconds:
        latencies.record(each)
    return latencies


@given(
    st.lists(st.integers(0, 300).map(lambda ms: ms / 1000), min_size=1, max_size=60),
    st.sampled_from([5, 20, 100]),
    st.sampled_from([1, 3, 100]),
)
def test_each_counts_for_all_the_time_since_it_was_due(services: list[float], rate: int, at_once: int) -> None:
    found = run(Pace(rate, len(services) / rate), OneByOne(services), at_once)
    expected = recorded(waits(services, rate))
    assert len(found.latencies) == len(services)
    for percentile in (10, 50, 90, 99, 100):
        assert found.latencies.ms(percentile) == pytest.approx(expected.ms(percentile), rel=0.003, abs=0.01)


@pytest.mark.parametrize("at_once", [1, 100])
def test_a_stall_counts_for_all_that_it_held_up(at_once: int) -> None:
    """A second in which nothing is answered, at 100 a second: they take from a second down to nothing."""
    services = [1.0 if number == 100 else 0.0 for number in range(400)]
    found = run(Pace(100, 4), OneByOne(services), at_once)
    assert found.latencies.ms(75) < 20
    assert found.latencies.ms(87.5) == pytest.approx(500, abs=20)
    assert found.latencies.ms(100) == pytest.approx(1000, abs=2)
    assert found.behind.ms(100) < 1, "it was the target that stalled"


def test_what_is_due_is_sent_whatever_was_not_answered() -> None:
    sent: list[float] = []

    async def never_soon(loop: Virtual, due: Due) -> None:
        sent.append(loop.time())
        await asyncio.sleep(60)

    run(Pace(10, 2), never_soon)
    assert sent == pytest.approx([number / 10 for number in range(20)], abs=0.002)


def test_no_more_than_so_many_are_under_way() -> None:
    under_way = most = 0

    async def count(loop: Virtual, due: Due) -> None:
        nonlocal under_way, most
        under_way += 1
        most = max(most, under_way)
        await asyncio.sleep(0.5)
        under_way -= 1

    found = run(Pace(100, 1), count, at_once=7)
    assert most == 7
    assert found.latencies.ms(100) > 6_000, "what waits for its turn counts from when it was due"


def test_what_the_load_generator_was_late_with_is_told_and_counts() -> None:
    async def blocking_once(loop: Virtual, due: Due) -> None:
        if due.number == 50:
            loop.block(0.3)

    found = run(Pace(100, 2), blocking_once)
    assert found.behind.ms(100) == pytest.approx(290, abs=2)
    assert found.latencies.ms(100) == pytest.approx(300, abs=2)
    assert found.figures()["generator_behind_p99_ms"] > 200


def test_warm_up_is_sent_and_not_recorded() -> None:
    numbers: list[int] = []

    async def slow_at_first(loop: Virtual, due: Due) -> None:
        numbers.append(due.number)
        await asyncio.sleep(0.4 if due.number < 50 else 0.001)

    found = run(Pace(100, 1, warm_up=0.5), slow_at_first)
    assert numbers == list(range(150))
    assert len(found.latencies) == len(found.behind) == 100
    assert found.latencies.ms(100) < 5


def test_a_failure_ends_it() -> None:
    async def refused(loop: Virtual, due: Due) -> None:
        raise ConnectionError("refused")

    with pytest.raises(ExceptionGroup) as failed:
        run(Pace(10, 10), refused)
    assert "refused" in repr(failed.value.exceptions)


def test_latencies_have_three_digits_and_never_get_lost() -> None:
    found = recorded([0.0123456, 0.5, 1e9, -1.0])
    assert len(found) == 4
    assert found.ms(50) == pytest.approx(12.3456, rel=0.001)
    assert found.ms(100) == pytest.approx(3_600_000, rel=0.001)


def test_there_is_a_p99_where_it_is_not_just_the_longest() -> None:
    assert recorded([]).figures() == {}
    assert recorded([0.001] * 99).figures() == pytest.approx({"p50_ms": 1, "max_ms": 1})
    assert recorded([0.001] * 99 + [1]).figures() == pytest.approx(
        {"p50_ms": 1, "p99_ms": 1, "max_ms": 1000}, rel=0.01
    )
