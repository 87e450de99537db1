"""How long the waits between tries are."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline import RetryPolicy

pytestmark = pytest.mark.unit


def test_three_retries_wait_two_four_and_eight_seconds() -> None:
    policy = RetryPolicy()
    assert [policy.delay(attempt) for attempt in range(1, policy.attempts)] == [2, 4, 8]


@given(st.integers(1, 10**9), st.floats(0, 100), st.floats(1, 10), st.floats(0, 1000), st.floats(0, 1))
def test_a_wait_is_never_over_its_cap_nor_negative(
    attempt: int, base: float, factor: float, cap: float, jitter: float
) -> None:
    wait = RetryPolicy(base=base, factor=factor, cap=cap, jitter=jitter).delay(attempt)
    assert 0 <= wait <= cap


def test_jitter_takes_off_at_most_its_share() -> None:
    waits = {RetryPolicy(base=10, jitter=0.2).delay(1) for _ in range(200)}
    assert 8 <= min(waits) < max(waits) <= 10
