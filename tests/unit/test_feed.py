"""How many events those who want the same get."""

import time

import pytest

from api.hub import Feed

pytestmark = pytest.mark.unit


def test_each_gets_some_events_however_many_share_what_may_pass() -> None:
    feed, began = Feed(), time.monotonic()
    while feed.takes():
        pass
    passed = 0
    for second in range(1, 11):
        feed.allow(began + second, 0.5)
        passed += feed.takes()
    assert passed == 5
