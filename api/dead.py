"""`riacho dead`, `riacho retry`: look at dead letters, put them back to work, delete them."""

import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Annotated

import msgspec
import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from api import completion
from api.console import AsJson, ask, harmless, progress
from api.exits import NotFound
from api.operating import Purged, chosen
from api.queues import Accepted
from pipeline import Broker, JobId, Stage
from pipeline.views import DeadLetter

app = typer.Typer(help="Dead letters: jobs that will not be tried again.", no_args_is_help=True)

commands = typer.Typer()  # those that are not below `dead`

OfQueue = Annotated[
    str, typer.Option("--queue", help="Only of this queue.", show_default=False, autocompletion=completion.queues)
]
OfStage = Annotated[
    str, typer.Option("--stage", help="Only of this stage.", show_default=False, autocompletion=completion.stages)
]


Buried = Annotated[str, typer.Argument(help="The id of a buried job.")]


class Replayed(msgspec.Struct, frozen=True, rename="camel"):
    """A job that was put back to work, and the dead letter it was."""

    job_id: str
    was: str


class Replays(msgspec.Struct, omit_defaults=True):
    """How many dead letters were put back to work, and which, where they were named."""

    replayed: int
    jobs: list[Replayed] = []


@app.command("list")
def dead_list(
    queue: OfQueue = "",
    stage: OfStage = "",
    most: Annotated[int, typer.Option(help="How many to show.", min=1)] = 50,
    as_json: AsJson = False,
) -> None:
    """List dead letters with their reasons."""

    async def first(broker: Broker) -> list[DeadLetter]:
        found = []
        async for letter in broker.dead_letters(chosen(broker.pipeline, queue, stage)):
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
        why = (Text(harmless(said)) for said in (letter.reason, letter.error))
        table.add_row(harmless(letter.job_id), buried, str(letter.attempt), *why)
    Console().print(table)


@app.command("show")
def dead_show(job: Buried, as_json: AsJson = False) -> None:
    """Show one dead letter whole, its payload too."""
    letter = msgspec.json.encode(ask(lambda broker: _letter(broker, job)))
    typer.echo(letter if as_json else msgspec.json.format(letter))


@app.command("replay")
def dead_replay(
    jobs: Annotated[list[str] | None, typer.Argument(help="Ids of buried jobs.")] = None,
    queue: OfQueue = "",
    stage: OfStage = "",
    everything: Annotated[bool, typer.Option("--all", help="Replay all (of the queue or stage).")] = False,
    as_json: AsJson = False,
) -> None:
    """Put dead letters back to work, with all their tries before them."""
    if bool(jobs) == everything:
        raise typer.BadParameter("name the jobs to replay, or say --all")

    async def replay(broker: Broker) -> Replays:
        if not jobs:
            stages = chosen(broker.pipeline, queue, stage)
            return Replays(await _replay_all(broker, stages, as_json=as_json))
        done = [await _replay_one(broker, job, as_json=as_json) for job in jobs]
        return Replays(len(done), done)

    done = ask(replay)
    typer.echo(msgspec.json.encode(done) if as_json else f"{done.replayed} replayed")


@app.command("purge")
def dead_purge(
    queue: OfQueue = "",
    stage: OfStage = "",
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    as_json: AsJson = False,
) -> None:
    """Delete dead letters for good."""
    if not yes:
        typer.confirm(
            f"Delete the dead letters of {stage or queue or 'all stages'} for good?", abort=True, err=as_json
        )
    count = ask(lambda broker: broker.purge(chosen(broker.pipeline, queue, stage)))
    typer.echo(msgspec.json.encode(Purged(count)) if as_json else f"{count} deleted")


@commands.command()
def retry(job: Buried, as_json: AsJson = False) -> None:
    """Put a dead letter back to work, and print the new job's id."""

    async def replay(broker: Broker) -> JobId:
        return await _replayed(broker, job)

    new = str(ask(replay))
    typer.echo(msgspec.json.encode(Accepted(new)) if as_json else new)


async def _replay_one(broker: Broker, job: str, *, as_json: bool) -> Replayed:
    replayed = Replayed(str(await _replayed(broker, job)), job)
    if not as_json:
        _tell(replayed)
    return replayed


async def _replay_all(broker: Broker, stages: Sequence[Stage], *, as_json: bool) -> int:
    """How many there were."""
    wanted, count = {stage.name for stage in stages}, 0
    there = sum(status.dead for status in await broker.status() if status.stage in wanted)
    quiet = as_json or (sys.stdout.isatty() and sys.stderr.isatty())  # the bar is there
    with progress("replaying", there, as_json=as_json) as advance:
        async for letter in broker.dead_letters(stages):
            if new := await broker.replay(letter):
                count += 1
                if not quiet:
                    _tell(Replayed(str(new), letter.job_id))
            advance(1)
    return count


def _tell(replayed: Replayed) -> None:
    typer.echo(f"{replayed.was} is now {replayed.job_id}")


async def _replayed(broker: Broker, job: str) -> JobId:
    """The new job of a dead letter. Raises NotFound."""
    if new := await broker.replay(await _letter(broker, job)):
        return new
    raise _not_found(job)


async def _letter(broker: Broker, job: str) -> DeadLetter:
    """By its job's id, or, where an older version buried it, by looking at them all. Raises NotFound."""
    job_id = JobId.parse(job)
    if letter := await broker.dead_letter(job_id):
        return letter
    async for letter in broker.dead_letters([broker.pipeline.stage(job_id.stage)]):
        if letter.job_id == str(job_id):
            return letter
    raise _not_found(job)


def _not_found(job: str) -> NotFound:
    return NotFound(f"{job} is not among the dead letters; 'riacho dead list' shows them")
