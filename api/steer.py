"""`riacho pause`, `resume`, `drain`, `clear`: what an operator does to whole stages."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Annotated

import typer

from api.console import ask
from pipeline import Broker, Pipeline, Stage
from pipeline.errors import UnknownStage, did_you_mean
from pipeline.views import StageStatus

LOOK_EVERY = 0.2  # seconds
UNFINISHED = ("waiting", "delayed", "active", "retrying")

app = typer.Typer()

Names = Annotated[list[str], typer.Argument(metavar="NAME", help="Queues or single stages.")]


@app.command()
def pause(names: Names) -> None:
    """Start no more jobs of these queues or stages until they are resumed; running ones go on."""
    typer.echo(f"paused: {_do(Broker.pause, names)}")


@app.command()
def resume(names: Names) -> None:
    """Undo pause and drain."""
    typer.echo(f"resumed: {_do(Broker.resume, names)}")


@app.command()
def drain(
    names: Names,
    wait: Annotated[float, typer.Option(help="Seconds to wait until nothing is left; else exits 1.", min=0)] = 0.0,
) -> None:
    """Take no new jobs in for these queues or stages until they are resumed; what they have goes on."""
    typer.echo(f"draining: {_do(Broker.drain, names)}")
    if not wait:
        return
    left = ask(lambda broker: _left_after(broker, names, wait))
    for status in left:
        paused = "; it is paused" if status.paused else ""
        typer.echo(f"left in {status.queue}.{status.stage}: {_counted([status], UNFINISHED)}{paused}")
    if left:
        raise typer.Exit(1)
    typer.echo("nothing is left")


@app.command()
def clear(
    name: Annotated[str, typer.Argument(help="A queue or a single stage.")],
    active: Annotated[bool, typer.Option("--active", help="Delete jobs that are with a worker too.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
) -> None:
    """Delete the unfinished jobs of a queue or stage for good."""
    if not yes:
        depths = [depth for depth in UNFINISHED if active or depth != "active"]
        found = ask(lambda broker: _statuses(broker, [name]))
        typer.confirm(f"Delete {_counted(found, depths)} jobs of {name} for good?", abort=True)
    count = ask(lambda broker: broker.clear(named(broker.pipeline, [name]), active=active))
    typer.echo(f"{count} deleted")


def named(pipeline: Pipeline, names: Sequence[str]) -> list[Stage]:
    """The stages of these names, each once; a queue's name stands for all of its stages. Raises UnknownStage."""
    known = {stage.name: [stage] for stage in pipeline}
    known |= {queue: pipeline.queue(queue) for queue in pipeline.queues}
    for name in names:
        if name not in known:
            raise UnknownStage(f"no queue or stage '{name[:80]}'{did_you_mean(name, known)}")
    return list({stage.name: stage for name in names for stage in known[name]}.values())


def _do(steer: Callable[[Broker, list[Stage]], Awaitable[None]], names: Sequence[str]) -> str:
    """Steer the stages of these names; returns them as they are shown."""

    async def act(broker: Broker) -> str:
        stages = named(broker.pipeline, names)
        await steer(broker, stages)
        return ", ".join(stage.full_name for stage in stages)

    return ask(act)


async def _statuses(broker: Broker, names: Sequence[str]) -> list[StageStatus]:
    wanted = {stage.name for stage in named(broker.pipeline, names)}
    return [status for status in await broker.status() if status.stage in wanted]


async def _left_after(broker: Broker, names: Sequence[str], wait: float) -> list[StageStatus]:
    """Wait for stages to be empty; those that are not after `wait` seconds."""
    loop = asyncio.get_running_loop()
    end = loop.time() + wait
    while True:
        left = [status for status in await _statuses(broker, names) if _total(status)]
        if not left or loop.time() >= end:
            return left
        await asyncio.sleep(LOOK_EVERY)


def _total(status: StageStatus) -> int:
    return sum(getattr(status, depth) for depth in UNFINISHED)


def _counted(statuses: Sequence[StageStatus], depths: Sequence[str]) -> str:
    return ", ".join(f"{sum(getattr(status, depth) for status in statuses)} {depth}" for depth in depths)
