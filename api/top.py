"""`riacho top`: everything live in the terminal, and a stage paused or resumed from there."""

import asyncio
import contextlib
import errno
import logging
import os
import signal
import sys
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer
import uvloop
from redis.exceptions import RedisError
from rich.console import Console, RenderableType
from rich.live import Live

from api.console import read_settings, with_address
from api.exits import by_settings
from api.keyboard import pressed
from api.processes import stop_signal
from api.root import PATIENCE, open_broker
from api.schedules import configured_schedules
from api.screen import View, page, screen
from api.sight import Looker, Sight
from pipeline import Broker, RiachoError, Stage
from pipeline.message import now_ms

WIDE = 160  # columns where there is no terminal to have fewer

app = typer.Typer()

Act = Callable[[list[Stage]], Awaitable[None]]


class Away(msgspec.Struct):
    """A line of JSON in place of a sight. `at` is in ms since the epoch."""

    at: int
    error: str


@app.command()
def top(
    interval: Annotated[float, typer.Option(help="Seconds between two looks.", min=0.2, max=3_600.0)] = 2.0,
    once: Annotated[bool, typer.Option("--once", help="Look once, print it, and end.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print a line of JSON for each look.")] = False,
) -> None:
    """Show everything live: queues and stages, workers, dead letters, what comes next. ? shows the keys.

    Without a terminal, as in a pipe, it is printed once.
    """
    settings = with_address(read_settings())
    with by_settings():
        configured = configured_schedules(settings)

    async def run() -> None:
        async with open_broker(settings, patience=PATIENCE) as broker:
            looker = Looker(broker, settings.worker.lease, configured)
            if as_json:
                await _lines(looker, interval, once=once)
            elif once or not _before_a_terminal():
                _print(await looker.look())
            else:
                await Top(broker, looker, Console(), interval).run(stop_signal())

    uvloop.run(run())


def _before_a_terminal() -> bool:
    return sys.stdin.isatty() and sys.stdout.isatty() and not Console().is_dumb_terminal


def _print(sight: Sight) -> None:
    console = Console()
    width = console.width if sys.stdout.isatty() else max(console.width, WIDE)
    console = Console(width=width)
    console.print(page(View(sight, {}), width))


async def _lines(looker: Looker, interval: float, *, once: bool) -> None:
    stop = asyncio.Event() if once else stop_signal()
    while not stop.is_set():
        try:
            found: Sight | Away = await looker.look()
        except (RiachoError, RedisError) as error:
            if once:
                raise
            found = Away(now_ms(), str(error))
        typer.echo(msgspec.json.encode(found))
        if once:
            return
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(stop.wait(), interval)


class Top:
    """The screen while it is looked at: looks every `interval` seconds, and does what the keys say."""

    def __init__(self, broker: Broker, looker: Looker, console: Console, interval: float) -> None:
        self._broker, self._looker, self._console, self._interval = broker, looker, console, interval
        self._stages = list(broker.pipeline)
        self._selected = 0
        self._sight: Sight | None = None
        self._seen_at = 0.0
        self._away = self._note = ""
        self._help = False
        self._asking: tuple[str, Act, Stage] | None = None  # what was asked for, and is to be confirmed
        self._acting: asyncio.Task[None] | None = None
        self._changed, self._look_now, self._ended = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def run(self, stop: asyncio.Event) -> None:
        """Until `q`, or until stopped; the terminal is then as it was."""
        looking, stopping = asyncio.create_task(self._keep_looking()), asyncio.create_task(stop.wait())
        for task in (looking, stopping):  # looking ends only where something of ours is wrong
            task.add_done_callback(lambda _: self._end())
        asyncio.get_running_loop().add_signal_handler(signal.SIGWINCH, self._changed.set)
        try:
            with (
                _while_there(),
                _quiet(),
                self._live() as live,
                pressed(sys.stdin.fileno(), self.press, self._end),
            ):
                while not self._ended.is_set():
                    self._changed.clear()
                    live.update(self._shown(), refresh=True)
                    await self._changed.wait()
        finally:
            await _cancelled([looking, stopping, *([self._acting] if self._acting else [])])

    def press(self, key: str) -> None:
        """What a key does."""
        self._note = ""
        if self._asking:
            self._answer(yes=key == "y")
        elif key in ("up", "k", "down", "j"):
            step = 1 if key in ("down", "j") else -1
            self._selected = min(max(0, self._selected + step), len(self._stages) - 1)
        elif key in ("p", "r"):
            stage = self._stages[self._selected]
            self._asking = (
                ("pause", self._broker.pause, stage) if key == "p" else ("resume", self._broker.resume, stage)
            )
        elif key == "?":
            self._help = not self._help
        elif key == "q":
            self._end()
        self._changed.set()

    def _answer(self, *, yes: bool) -> None:
        asked, self._asking = self._asking, None
        if not (yes and asked):
            self._note = "nothing was done"
        elif self._acting is None or self._acting.done():
            self._acting = asyncio.create_task(self._act(*asked))
        else:
            self._note = "nothing was done: what was asked for before is still under way"

    async def _act(self, what: str, act: Act, stage: Stage) -> None:
        try:
            await act([stage])
            self._note = f"{what}d: {stage.full_name}"
        except (RiachoError, RedisError) as error:
            self._note = f"could not {what} {stage.full_name}: {error}"
        self._look_now.set()
        self._changed.set()

    async def _keep_looking(self) -> None:
        while True:
            self._look_now.clear()
            await self._look()
            self._changed.set()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._look_now.wait(), self._interval)

    async def _look(self) -> None:
        try:
            self._sight, self._away = await self._looker.look(), ""
            self._seen_at = time.monotonic()
        except (RiachoError, RedisError) as error:
            self._away = str(error)

    def _end(self) -> None:
        self._ended.set()
        self._changed.set()

    def _live(self) -> Live:
        return Live(
            console=self._console, screen=True, auto_refresh=False, redirect_stdout=False, redirect_stderr=False
        )

    def _shown(self) -> RenderableType:
        width, height = self._console.size
        return screen(self._view(), width, height, plain=self._console.options.ascii_only)

    def _view(self) -> View:
        question = f"{self._asking[0]} {self._asking[2].full_name}?" if self._asking else ""
        return View(
            self._sight,
            self._looker.trends,
            selected=self._stages[self._selected].name,
            question=question,
            note=self._note,
            away=self._away,
            ago=time.monotonic() - self._seen_at,
            help=self._help,
        )


@contextlib.contextmanager
def _while_there() -> Iterator[None]:
    """A terminal that is closed has nothing more to be written to it, now or when Python ends."""
    try:
        yield
    except OSError as error:
        if error.errno != errno.EIO:
            raise
        with Path(os.devnull).open("wb") as nothing:
            os.dup2(nothing.fileno(), sys.stdout.fileno())


async def _cancelled(tasks: Sequence[asyncio.Task[Any]]) -> None:
    """Raises what one of them had failed with."""
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)
    for task in tasks:
        if not task.cancelled():
            task.result()


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """No line of a log in the middle of the screen, which says itself what is wrong."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        yield
    finally:
        logging.disable(before)
