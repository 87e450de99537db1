"""Commands run in this process, which is much quicker than one each; `processes` runs them as a user does."""

import os
from collections.abc import Callable
from typing import NamedTuple

import typer.testing

from api.__main__ import app
from api.exits import exit_code
from config import SettingsError
from pipeline import RiachoError

Command = Callable[..., "Ended"]


class Ended(NamedTuple):
    """How a command ended; `refusal` is the error that `riacho` makes one line of."""

    code: int
    out: str
    err: str
    refusal: str


def call(*arguments: str, env: dict[str, str], typed: str = "") -> Ended:
    """`riacho …` to its end; an error that is not made for a person is raised."""
    without_others = dict.fromkeys(os.environ)
    result = typer.testing.CliRunner().invoke(app, arguments, input=typed, env=without_others | env)
    error = result.exception
    if error and not isinstance(error, RiachoError | SettingsError | SystemExit):
        raise error
    if isinstance(error, RiachoError | SettingsError):
        return Ended(exit_code(error), result.stdout, result.stderr, str(error))
    return Ended(result.exit_code, result.stdout, result.stderr, "")
