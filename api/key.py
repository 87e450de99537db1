"""`riacho key new`: keys for the HTTP service."""

import re
from typing import Annotated

import msgspec
import typer

from api.access import new_key, settings_lines
from api.console import AsJson, read_settings
from config.settings import Key
from pipeline.errors import BadInput

app = typer.Typer(help="Keys for the HTTP service.", no_args_is_help=True)


@app.callback()
def _group() -> None:
    """So that `new` keeps its name while it is the only command."""


@app.command()
def new(
    name: Annotated[str, typer.Argument(help="Whose key it is: letters, digits, - and _.")],
    scopes: Annotated[str, typer.Option(help="read, enqueue or admin; several are separated by commas.")] = "read",
    as_json: AsJson = False,
) -> None:
    """Make a key; it is shown this once. Nothing is changed: it counts once its hash is in the settings.

    To rotate a key, make another under a new name, give it out, then take the old one out of the settings.
    """
    known = read_settings().http.keys
    if not re.fullmatch(r"[A-Za-z0-9_-]{1,64}", name):
        raise BadInput(f"{name[:80]!r} is no name of a key: up to 64 letters, digits, - and _")
    if name in known:
        raise BadInput(f"there is a key '{name}'; to rotate it, make one under another name, then remove it")
    key, hashed = new_key()
    line, variable = settings_lines(known | {name: _made(hashed, scopes)}, name)
    if as_json:
        typer.echo(msgspec.json.encode({"key": key, "line": line, "variable": variable}))
        return
    typer.echo(key)
    typer.echo("Keep it: it is not shown again. For the settings, either to [http.keys] in a file", err=True)
    typer.echo(line)
    typer.echo("or in the environment, with all other keys", err=True)
    typer.echo(variable)


def _made(hashed: str, scopes: str) -> Key:
    try:
        return msgspec.convert({"hash": hashed, "scopes": scopes.split(",")}, Key)
    except msgspec.ValidationError:
        raise BadInput(f"--scopes {scopes[:80]!r}: read, enqueue or admin, several separated by commas") from None
