"""For engines whose workers block: processes forked from the contestant's, which end with it however it ends."""

import asyncio
import ctypes
import os
import signal
import threading
import time
from collections.abc import Awaitable, Callable
from mmap import mmap
from multiprocessing import get_context
from multiprocessing.process import BaseProcess

from benchmarks.peers.serving import CONCURRENCY

CORES = min(CONCURRENCY, os.cpu_count() or 1)
THREADS = -(-CONCURRENCY // CORES)  # of each process, to make up the concurrency
PR_SET_PDEATHSIG = 1
LONGEST_STOP = 10.0  # seconds

Settled = Callable[[], None]  # called once a job is settled

_libc = ctypes.CDLL(None)
_line = [os.getpid()]  # of forks, down to this process


def _end_with_parent() -> None:
    _libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != _line[-1]:  # it was gone before we asked
        os._exit(1)
    _line.append(os.getpid())


os.register_at_fork(after_in_child=_end_with_parent)  # in children of children, too


async def settle(
    jobs: int,
    worker: Callable[[Settled], None],
    processes: int = CORES,
    after: Callable[[], Awaitable[None]] | None = None,
) -> float:
    """Seconds from starting so many processes, each of which runs a worker until it is told to end by SIGTERM, to
    so many jobs being settled by all of them, and to what comes `after` that. Raises ChildProcessError if one ends
    before they are."""
    tally = memoryview(mmap(-1, 8 * processes)).cast("q")  # shared: each counts in a place of its own
    reading, writing = os.pipe()
    started = time.perf_counter()
    children = [_fork(worker, tally[number : number + 1], writing) for number in range(processes)]
    try:
        await _readable([reading, *(child.sentinel for child in children)])
        while sum(tally) < jobs:
            await asyncio.sleep(0.001)
            if not all(child.is_alive() for child in children):
                raise ChildProcessError("a worker's process ended before its work")
        if after:
            await after()
        return time.perf_counter() - started
    finally:
        _end(children)
        os.close(reading)
        os.close(writing)


async def _readable(files: list[int]) -> None:
    """Until the first of them is."""
    loop, some = asyncio.get_running_loop(), asyncio.Event()
    for file in files:
        loop.add_reader(file, some.set)
    await some.wait()
    for file in files:
        loop.remove_reader(file)


def _fork(worker: Callable[[Settled], None], count: memoryview, begun: int) -> BaseProcess:
    child = get_context("fork").Process(target=_run, args=(worker, count, begun))
    child.start()
    return child


def _run(worker: Callable[[Settled], None], count: memoryview, begun: int) -> None:
    """In the child. `begun` is told of its first."""
    signal.set_wakeup_fd(-1)  # the parent's loop would hear our signals
    os.dup2(2, 1)  # there go the parent's answers
    lock = threading.Lock()

    def settled() -> None:
        with lock:
            count[0] += 1
            if count[0] == 1:
                os.write(begun, b".")

    worker(settled)


def _end(children: list[BaseProcess]) -> None:
    for child in children:
        child.terminate()
    deadline = time.monotonic() + LONGEST_STOP
    for child in children:
        child.join(max(0.0, deadline - time.monotonic()))
        child.kill()
        child.join()
