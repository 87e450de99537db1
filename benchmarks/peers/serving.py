"""The contestant's side of the commands in `benchmarks.peers`; uvloop is the one library that all of them use."""

import asyncio
import json
import logging
import os
import platform
import statistics
import sys
import time
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from importlib.metadata import version
from mmap import mmap
from typing import Any

import uvloop

CONCURRENCY = int(os.environ.get("BENCHMARK_CONCURRENCY", "100"))  # jobs a worker runs at a time
ATTEMPTS = 4
BACKOFF = float(os.environ.get("BENCHMARK_BACKOFF", "2"))  # seconds before the second attempt, then doubled
FAILURES = 2  # of each job in a storm
TEXT = "two large pizzas for tonight"

Job = dict[str, Any]
Handler = Callable[[int, float], None]  # number and due of a job
Add = Callable[[list[Any]], Coroutine[Any, Any, object]]


def job(number: int, due: float = 0.0) -> Job:
    """The same for every contestant. `due` is on the clock that all processes of a machine share, in seconds."""
    return {"number": number, "text": TEXT, "due": due, "tenant": "shop", "key": f"chat-{number % 1000}"}


def parts(of: Job, count: int) -> list[Job]:
    """What a job adds when it fans out: jobs like itself, their numbers their own."""
    return [job(of["number"] * count + part) for part in range(count)]


@dataclass(frozen=True)
class Contestant:
    """One engine. `work` settles so many jobs, gives each to the handler, which may raise, and returns its
    seconds. `fan_out` works so many jobs, each of which adds so many of another kind, until these are settled;
    what cannot be done is a word of why not."""

    libraries: tuple[str, ...]
    producer: Callable[[str], AbstractAsyncContextManager[Add]]
    work: Callable[[str, int, Handler], Awaitable[float]]
    calls: int  # adds at a time
    job: Callable[[int, float], Any] = job
    fan_out: Callable[[str, int, int], Awaitable[float]] | str = "nobody has written down how it does that"
    retries: str = ""  # why it cannot try again a moment later, if so


class Failure(Exception):
    """What a job in a storm fails with."""


class Countdown:
    """Waits for the last of so many jobs."""

    def __init__(self, count: int) -> None:
        self._left = count
        self._over = asyncio.Event()

    def one(self, *_: object) -> None:
        self._left -= 1
        if not self._left:
            self._over.set()

    async def wait(self) -> None:
        await self._over.wait()


def serve(contestant: Contestant) -> None:
    """Answer commands until there are no more; the server's URL is the only argument. Nobody logs: in a storm some
    would write a traceback for each try, and others nothing."""
    logging.disable()
    say({"python": platform.python_version()} | {library: version(library) for library in contestant.libraries})
    session = Session(contestant, sys.argv[1])
    for line in sys.stdin:
        command, *numbers = line.split()
        say(uvloop.run(getattr(session, command)(*map(int, numbers))))


def say(answer: object) -> None:
    print(json.dumps(answer), flush=True)  # noqa: T201 - the protocol


class Session:
    """A method a command. What handlers note is shared memory: they may run in processes that were forked."""

    def __init__(self, contestant: Contestant, url: str) -> None:
        self._contestant = contestant
        self._url = url

    async def add(self, jobs: int, bulk: int) -> float:
        calls = iter(range(jobs // bulk))
        async with self._contestant.producer(self._url) as add:

            async def caller() -> None:
                for call in calls:
                    await add([self._contestant.job(call * bulk + number, 0.0) for number in range(bulk)])

            started = time.perf_counter()
            await asyncio.gather(*(caller() for _ in range(self._contestant.calls)))
            return time.perf_counter() - started

    async def work(self, jobs: int) -> float:
        return await self._contestant.work(self._url, jobs, lambda *_: None)

    async def latency(self, jobs: int) -> list[float]:
        latencies = memoryview(mmap(-1, 8 * jobs)).cast("d")

        def timed(number: int, due: float) -> None:
            latencies[number] = (time.perf_counter() - due) * 1000

        await self._contestant.work(self._url, jobs, timed)
        return [statistics.median(latencies), statistics.quantiles(latencies, n=100)[98]]

    async def storm(self, jobs: int) -> Any:
        """Each fails twice."""
        if self._contestant.retries:
            return {"cannot": self._contestant.retries}
        tries = mmap(-1, jobs)  # a byte each

        def failing(number: int, _: float) -> None:
            tries[number] += 1
            if tries[number] <= FAILURES:
                raise Failure

        return await self._contestant.work(self._url, jobs, failing)

    async def fan_out(self, jobs: int, children: int) -> Any:
        fan_out = self._contestant.fan_out
        return {"cannot": fan_out} if isinstance(fan_out, str) else await fan_out(self._url, jobs, children)

    async def produce(self, jobs: int, rate: int) -> float:
        """In ticks of a millisecond; a call that takes long holds up no other."""
        async with self._contestant.producer(self._url) as add, asyncio.TaskGroup() as adding:
            started, sent = time.perf_counter(), 0
            while sent < jobs:
                now = min(jobs, int((time.perf_counter() - started) * rate))
                if now > sent:
                    due = [self._contestant.job(number, started + number / rate) for number in range(sent, now)]
                    adding.create_task(add(due))
                    sent = now
                await asyncio.sleep(0.001)
        return time.perf_counter() - started
