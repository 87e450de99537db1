"""What the shell offers for names on the command line: those of this pipeline, without asking any server."""

from collections.abc import Callable, Iterable

import typer

from api.adapters import Adapters
from config import SettingsError, load
from pipeline import Pipeline, RiachoError

Offer = Callable[[str], list[str]]


def queues(incomplete: str) -> list[str]:
    """Queues."""
    return _beginning(incomplete, _pipeline().queues)


def stages(incomplete: str) -> list[str]:
    """Stages, whatever their queue."""
    return _beginning(incomplete, (stage.name for stage in _pipeline()))


def names(incomplete: str) -> list[str]:
    """Queues and stages."""
    return [*queues(incomplete), *stages(incomplete)]


def kinds(ctx: typer.Context, incomplete: str) -> list[str]:
    """The stages of the queue that was named before."""
    return _beginning(incomplete, (stage.name for stage in _pipeline() if stage.queue == ctx.params.get("queue")))


def many_stages(incomplete: str) -> list[str]:
    """Stages separated by commas, none of them twice."""
    before, comma, last = incomplete.rpartition(",")
    return [f"{before}{comma}{name}" for name in stages(last) if name not in before.split(",")]


def _beginning(incomplete: str, known: Iterable[str]) -> list[str]:
    return [name for name in known if name.startswith(incomplete)]


def _pipeline() -> Pipeline:
    """None of whose parts is opened. Where the settings cannot be read there is nothing to offer; the command
    will say why."""
    try:
        return Adapters(load()).pipeline()
    except (RiachoError, SettingsError):
        return Pipeline([])
