"""`riacho events`: see jobs go from one state to the next."""

from datetime import UTC, datetime
from itertools import count
from typing import Annotated

import msgspec
import typer

from api.console import AsJson, ask
from api.hub import Wanted, queues_of, wanted_event, wanted_of
from pipeline import Broker
from pipeline.events import Event
from pipeline.tail import Tail

app = typer.Typer()


@app.command()
def events(
    queue: Annotated[str, typer.Option(help="Those of one queue only.")] = "",
    job: Annotated[str, typer.Option(help="Those of one job only, by its id.")] = "",
    most: Annotated[int, typer.Option("--count", help="End after so many; 0: never.", min=0)] = 0,
    as_json: AsJson = False,
) -> None:
    """Print what becomes of jobs, as it happens, until interrupted."""
    ask(lambda broker: _watch(broker, wanted_of(broker.pipeline, queue, job), most, as_json=as_json))


async def _watch(broker: Broker, wanted: Wanted, most: int, *, as_json: bool) -> None:
    tail, queues, printed = Tail(broker), queues_of(broker.pipeline), count(1)
    await tail.begin()
    while True:
        for told in await tail.read():
            found = wanted_event(queues, told, wanted)
            if told.said is None:
                typer.echo("riacho: some events were lost here", err=True)
            if found:
                typer.echo(msgspec.json.encode(found) if as_json else _line(found))
                if next(printed) == most:
                    return


def _line(event: Event) -> str:
    at = datetime.fromtimestamp(event.at / 1000, UTC).strftime("%H:%M:%S.%f")[:-3]
    attempt = f"  try {event.attempt}" if event.attempt else ""
    progress = "" if event.progress is None else f"  {event.progress} %"
    return f"{at}  {event.queue + '.' + event.stage:<30}  {event.state:<9}  {event.job_id}{attempt}{progress}"
