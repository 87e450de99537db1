"""`riacho pause`, `resume`, `drain`, `clear`: what an operator does to whole stages."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Annotated

import msgspec
import typer

from api import completion
from api.console import AsJson, ask, progress
from api.operating import Cleared, Steered, named
from pipeline import Broker, Stage
from pipeline.views import StageStatus

LOOK_EVERY = 0.2  # seconds
UNFINISHED = ("waiting", "delayed", "active", "retrying")

app = typer.Typer()

Names = Annotated[
    list[str],
    typer.Argument(metavar="NAME", help="Queues or single stages.", autocompletion=completion.names),
]
Name = Annotated[str, typer.Argument(help="A queue or a single stage.", autocompletion=completion.names)]


class Drained(Steered):
    """`left`: what is not finished yet."""

    left: list[StageStatus]


@app.command()
def pause(names: Names, as_json: AsJson = False) -> None:
    """Start no more jobs of these queues or stages until they are resumed; running ones go on."""
    _show("paused", _do(Broker.pause, names), as_json=as_json)


@app.command()
def resume(names: Names, as_json: AsJson = False) -> None:
    """Undo pause and drain."""
    _show("resumed", _do(Broker.resume, names), as_json=as_json)


@app.command()
def drain(
    names: Names,
    wait: Annotated[float, typer.Option(help="Seconds to wait until nothing is left; else exits 1.", min=0)] = 0.0,
    as_json: AsJson = False,
) -> None:
    """Take no new jobs in for these queues or stages until they are resumed; what they have goes on."""
    stages = _do(Broker.drain, names)
    if not (wait and as_json):
        _show("draining", stages, as_json=as_json)
    if not wait:
        return
    left = ask(lambda broker: _left_after(broker, names, wait, as_json=as_json))
    if as_json:
        typer.echo(msgspec.json.encode(Drained(stages, left)))
    else:
        _show_left(left)
    if left:
        raise typer.Exit(1)


@app.command()
def clear(
    name: Name,
    active: Annotated[bool, typer.Option("--active", help="Delete jobs that are with a worker too.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    as_json: AsJson = False,
) -> None:
    """Delete the unfinished jobs of a queue or stage for good."""
    depths = [depth for depth in UNFINISHED if active or depth != "active"]
    if not yes:
        found = ask(lambda broker: _statuses(broker, [name]))
        question = f"Delete {_counted(found, depths)} jobs of {name} for good?"
        typer.confirm(question, abort=True, err=as_json)

    async def delete(broker: Broker) -> int:
        stages = named(broker.pipeline, [name])
        there, deleted = sum(_total(status, depths) for status in await _statuses(broker, [name])), 0
        with progress("clearing", there, as_json=as_json) as advance:
            async for count in broker.clearing(stages, active=active):
                deleted += count
                advance(count)
        return deleted

    count = ask(delete)
    typer.echo(msgspec.json.encode(Cleared(count)) if as_json else f"{count} deleted")


def _do(steer: Callable[[Broker, list[Stage]], Awaitable[None]], names: Sequence[str]) -> list[str]:
    """Steer the stages of these names; returns them as they are shown."""

    async def act(broker: Broker) -> list[str]:
        stages = named(broker.pipeline, names)
        await steer(broker, stages)
        return [stage.full_name for stage in stages]

    return ask(act)


def _show(done: str, stages: list[str], *, as_json: bool) -> None:
    typer.echo(msgspec.json.encode(Steered(stages)) if as_json else f"{done}: {', '.join(stages)}")


def _show_left(left: Sequence[StageStatus]) -> None:
    for status in left:
        paused = "; it is paused" if status.paused else ""
        typer.echo(f"left in {status.queue}.{status.stage}: {_counted([status], UNFINISHED)}{paused}")
    if not left:
        typer.echo("nothing is left")


async def _statuses(broker: Broker, names: Sequence[str]) -> list[StageStatus]:
    wanted = {stage.name for stage in named(broker.pipeline, names)}
    return [status for status in await broker.status() if status.stage in wanted]


async def _left_after(
    broker: Broker, names: Sequence[str], wait: float, *, as_json: bool = False
) -> list[StageStatus]:
    """Wait for stages to be empty; those that are not after `wait` seconds."""
    loop = asyncio.get_running_loop()
    end = loop.time() + wait
    left = await _unfinished(broker, names)
    with progress("draining", sum(map(_total, left)), as_json=as_json) as advance:
        while left and loop.time() < end:
            await asyncio.sleep(LOOK_EVERY)
            before, left = left, await _unfinished(broker, names)
            advance(sum(map(_total, before)) - sum(map(_total, left)))
    return left


async def _unfinished(broker: Broker, names: Sequence[str]) -> list[StageStatus]:
    return [status for status in await _statuses(broker, names) if _total(status)]


def _total(status: StageStatus, depths: Sequence[str] = UNFINISHED) -> int:
    return sum(getattr(status, depth) for depth in depths)


def _counted(statuses: Sequence[StageStatus], depths: Sequence[str]) -> str:
    return ", ".join(f"{sum(getattr(status, depth) for status in statuses)} {depth}" for depth in depths)
