"""Workers of peers that block, each in a process of its own: counted, missed when it ends, and never orphans."""

import sys
import time
from pathlib import Path

import psutil
import pytest

from benchmarks.peers.environments import Command, Unavailable
from benchmarks.peers.process import Process

pytestmark = pytest.mark.unit

NOWHERE = "unix:///nowhere"
ROOT = Path(__file__).parents[2]
CONTESTANT = """
import asyncio, json, os, signal
from benchmarks.peers.forking import settle
print('{}', flush=True)
"""


def contestant(code: str) -> Process:
    return Process(Command((sys.executable, "-c", CONTESTANT + code), ROOT), NOWHERE)


def test_what_all_of_them_settled_counts_and_they_end_after_it() -> None:
    code = """
from concurrent.futures import ThreadPoolExecutor
def worker(settled):
    print('no answer of ours')
    with ThreadPoolExecutor(8) as threads:
        for _ in range(1000):
            threads.submit(settled)
    signal.pause()
took = asyncio.run(settle(2000, worker, 2))
try:
    os.waitpid(-1, 0)
except ChildProcessError:
    print(json.dumps(took), flush=True)
"""
    with contestant(code) as process:
        assert 0 < process.answer() < 10


def test_what_comes_after_the_last_is_in_the_time_and_the_workers_are_there_for_it() -> None:
    code = """
def worker(settled):
    settled()
    signal.pause()
async def after():
    await asyncio.sleep(0.5)
    print(json.dumps(len(psutil.Process().children())), flush=True)
print(json.dumps(asyncio.run(settle(2, worker, 2, after))), flush=True)
"""
    with contestant("import psutil\n" + code) as process:
        assert process.answer() == 2
        assert process.answer() >= 0.5


def test_one_that_ends_early_is_missed() -> None:
    code = "asyncio.run(settle(2, lambda settled: settled(), 1))"
    with contestant(code) as process, pytest.raises(Unavailable, match="a worker's process ended before its work"):
        process.answer()


def test_whoever_kills_the_contestant_leaves_none_of_them_nor_what_they_forked() -> None:
    code = """
def worker(settled):
    os.fork()
    signal.pause()
asyncio.run(settle(1, worker, 2))
"""
    with contestant(code) as process:
        while len(forked := psutil.Process(process.pid).children(recursive=True)) < 4:
            time.sleep(0.01)
    deadline = time.monotonic() + 10
    while any(_runs(each) for each in forked):
        assert time.monotonic() < deadline
        time.sleep(0.01)


def _runs(process: psutil.Process) -> bool:
    """Nobody may be there to wait for it."""
    try:
        return bool(process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False
