"""What the commands share: settings from flags, putting a question to the queues, telling how far they are."""

import sys
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Annotated, Any, TypeVar

import typer
import uvloop
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from api.adapters import Adapters
from api.root import open_broker
from config import Secret, Settings, load, logs, replaced, telemetry
from config.secrecy import secrets_of
from config.settings import Tree
from pipeline import Broker, masking, running
from pipeline.embedded import EmbeddedServer

T = TypeVar("T")

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def read_settings(**flags: dict[str, Any]) -> Settings:
    """The settings in force with these flags over them, by section; None is a flag not given."""
    given: Tree = {
        section: {key: str(value) for key, value in values.items() if value is not None}
        for section, values in flags.items()
    }
    settings = load(given)
    masking.know(secrets_of(settings))
    logs.set_up(settings.log, masked=masking.masked, running=running.facts)
    return settings


def with_address(settings: Settings) -> Settings:
    """Where no Redis is configured, the server of the `riacho up` that runs on the same folder."""
    if settings.redis.url:
        return settings
    return replaced(settings, redis={"url": Secret(EmbeddedServer(settings.data.folder).url)})


def ask(question: Callable[[Broker], Awaitable[T]]) -> T:
    """Put a question to the configured Redis, or to the server of the `riacho up` that runs here."""
    settings = with_address(read_settings())
    telemetry.set_up("cli")

    async def put() -> T:
        async with open_broker(settings) as broker:
            return await question(broker)

    return uvloop.run(put())


def ask_database(question: Callable[[Adapters], Awaitable[T]]) -> T:
    """Put a question to the configured database, by way of what keeps things there."""
    adapters = Adapters(read_settings())

    async def put() -> T:
        async with adapters.database:
            return await question(adapters)

    return uvloop.run(put())


def harmless(text: str) -> str:
    """What came from elsewhere, without what a terminal would take for an order; line ends stay."""
    return "".join(char if char.isprintable() or char == "\n" else " " for char in text)


@contextmanager
def progress(what: str, total: int, *, as_json: bool) -> Iterator[Callable[[int], None]]:
    """A bar on standard error while something takes its time, moved on by what is yielded; none where JSON is
    asked for, or nobody sits before a terminal."""
    if as_json or not sys.stderr.isatty():
        yield lambda _: None
        return
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    console = Console(stderr=True)
    # What goes to standard output stays there.
    with Progress(*columns, console=console, transient=True, redirect_stdout=False, redirect_stderr=False) as bar:
        task = bar.add_task(what, total=total)
        yield lambda count: bar.advance(task, count)
