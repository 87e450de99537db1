"""`riacho test`: whether every stage works, by trying."""

import msgspec
import typer

from api.console import AsJson, ask, harmless, read_settings
from api.probes import TIMEOUT, Tested, tested

app = typer.Typer()


@app.command(name="test")
def try_stages(as_json: AsJson = False) -> None:
    """Send a job without work through every stage, and say how long it took; ends with 1 unless all came."""
    lease = read_settings().worker.lease
    found = tested(ask(lambda broker: broker.probe(timeout=TIMEOUT, silent=lease)))
    if as_json:
        typer.echo(msgspec.json.encode(found))
    else:
        _show(found)
    raise typer.Exit(int(not found.ok))


def _show(found: Tested) -> None:
    for queue in found.queues:
        for stage in queue.stages:
            outcome = f"{stage.milliseconds:.1f} ms" if stage.ok else harmless(stage.error)
            typer.echo(f"{'ok    ' if stage.ok else 'failed'} {f'{queue.queue}.{stage.stage}':<28} {outcome}")
