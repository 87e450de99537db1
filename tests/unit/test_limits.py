"""How many requests a caller may make."""

import pytest

from api.limits import FORGET_EVERY, Limit

pytestmark = pytest.mark.unit


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def taken(limit: Limit, caller: str, asked: int) -> int:
    return sum(limit.wait(caller) == 0 for _ in range(asked))


def test_without_a_limit_any_number_is_taken() -> None:
    assert taken(Limit(0.0, Clock()), "a", 1_000) == 1_000


@pytest.mark.parametrize(("rate", "burst"), [(10.0, 10), (1.0, 1), (0.5, 1), (3.0, 3)])
def test_a_seconds_worth_is_taken_at_once_and_then_as_it_comes(rate: float, burst: int) -> None:
    clock = Clock()
    limit = Limit(rate, clock)
    assert taken(limit, "a", 100) == burst
    assert limit.wait("a") == pytest.approx(1 / rate)
    clock.now += 1.001 / rate
    assert taken(limit, "a", 100) == 1
    clock.now += 3_600
    assert taken(limit, "a", 100) == burst, "rest is not saved up"


def test_callers_have_limits_of_their_own_and_are_forgotten() -> None:
    clock = Clock()
    limit = Limit(2.0, clock)
    assert [taken(limit, f"caller-{n}", 5) for n in range(100)] == [2] * 100
    clock.now += FORGET_EVERY + 1
    limit.wait("another")
    assert list(limit._paid_until) == ["another"]
