"""`riacho hold add`, `remove`, `list`: conversations that are kept for legal reasons, however old they are."""

from datetime import UTC, datetime

import msgspec
import typer

from api.console import AsJson, ask_database, harmless
from api.exits import NotFound

app = typer.Typer(
    help="Conversations that are never deleted (whole tenants: the setting cleanup.held).", no_args_is_help=True
)


@app.command()
def add(tenant: str, chat: str, as_json: AsJson = False) -> None:
    """Keep a conversation and all that belongs to it until the hold is removed."""
    _hold(tenant, chat, held=True, as_json=as_json)


@app.command()
def remove(tenant: str, chat: str, as_json: AsJson = False) -> None:
    """Have a conversation deleted again when it is old enough."""
    _hold(tenant, chat, held=False, as_json=as_json)


@app.command("list")
def list_(as_json: AsJson = False) -> None:
    """Show the conversations that are held."""
    held = ask_database(lambda adapters: adapters.conversations.held())
    if as_json:
        typer.echo(msgspec.json.encode(held))
        return
    for each in held:
        about = harmless(f"{each.tenant} {each.chat}")
        typer.echo(f"{about}: from {_time(each.started_ms)} to {_time(each.last_ms)}")
    if not held:
        typer.echo("no conversation is held")


def _hold(tenant: str, chat: str, *, held: bool, as_json: bool) -> None:
    if not ask_database(lambda adapters: adapters.conversations.hold(tenant, chat, held)):
        raise NotFound(f"tenant '{tenant[:80]}' has no conversation '{chat[:80]}'")
    if as_json:
        typer.echo(msgspec.json.encode({"tenant": tenant, "chat": chat, "held": held}))
    else:
        typer.echo(f"{tenant} {chat}: {'held' if held else 'no longer held'}")


def _time(ms: int) -> str:
    return datetime.fromtimestamp(ms / 1000, UTC).strftime("%Y-%m-%d %H:%M UTC")
