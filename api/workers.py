"""`riacho workers`: who works, and on what."""

import msgspec
import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from api.console import AsJson, ask
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
        table.add_row(
            escape(each.worker), str(each.active), f"{each.silent_seconds:.1f}", escape(", ".join(each.stages))
        )
    Console().print(table)
