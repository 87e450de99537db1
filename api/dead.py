"""`riacho dead`: look at dead letters, put them back to work, delete them."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Annotated

import msgspec
import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from api.console import AsJson, ask
from pipeline import Broker, JobId, Stage
from pipeline.errors import BadInput
from pipeline.views import DeadLetter

app = typer.Typer(help="Dead letters: jobs that will not be tried again.", no_args_is_help=True)

OfStage = Annotated[str | None, typer.Option("--stage", help="Only of this stage.")]


class NoSuchLetter(BadInput):
    """A job that is not among the dead letters."""


@app.command("list")
def dead_list(
    stage: OfStage = None,
    most: Annotated[int, typer.Option(help="How many to show.", min=1)] = 50,
    as_json: AsJson = False,
) -> None:
    """List dead letters with their reasons."""

    async def first(broker: Broker) -> list[DeadLetter]:
        found = []
        async for letter in broker.dead_letters(_stages(broker, stage)):
            found.append(letter)
            if len(found) == most:
                break
        return found

    letters = ask(first)
    if as_json:
        typer.echo(msgspec.json.encode(letters))
        return
    table = Table("job", "buried (UTC)", "tries", "reason", "error")
    for letter in letters:
        buried = datetime.fromtimestamp(letter.buried_at / 1000, UTC).strftime("%Y-%m-%d %H:%M:%S")
        table.add_row(letter.job_id, buried, str(letter.attempt), escape(letter.reason), escape(letter.error))
    Console().print(table)


@app.command("show")
def dead_show(job: Annotated[str, typer.Argument(help="The id of a buried job.")]) -> None:
    """Show one dead letter whole, its payload too."""
    letter = ask(lambda broker: _letter(broker, job))
    typer.echo(msgspec.json.format(msgspec.json.encode(letter)))


@app.command("replay")
def dead_replay(
    jobs: Annotated[list[str] | None, typer.Argument(help="Ids of buried jobs.")] = None,
    stage: OfStage = None,
    everything: Annotated[bool, typer.Option("--all", help="Replay all (of the stage).")] = False,
) -> None:
    """Put dead letters back to work, with all their tries before them."""
    if bool(jobs) == everything:
        raise typer.BadParameter("name the jobs to replay, or say --all")

    async def replay(broker: Broker) -> int:
        count = 0
        async for letter in _chosen(broker, jobs, stage):
            if new := await broker.replay(letter):
                typer.echo(f"{letter.job_id} is now {new}")
                count += 1
        return count

    typer.echo(f"{ask(replay)} replayed")


@app.command("purge")
def dead_purge(
    stage: OfStage = None, yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False
) -> None:
    """Delete dead letters for good."""
    if not yes:
        typer.confirm(f"Delete the dead letters of {stage or 'all stages'} for good?", abort=True)
    count = ask(lambda broker: broker.purge(_stages(broker, stage)))
    typer.echo(f"{count} deleted")


def _stages(broker: Broker, stage: str | None) -> list[Stage]:
    return [broker.pipeline.stage(stage)] if stage else list(broker.pipeline)


async def _chosen(broker: Broker, jobs: list[str] | None, stage: str | None) -> AsyncIterator[DeadLetter]:
    if jobs:
        for job in jobs:
            yield await _letter(broker, job)
    else:
        async for letter in broker.dead_letters(_stages(broker, stage)):
            yield letter


async def _letter(broker: Broker, job: str) -> DeadLetter:
    async for letter in broker.dead_letters([broker.pipeline.stage(JobId.parse(job).stage)]):
        if letter.job_id == job:
            return letter
    raise NoSuchLetter(f"{job} is not among the dead letters; 'riacho dead list' shows them")
