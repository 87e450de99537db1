"""Many small writes in one: who goes with whom, and who is told what."""

import asyncio
from collections.abc import Sequence

import pytest

from stages.store import StoreUnavailable, WriteRefused
from stages.store.group import GroupCommit
from tests.support import reached

pytestmark = pytest.mark.unit


class Writing:
    """A write that takes until it is told to go on, refuses what is in `refused`, and fails where it is `away`."""

    def __init__(self) -> None:
        self.begun: list[list[int]] = []
        self.written: list[int] = []
        self.refused: set[int] = set()
        self.away = False
        self.go_on = asyncio.Event()

    async def __call__(self, items: Sequence[int]) -> None:
        self.begun.append(list(items))
        await self.go_on.wait()
        if self.away:
            raise StoreUnavailable("away")
        if refused := self.refused & set(items):
            raise WriteRefused(f"refused {refused}")
        self.written += items


@pytest.fixture
def writing() -> Writing:
    return Writing()


@pytest.fixture
def group(writing: Writing) -> GroupCommit[int]:
    return GroupCommit(writing, 4)


async def callers(group: GroupCommit[int], *several: list[int]) -> list[asyncio.Task[None]]:
    """They call in this order, the first one's write being under way when the others come."""
    tasks = [asyncio.create_task(group.write(items)) for items in several]
    await asyncio.sleep(0)
    return tasks


async def test_what_comes_meanwhile_goes_together_in_the_next(group: GroupCommit[int], writing: Writing) -> None:
    first = await callers(group, [1])
    await reached(lambda: writing.begun)
    others = await callers(group, [2, 3], [4])
    assert writing.begun == [[1]]
    writing.go_on.set()
    await asyncio.gather(*first, *others)
    assert writing.begun == [[1], [2, 3, 4]]


async def test_a_write_has_a_bound_unless_one_caller_has_more(group: GroupCommit[int], writing: Writing) -> None:
    tasks = await callers(group, [1, 2, 3], [4, 5], [6, 7], [8], [10, 11, 12, 13, 14])
    writing.go_on.set()
    await asyncio.gather(*tasks)
    assert writing.begun == [[1, 2, 3], [4, 5, 6, 7], [8], [10, 11, 12, 13, 14]]


async def test_ones_error_is_not_told_to_another(group: GroupCommit[int], writing: Writing) -> None:
    writing.refused = {2}
    tasks = await callers(group, [1], [2, 9], [3])
    writing.go_on.set()
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert [type(result) for result in results] == [type(None), WriteRefused, type(None)]
    assert writing.written == [1, 3]


async def test_a_database_that_is_away_is_asked_once_for_all(group: GroupCommit[int], writing: Writing) -> None:
    writing.away = True
    tasks = await callers(group, [1], [2], [3])
    writing.go_on.set()
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert [str(result) for result in results] == ["away"] * 3
    assert writing.begun == [[1, 2, 3]]
    writing.away = False
    await group.write([4])
    assert writing.written == [4]


async def test_of_who_was_cancelled_before_its_turn_nothing_is_written(
    group: GroupCommit[int], writing: Writing
) -> None:
    first = await callers(group, [1])
    await reached(lambda: writing.begun)
    gone, stays = await callers(group, [2], [3])
    gone.cancel()
    await asyncio.wait({gone})
    writing.go_on.set()
    await asyncio.gather(*first, stays)
    assert writing.written == [1, 3]


async def test_who_is_cancelled_under_way_keeps_nobody_else_from_being_written(
    group: GroupCommit[int], writing: Writing
) -> None:
    gone, stays = await callers(group, [1], [2])
    await reached(lambda: writing.begun)
    gone.cancel()
    await asyncio.wait({gone})
    writing.go_on.set()
    await stays
    await group.settled()
    assert writing.written == [1, 2]
    assert gone.cancelled()


async def test_it_is_settled_when_nothing_is_under_way(
    group: GroupCommit[int], writing: Writing, monkeypatch: pytest.MonkeyPatch
) -> None:
    await group.settled()
    (task,) = await callers(group, [1])
    settled = asyncio.create_task(group.settled())
    await reached(lambda: writing.begun)
    assert not settled.done()
    writing.go_on.set()
    await settled
    await task


async def test_a_write_that_does_not_end_is_cut_off(
    group: GroupCommit[int], writing: Writing, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("stages.store.group.LAST_WRITE", 0.01)
    (task,) = await callers(group, [1])
    await reached(lambda: writing.begun)
    async with asyncio.timeout(5):
        await group.settled()
        with pytest.raises(StoreUnavailable, match="closed"):
            await task
