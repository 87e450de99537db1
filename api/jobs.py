"""`riacho enqueue`, `job`, `cancel`: put one job in, see what became of it, take it out."""

import os
import sys
from datetime import UTC, datetime
from typing import Annotated, Any

import msgspec
import typer

from api import completion
from api.console import AsJson, ask
from api.operating import Cancelled
from api.queues import Accepted, JobRequest, job_of
from pipeline import Broker, JobId
from pipeline.errors import BadInput, BadPayload, JobUnknown
from pipeline.views import JobView

app = typer.Typer()

AnId = Annotated[str, typer.Argument(metavar="ID", help="A job's id.")]
Wait = Annotated[float, typer.Option(help="Seconds to wait for the job's end; exits 1 unless completed.", min=0)]


@app.command()
def enqueue(
    queue: Annotated[str, typer.Argument(autocompletion=completion.queues)],
    kind: Annotated[str, typer.Argument(help="The stage of that queue.", autocompletion=completion.kinds)],
    payload: Annotated[str, typer.Argument(help="JSON, or - to read it from standard input.")],
    tenant: Annotated[str, typer.Option(help="Whose job it is.")] = "",
    key: Annotated[str, typer.Option(help="Jobs of one key lie in one partition.")] = "",
    once: Annotated[str, typer.Option("--id", help="An id under which the job is taken once.")] = "",
    delay: Annotated[float, typer.Option(help="Seconds before anybody may run it.")] = 0.0,
    wait_for_room: Annotated[float, typer.Option(help="Seconds to wait while the stage is full.", min=0)] = 0.0,
    wait: Wait = 0.0,
    as_json: AsJson = False,
) -> None:
    """Put a job into a queue, and print its id."""
    said = msgspec.Raw(msgspec.json.encode(json_payload(payload)))
    given = {"kind": kind, "payload": said, "tenant": tenant, "key": key, "id": once, "delay": delay}
    request = _request(given)

    async def put(broker: Broker) -> JobView | None:
        job_id = await broker.enqueue(job_of(broker.pipeline, queue, request), patience=wait_for_room)
        if not wait:
            typer.echo(msgspec.json.encode(Accepted(str(job_id))) if as_json else str(job_id))
            return None
        typer.echo(str(job_id), err=True)  # for whoever does not wait until the end after all
        return await _seen(broker, job_id, wait)

    if view := ask(put):
        _show(view, as_json=as_json)
        _exit_by(view)


@app.command()
def job(job_id: AnId, wait: Wait = 0.0, as_json: AsJson = False) -> None:
    """Show a job: its state, its result or its last error."""
    view = ask(lambda broker: _seen(broker, JobId.parse(job_id), wait))
    _show(view, as_json=as_json)
    if wait:
        _exit_by(view)


@app.command()
def cancel(job_id: AnId, as_json: AsJson = False) -> None:
    """Take a job out before it runs; one that runs is told to stop."""
    answer = ask(lambda broker: broker.cancel(JobId.parse(job_id)))
    if as_json:
        typer.echo(msgspec.json.encode(Cancelled(job_id, answer)))
        return
    typer.echo(f"{job_id}: {answer}" + (", but it runs and may still finish" if answer == "cancelling" else ""))


def json_payload(text: str) -> Any:
    """JSON from the command line, or from standard input where it is -. Raises BadPayload."""
    content = sys.stdin.buffer.read() if text == "-" else os.fsencode(text)
    try:
        return msgspec.json.decode(content)
    except (ValueError, RecursionError) as error:  # bad UTF-8 in a string is no DecodeError
        shown = content[:80].decode(errors="replace")
        raise BadPayload(
            f"payload {shown!r} is no JSON: {error}; put it in single quotes, or pass it on standard input to -"
        ) from None


def _request(given: dict[str, Any]) -> JobRequest:
    """What was given, within the bounds that hold over HTTP too."""
    try:
        return msgspec.convert(given, JobRequest)
    except msgspec.ValidationError as error:
        message, _, field = str(error).rpartition(" - at `$.")
        value = given[field.rstrip("`")]
        raise BadInput(f"{field.rstrip('`')} {str(value)[:80]!r}: {message}") from None


async def _seen(broker: Broker, job: JobId, wait: float) -> JobView:
    """A job as it ended, or as it is where nobody waits for it or it takes longer."""
    if wait:
        try:
            return await broker.result(job, timeout=wait)
        except TimeoutError as error:
            typer.echo(f"riacho: {error}", err=True)
    view = await broker.look(job)
    if view is None:
        raise JobUnknown(f"no job {job}: it never was, or it is finished and no longer remembered")
    return view


def _show(view: JobView, *, as_json: bool) -> None:
    if as_json:
        typer.echo(msgspec.json.encode(view))
        return
    for name, value in msgspec.to_builtins(view).items():
        typer.echo(f"{name:<11} {_shown(name, value)}")


def _shown(name: str, value: Any) -> str:
    if name.endswith("At"):
        return datetime.fromtimestamp(value / 1000, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    # What customers sent may hold control characters, which a terminal would obey.
    if isinstance(value, str) and value.isprintable():
        return value
    return msgspec.json.encode(value).decode()


def _exit_by(view: JobView) -> None:
    if view.state != "completed":
        raise typer.Exit(1)
