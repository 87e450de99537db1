"""The process tree's children: started again when they crash, given up on when they never could start."""

import asyncio
import gc
import os
import sys
from pathlib import Path

import pytest

from api import processes
from api.exits import CANNOT_START, SERVER_AWAY
from api.processes import Child, ChildFailed, ProcessTree
from config import load
from tests.support import eventually

pytestmark = pytest.mark.faults

# Ends as the next line of a file says: after so many seconds, with this exit code.
SCRIPTED = """
import pathlib, sys, time
plan = pathlib.Path(sys.argv[1])
first, *rest = plan.read_text().splitlines()
left = plan.with_suffix(".left")
left.write_text("\\n".join(rest))
left.replace(plan)  # whoever reads it meanwhile sees all of it
seconds, code = first.split()
time.sleep(float(seconds))
sys.exit(int(code))
"""


@pytest.fixture
def plan(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(processes, "FIRST_PAUSE", 0.01)
    monkeypatch.setattr(processes, "SETTLED_AFTER", 0.5)
    return tmp_path / "plan"


def scripted(plan: Path, *runs: str) -> Child:
    plan.write_text("\n".join(runs))
    child = Child("scripted", [], dict(os.environ))
    child._command = [sys.executable, "-c", SCRIPTED, str(plan)]
    return child


async def test_a_child_that_cannot_start_is_given_up_on(plan: Path) -> None:
    with pytest.raises(ChildFailed, match="the scripted process cannot start"):
        await scripted(plan, f"0 {CANNOT_START}", "60 0").run()
    assert plan.read_text() == "60 0", "it was not started again"


async def test_a_child_that_finds_the_server_away_is_started_again(plan: Path) -> None:
    child = scripted(plan, f"0 {SERVER_AWAY}", "60 0")
    running = asyncio.create_task(child.run())

    async def started_again() -> bool:
        return plan.read_text() == ""

    await eventually(started_again)
    child.stop()
    await asyncio.wait_for(running, 20)


async def test_a_child_that_had_worked_is_started_again_whatever_it_ends_with(plan: Path) -> None:
    child = scripted(plan, "0.6 1", f"0 {CANNOT_START}", "0 1", "60 0")
    running = asyncio.create_task(child.run())

    async def started_for_the_fourth_time() -> bool:
        return plan.read_text() == ""

    await eventually(started_for_the_fourth_time)
    assert child.crashed.is_set()
    child.stop()
    await asyncio.wait_for(running, 20)


async def test_a_child_stopped_while_it_is_being_started_ends_too(plan: Path) -> None:
    child = scripted(plan, "60 0")
    running = asyncio.create_task(child.run())
    await asyncio.sleep(0)  # the spawn is under way, and there is no process to tell
    child.stop()
    await asyncio.wait_for(running, 20)


async def test_of_children_that_all_cannot_start_one_is_reported(
    plan: Path, caplog: pytest.LogCaptureFixture
) -> None:
    tree = ProcessTree(load(environ={}))
    tree._children = [scripted(plan.with_name(name), f"0 {CANNOT_START}") for name in ("first", "second")]
    async with tree:
        await asyncio.wait(tree._running)
        with pytest.raises(ChildFailed):
            await tree.run_until(asyncio.Event())
    del tree
    gc.collect()
    assert "never retrieved" not in caplog.text
