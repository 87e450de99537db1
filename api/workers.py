"""`riacho workers`: who works, and on what."""

import msgspec
import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from api.console import AsJson, ask, harmless
from api.operating import Workers

app = typer.Typer()


@app.command()
def workers(as_json: AsJson = False) -> None:
    """Show the workers, with the stages they read and how many jobs they hold; the silent ones come last."""
    found = ask(lambda broker: broker.every_worker())
    if as_json:
        typer.echo(msgspec.json.encode(Workers(found)))
        return
    if not found:
        typer.echo("no worker has left a trace")
        return
    table = Table("worker", "holds", "heard of (s ago)", "stages")
    for each in found:
        name, stages = Text(harmless(each.worker)), Text(harmless(", ".join(each.stages)))
        table.add_row(name, str(each.active), f"{each.silent_seconds:.1f}", stages)
    Console().print(table)
