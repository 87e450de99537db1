"""`riacho senders list`, `resume`: numbers that WhatsApp stopped, and having them send again."""

from datetime import UTC, datetime

import msgspec
import typer

from api.console import AsJson, ask_database, harmless
from api.exits import NotFound

app = typer.Typer(help="Numbers that WhatsApp stopped: why, and have them send again.", no_args_is_help=True)


@app.command("list")
def list_(as_json: AsJson = False) -> None:
    """Show the paused senders, by tenant. Each tries a message now and then by itself."""
    held = ask_database(lambda adapters: adapters.notifications.log.paused())
    if as_json:
        typer.echo(msgspec.json.encode(held))
        return
    for sender in held:
        since = datetime.fromtimestamp(sender.since_ms / 1000, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
        typer.echo(harmless(f"{sender.tenant or '(no tenant)'}: since {since}: {sender.reason}"))
    if not held:
        typer.echo("no sender is paused")


@app.command()
def resume(tenant: str, as_json: AsJson = False) -> None:
    """Have a paused sender send again, once what stopped it is put right."""
    if not ask_database(lambda adapters: adapters.notifications.log.resume(tenant)):
        raise NotFound(f"the sender of tenant '{tenant[:80]}' is not paused; see: riacho senders list")
    if as_json:
        typer.echo(msgspec.json.encode({"tenant": tenant, "paused": False}))
    else:
        typer.echo(f"{tenant}: sends again within half a minute")
