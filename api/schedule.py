"""`riacho schedule list`, `add`, `remove`, `pause`, `resume`, `run`: jobs that come again and again."""

from collections.abc import Awaitable, Callable
from typing import Annotated, Any, TypeVar

import msgspec
import typer

from api import completion
from api.console import AsJson, ask, read_settings
from api.exits import by_settings
from api.jobs import json_payload
from api.schedules import Fired, Rests, ScheduleView, configured_schedules, find, views
from pipeline import Broker, JobId, Schedule
from pipeline.errors import BadInput
from pipeline.schedule import DEFAULT_GRACE, MISFIRES

T = TypeVar("T")

app = typer.Typer(help="Jobs that come again and again: see, put, stop and fire them.", no_args_is_help=True)

Name = Annotated[str, typer.Argument(help="A schedule's name.")]


@app.command("list")
def list_(as_json: AsJson = False) -> None:
    """Show all schedules: when each comes next, and what became of its last job."""
    found = _with_configured(views)
    if as_json:
        typer.echo(msgspec.json.encode({"schedules": found}))
        return
    for view in found:
        typer.echo(_line(view))
    if not found:
        typer.echo("there are no schedules")


@app.command()
def add(
    name: Name,
    cron: Annotated[str, typer.Option(help="Minute, hour, day of month, month, day of week.")],
    stage: Annotated[str, typer.Option(help="The stage its jobs are for.", autocompletion=completion.stages)],
    payload: Annotated[str, typer.Option(help="JSON, or - to read it from standard input.")] = "{}",
    tenant: Annotated[str, typer.Option(help="Whose jobs they are.")] = "",
    zone: Annotated[str, typer.Option(help="Time zone, as in America/Sao_Paulo.")] = "UTC",
    misfire: Annotated[
        str, typer.Option(help="Of times that were missed, make up for none (skip), the last (once), or all.")
    ] = "once",
    grace: Annotated[float, typer.Option(help="Seconds after which none is made up for.")] = DEFAULT_GRACE,
    as_json: AsJson = False,
) -> None:
    """Put a schedule, or change one that was put."""
    given: dict[str, Any] = {"name": name, "cron": cron, "stage": stage, "payload": json_payload(payload)}
    schedule = _schedule(given | {"tenant": tenant, "zone": zone, "misfire": misfire, "grace": grace})
    _with_configured(lambda broker, configured: broker.put_schedule(schedule, _names(configured)))
    _say(schedule, f"{name}: {cron} ({zone}) for {stage}", as_json=as_json)


@app.command()
def remove(name: Name, as_json: AsJson = False) -> None:
    """Forget a schedule that was put; jobs it has already added stay."""
    _with_configured(lambda broker, configured: broker.remove_schedule(name, _names(configured)))
    _say({"schedule": name, "removed": True}, f"{name}: removed", as_json=as_json)


@app.command()
def pause(name: Name, as_json: AsJson = False) -> None:
    """Have a schedule add no more jobs until it is resumed."""
    _with_configured(lambda broker, configured: broker.pause_schedule(name, _names(configured)))
    _say(Rests(name, paused=True), f"{name}: paused", as_json=as_json)


@app.command()
def resume(name: Name, as_json: AsJson = False) -> None:
    """Have a schedule go on; what was due while it was paused is not made up for."""
    _with_configured(lambda broker, configured: broker.resume_schedule(name, _names(configured)))
    _say(Rests(name, paused=False), f"{name}: resumed", as_json=as_json)


@app.command()
def run(name: Name, as_json: AsJson = False) -> None:
    """Add a schedule's job now, besides its times, and print its id."""

    async def fire(broker: Broker, configured: list[Schedule]) -> JobId:
        return await broker.fire_schedule(await find(broker, configured, name))

    job = str(_with_configured(fire))
    _say(Fired(job), job, as_json=as_json)


def _say(told: object, line: str, *, as_json: bool) -> None:
    typer.echo(msgspec.json.encode(told) if as_json else line)


def _with_configured(question: Callable[[Broker, list[Schedule]], Awaitable[T]]) -> T:
    with by_settings():
        configured = configured_schedules(read_settings())
    return ask(lambda broker: question(broker, configured))


def _names(configured: list[Schedule]) -> set[str]:
    return {schedule.name for schedule in configured}


def _schedule(given: dict[str, Any]) -> Schedule:
    try:
        return msgspec.convert(given, Schedule)
    except msgspec.ValidationError as error:
        message, _, field = str(error).rpartition(" - at `$.")
        field = field.rstrip("`")
        known = f"; known: {', '.join(MISFIRES)}" if field == "misfire" else ""
        raise BadInput(f"{field} {str(given[field])[:80]!r}: {message}{known}") from None


def _line(view: ScheduleView) -> str:
    coming = f"next {view.next.iso}" if view.next else "never: no such stage here"
    last = f"; last {view.last.fired_at.iso} {view.last.job_id} {view.last.state}".rstrip() if view.last else ""
    missed = f"; {view.missed} missed" if view.missed else ""
    about = f"{view.name}: {view.cron} ({view.zone}) for {view.stage}, {view.source}"
    return f"{about}: {'paused' if view.paused else coming}{last}{missed}"
