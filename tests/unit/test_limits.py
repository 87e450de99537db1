"""How many requests a caller may make."""

import pytest

from api.access import Access
from api.limits import FORGET_EVERY, MOST_CALLERS, Limit, place_of
from api.problems import Problem
from config import load

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


def test_a_burst_may_be_longer_than_a_second() -> None:
    clock = Clock()
    limit = Limit(20 / 60, clock, burst=60.0)
    assert taken(limit, "a", 100) == 20
    clock.now += 3.001
    assert taken(limit, "a", 100) == 1


def test_however_many_callers_come_only_so_many_are_kept_in_mind() -> None:
    limit = Limit(0.01, Clock())
    for n in range(MOST_CALLERS):
        limit.wait(f"caller-{n}")
    assert limit.wait("caller-0") > 0
    assert limit.wait("one-more") == 0
    assert len(limit._paid_until) == MOST_CALLERS
    assert limit.wait("caller-0") == 0, "it was forgotten"
    assert limit.wait("one-more") > 0


@pytest.mark.parametrize(
    ("address", "place"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:db8:1:2::1", "2001:db8:1:2::/64"),
        ("2001:db8:1:3::1", "2001:db8:1:3::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("", ""),
        ("@abstract", "@abstract"),
    ],
)
def test_an_ipv6_network_is_one_caller(address: str, place: str) -> None:
    assert place_of(address) == place


@pytest.mark.parametrize(("rate", "said"), [("0.01", "100 s"), ("0.04", "25 s"), ("4", "1 s")])
def test_how_long_to_wait_is_said_in_plain_figures(rate: str, said: str) -> None:
    access = Access(load({"http": {"requests_per_second": rate}}, environ={}).http)
    for _ in range(max(1, int(float(rate)))):
        access.count("somebody")
    with pytest.raises(Problem) as raised:
        access.count("somebody")
    assert f"try again in {said}" in raised.value.detail
    assert said == f"{raised.value.headers['Retry-After']} s"
