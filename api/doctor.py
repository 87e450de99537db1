"""`riacho doctor`: how everything is that the pipeline stands on, and what to do about it."""

from collections.abc import Sequence
from contextlib import aclosing

import msgspec
import typer
import uvloop
from rich.console import Console
from rich.table import Table
from rich.text import Text

from api.adapters import Adapters
from api.console import AsJson, harmless, read_settings, with_address
from config import Settings
from stages.health.finding import Finding, examine

app = typer.Typer()

MARKS = {"ok": "[green]✓[/]", "warning": "[yellow]![/]", "failed": "[red]✗[/]"}


@app.command()
def doctor(as_json: AsJson = False) -> None:
    """Look at everything Riacho stands on, and say what to do about it; ends with 1 where something failed.

    Nothing is changed.
    """
    findings = uvloop.run(_look(with_address(read_settings())))
    if as_json:
        typer.echo(msgspec.json.encode({"findings": findings}))
    else:
        Console().print(_table(findings))
    raise typer.Exit(int(any(finding.state == "failed" for finding in findings)))


async def _look(settings: Settings) -> list[Finding]:
    adapters = Adapters(settings)
    async with aclosing(adapters.database), adapters.checks.opened(adapters.pipeline):
        return await examine(adapters.checks.parts.checks)


def _table(findings: Sequence[Finding]) -> Table:
    table = Table("", "check", "found", "what to do")
    for finding in findings:
        said = (Text(harmless(part)) for part in (finding.name, finding.detail, finding.remedy))
        table.add_row(MARKS[finding.state], *said)
    return table
