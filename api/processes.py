"""Processes: how each kind runs until it is told to stop, and the tree that `riacho up` grows."""

import asyncio
import contextlib
import logging
import os
import signal
import sys
from collections.abc import AsyncIterator, Sequence

from aiohttp import web

from api.app import build_app
from api.root import Adapters, check, connector, open_broker
from config import Settings, child_environment
from pipeline import RiachoError, Worker

log = logging.getLogger(__name__)

# A child that ran this long had started well: its next crash is a new matter.
SETTLED_AFTER = 30.0
LONGEST_PAUSE = 30.0
# The embedded tree: transcription apart and at lower priority, so that it cannot slow down the chat.
TREE = {
    "api": ["api"],
    "worker": ["worker", "--stages", "process-conversation,send-client"],
    "transcriber": ["worker", "--stages", "transcribe", "--nice", "10"],
}


class CannotListen(RiachoError):
    """The address is taken, or not ours."""


def stop_signal(*, with_parent: bool = False) -> asyncio.Event:
    """An event set by SIGTERM or Ctrl-C and, for a child, when the parent is gone (its pipe closes)."""
    stop, loop = asyncio.Event(), asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    if with_parent:
        parent = sys.stdin.fileno()

        def parent_gone() -> None:
            loop.remove_reader(parent)
            stop.set()

        loop.add_reader(parent, parent_gone)
    return stop


async def run_api(settings: Settings, stop: asyncio.Event) -> None:
    """Serve HTTP until stopped; requests under way are answered first."""
    async with open_broker(settings) as broker:
        runner = web.AppRunner(build_app(broker, settings), access_log=None, shutdown_timeout=10)
        await runner.setup()
        try:
            await _listen(runner, settings.http.host, settings.http.port)
            await stop.wait()
        finally:
            await runner.cleanup()


async def _listen(runner: web.AppRunner, host: str, port: int) -> None:
    try:
        await web.TCPSite(runner, host, port, backlog=1024).start()
    except OSError as error:
        raise CannotListen(
            f"cannot listen on {host}:{port}: {error.strerror}; choose another with --port or RIACHO_HTTP_PORT"
        ) from None
    log.info("listening on http://%s:%d", *runner.addresses[0][:2])


async def run_worker(settings: Settings, stages: Sequence[str], stop: asyncio.Event) -> int:
    """Work the named stages (all, if none is named) until stopped; returns how many jobs were cut off."""
    adapters = Adapters(settings)
    pipeline = adapters.pipeline(settings)
    chosen = [pipeline.stage(name) for name in stages] or list(pipeline)
    async with adapters.opened():
        connect = connector(settings, pipeline)
        await check(connect)
        worker = Worker(connect, chosen, lease=settings.worker.lease, grace=settings.worker.grace)
        return await worker.run(stop)


class Child:
    """A process of ours that is started again when it crashes, after a pause that doubles."""

    def __init__(
        self, name: str, arguments: Sequence[str], environment: dict[str, str], crashed: asyncio.Event
    ) -> None:
        self.name = name
        self._command = [sys.executable, "-m", "api", *arguments, "--with-parent"]
        self._environment = environment
        self._crashed = crashed
        self._process: asyncio.subprocess.Process | None = None
        self._stopping = asyncio.Event()

    async def run(self) -> None:
        """Keep it running until `stop`."""
        loop, pause = asyncio.get_running_loop(), 1.0
        while not self._stopping.is_set():
            started = loop.time()
            code = await self._run_once()
            if self._stopping.is_set():
                break
            if loop.time() - started > SETTLED_AFTER:
                pause = 1.0
            log.error("%s ended with exit code %d; starting it again in %g s", self.name, code, pause)
            self._crashed.set()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), pause)
            pause = min(pause * 2, LONGEST_PAUSE)

    async def _run_once(self) -> int:
        # Its own session: Ctrl-C reaches us alone, and we stop the children in order. The pipe on its
        # standard input is never written to; it closes with us, however we end.
        self._process = await asyncio.create_subprocess_exec(
            *self._command, env=self._environment, stdin=asyncio.subprocess.PIPE, start_new_session=True
        )
        return await self._process.wait()

    def stop(self) -> None:
        """Ask it to finish."""
        self._stopping.set()
        if self._process and self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                self._process.terminate()


@contextlib.asynccontextmanager
async def process_tree(settings: Settings) -> AsyncIterator[asyncio.Event]:
    """API and workers as processes of their own while it lasts; on leaving, each finishes what it runs.

    Yields an event that the first crash of one of them sets.
    """
    environment, crashed = child_environment(settings), asyncio.Event()
    children = [Child(name, arguments, environment, crashed) for name, arguments in TREE.items()]
    running = [asyncio.create_task(child.run()) for child in children]
    try:
        yield crashed
    finally:
        for child in children:
            child.stop()
        _, late = await asyncio.wait(running, timeout=settings.worker.grace + 30)
        for task in late:
            task.cancel()


def lower_priority(by: int) -> None:
    """Be nicer to the machine's other processes."""
    if by:
        os.nice(by)
