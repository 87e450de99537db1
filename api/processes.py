"""Processes: how each kind runs until it is told to stop, and the trees of them."""

import asyncio
import contextlib
import gc
import logging
import os
import signal
import sys
from collections.abc import Coroutine, Mapping, Sequence
from types import TracebackType
from typing import Any, Never, Self, TypeVar

from api.access import check_exposure, warn_of_plain_keys
from api.adapters import Adapters
from api.app import build_app
from api.exits import CANNOT_START
from api.listening import listening
from api.root import PATIENCE, check, connector, open_broker
from api.schedules import configured_schedules
from api.scraping import scraped
from api.serving import Runner
from api.tls import certificates_of
from config import Settings, SettingsError, child_environment, replaced
from config.metrics import UNMETERED, Metering
from pipeline import Pipeline, RiachoError, Stage, Worker
from pipeline.embedded import EmbeddedServer
from pipeline.errors import EmbeddedServerFailed

log = logging.getLogger(__name__)

T = TypeVar("T")

LAST_PORT = 65_535
# A child that ran this long had started well: its next crash is a new matter, and no wrong setting of ours.
SETTLED_AFTER = 30.0
FIRST_PAUSE = 1.0
LONGEST_PAUSE = 30.0
# Before each time that the embedded server is started again, in seconds: at once first, as webhooks are refused
# without it. After the last it is given up on.
SERVER_PAUSES = (0.0, 1.0, 2.0, 4.0, 8.0)
SERVER_LOOKED_AT_EVERY = 0.1
# What `riacho up` grows: transcription apart and at lower priority, so that it cannot slow down the chat.
UP = {
    "api": ["api", "--with-workers"],
    "worker": [
        "worker",
        "--stages",
        "process-conversation,send-vendor,send-client,fallback,alert,receipt,"
        "tts-cache,conversations,logs,stats,health,products,orders,changed,push-order,proof",
    ],
    "transcriber": ["worker", "--stages", "transcribe", "--nice", "10"],
}


class ChildFailed(RiachoError):
    """A process of the tree could not start."""


def stop_signal(*, with_parent: bool = False) -> asyncio.Event:
    """An event set by SIGTERM, Ctrl-C or a closed terminal and, for a child, when the parent is gone (its
    pipe closes)."""
    stop, loop = asyncio.Event(), asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        loop.add_signal_handler(number, stop.set)
    if with_parent:
        parent = sys.stdin.fileno()

        def parent_gone() -> None:
            loop.remove_reader(parent)
            stop.set()

        loop.add_reader(parent, parent_gone)
    return stop


def collect_seldom() -> None:
    """Have the collector of cyclic garbage leave out what is there now, and look through the rest less often:
    going through all of a process's objects holds up everything for a tenth of a second."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(10_000, 20, 100)


async def run_api(
    settings: Settings, stop: asyncio.Event, *, with_workers: bool = False, metering: Metering = UNMETERED
) -> None:
    """Serve HTTP until stopped; requests under way are answered first. Raises Exposed, NoTls, CannotListen."""
    check_exposure(settings.http)
    warn_of_plain_keys(settings.http)
    certificates = certificates_of(settings.http)
    adapters = Adapters(settings)
    async with (
        open_broker(settings, adapters, patience=PATIENCE) as broker,
        contextlib.aclosing(adapters.database),
    ):
        app = build_app(broker, settings, adapters.notifications.log, with_workers=with_workers, metering=metering)
        async with listening(Runner(app, settings.http), settings.http, certificates):
            collect_seldom()
            await stop.wait()


async def run_worker(
    settings: Settings, stages: Sequence[str], stop: asyncio.Event, metering: Metering = UNMETERED
) -> int:
    """Work the named stages (all, if none is named) until stopped; returns how many jobs would not end."""
    adapters = Adapters(settings)
    pipeline = adapters.pipeline()
    chosen = _chosen(pipeline, stages)
    await check(settings)
    async with adapters.opened(), scraped(settings, metering.registry):
        worker = Worker(
            connector(settings, pipeline),
            chosen,
            lease=settings.worker.lease,
            grace=settings.worker.grace,
            schedules=configured_schedules(settings),
        )
        return await worker.run(stop)


async def run_workers(
    settings: Settings, count: int, stages: Sequence[str], nice: int, stop: asyncio.Event
) -> None:
    """Work the named stages in `count` processes until stopped. Raises ChildFailed when one cannot start."""
    # Looked at here first, so that one line says what is wrong, and not one of each process.
    _chosen(Adapters(settings).pipeline(), stages)
    await check(settings)
    arguments = ["worker", "--stages", ",".join(stages), "--nice", str(nice)]
    workers = {f"worker-{number}": arguments for number in range(1, count + 1)}
    async with ProcessTree(sharing_cores(settings, count), workers) as tree:
        await tree.run_until(stop)


def sharing_cores(settings: Settings, count: int) -> Settings:
    """Settings for one of `count` workers: each alone would take all cores for its transcriptions."""
    if settings.audio.threads:
        return settings
    return replaced(settings, audio={"threads": max(1, (os.cpu_count() or 1) // count)})


def _chosen(pipeline: Pipeline, names: Sequence[str]) -> list[Stage]:
    return [pipeline.stage(name) for name in dict.fromkeys(names)] or list(pipeline)


class Child:
    """A process of ours that is started again when it crashes, after a pause that doubles."""

    def __init__(self, name: str, arguments: Sequence[str], environment: dict[str, str]) -> None:
        self.name = name
        self.crashed = asyncio.Event()
        # -P: a file called api.py in the current folder is not ours.
        self._command = [sys.executable, "-P", "-m", "api", *arguments, "--with-parent"]
        self._environment = environment
        self._process: asyncio.subprocess.Process | None = None
        self._stopping = asyncio.Event()

    async def run(self) -> None:
        """Keep it running until `stop`. Raises ChildFailed where starting it again would not help."""
        loop, pause, had_worked = asyncio.get_running_loop(), FIRST_PAUSE, False
        while not self._stopping.is_set():
            started = loop.time()
            code = await self._run_once()
            if self._stopping.is_set():
                break
            self.crashed.set()
            if loop.time() - started > SETTLED_AFTER:
                pause, had_worked = FIRST_PAUSE, True
            # What had worked before may again, when Redis is back, say.
            if code == CANNOT_START and not had_worked:
                raise ChildFailed(f"the {self.name} process cannot start; the line above says why")
            log.error("%s ended with exit code %d; starting it again in %g s", self.name, code, pause)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), pause)
            pause = min(pause * 2, LONGEST_PAUSE)

    async def _run_once(self) -> int:
        # Its own session: Ctrl-C reaches us alone, and we stop the children in order. The pipe on its
        # standard input is never written to; it closes with us, however we end.
        self._process = await asyncio.create_subprocess_exec(
            *self._command, env=self._environment, stdin=asyncio.subprocess.PIPE, start_new_session=True
        )
        if self._stopping.is_set():  # meanwhile, when there was no process to tell
            self._process.terminate()
        return await self._process.wait()

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process else None

    def kill(self) -> None:
        """End it at once."""
        if self._process and self._process.returncode is None:
            self._process.kill()

    def stop(self) -> None:
        """Ask it to finish."""
        self._stopping.set()
        if self._process and self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                self._process.terminate()


class ProcessTree:
    """Processes of ours while it lasts, by name with their arguments; on leaving, each finishes what it runs."""

    def __init__(
        self,
        settings: Settings,
        processes: Mapping[str, Sequence[str]] = UP,
        variables: Mapping[str, str] | None = None,
    ) -> None:
        environments = _environments(settings, processes, variables or {})
        self._children = [Child(name, arguments, environments[name]) for name, arguments in processes.items()]
        self._patience = settings.worker.grace + 30

    async def __aenter__(self) -> Self:
        self._running = [asyncio.create_task(child.run()) for child in self._children]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for child in self._children:
            child.stop()
        _, late = await asyncio.wait(self._running, timeout=self._patience)
        if late:
            for child in self._children:
                child.kill()
        # Also looks at what went wrong beside the first failure, so that asyncio does not report it.
        await asyncio.gather(*self._running, return_exceptions=True)

    @property
    def pids(self) -> list[int]:
        """Of the processes that run."""
        return [child.pid for child in self._children if child.pid is not None]

    async def run_until(self, stop: asyncio.Event) -> None:
        """Wait for `stop`. Raises ChildFailed as soon as a process cannot start."""
        stopped = asyncio.create_task(stop.wait())
        ended, _ = await asyncio.wait([stopped, *self._running], return_when=asyncio.FIRST_COMPLETED)
        for task in ended:
            task.result()

    async def crash(self) -> None:
        """Wait for the first crash of any process."""
        crashes = [asyncio.create_task(child.crashed.wait()) for child in self._children]
        await asyncio.wait(crashes, return_when=asyncio.FIRST_COMPLETED)


def _environments(
    settings: Settings, processes: Mapping[str, Sequence[str]], variables: Mapping[str, str]
) -> dict[str, dict[str, str]]:
    """What each process is told; of the workers each has a port of its own for its figures. Raises SettingsError
    where there are not enough."""
    shared, port = child_environment(settings, **variables), settings.metrics.port
    workers = [name for name, (kind, *_) in processes.items() if kind == "worker"] if port else []
    if port + len(workers) - 1 > LAST_PORT:
        first = LAST_PORT + 1 - len(workers)
        raise SettingsError(f"RIACHO_METRICS_PORT = {port}: {len(workers)} workers need {first} or less, or 0")
    ports = {name: {"RIACHO_METRICS_PORT": str(port + n)} for n, name in enumerate(workers)}
    return {name: shared | ports.get(name, {}) for name in processes}


async def on_server(server: EmbeddedServer, work: Coroutine[Any, Any, T]) -> T:
    """Do the work, and keep its server running meanwhile. Raises EmbeddedServerFailed, the work cancelled, where
    the server will not run."""
    keeping, working = asyncio.create_task(_keep_running(server)), asyncio.create_task(work)
    await asyncio.wait([keeping, working], return_when=asyncio.FIRST_COMPLETED)
    other = keeping if working.done() else working
    other.cancel()
    await asyncio.wait([other])
    return working.result() if other is keeping else keeping.result()


async def _keep_running(server: EmbeddedServer) -> Never:
    loop, pauses = asyncio.get_running_loop(), iter(SERVER_PAUSES)
    while True:
        started = loop.time()
        while (code := server.exit_code()) is None:  # noqa: ASYNC110 - no event tells of another process
            await asyncio.sleep(SERVER_LOOKED_AT_EVERY)
        if loop.time() - started > SETTLED_AFTER:
            pauses = iter(SERVER_PAUSES)
        pause = next(pauses, None)
        if pause is None:
            raise EmbeddedServerFailed(
                f"the server in {server.folder} ended again and again; {server.folder}/valkey.log may say why"
            )
        log.error("the embedded server ended with exit code %d; starting it again in %g s", code, pause)
        await asyncio.sleep(pause)
        try:
            await asyncio.to_thread(server.start)  # reading its data may take a while
        except EmbeddedServerFailed as error:
            log.error("%s", error)
        else:
            log.warning("the embedded server runs again")
