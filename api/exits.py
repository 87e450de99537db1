"""How commands end: their exit codes, which scripts and whoever starts a process again go by."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

from config import SettingsError
from pipeline import RiachoError
from pipeline.errors import BadInput, JobUnknown, Refused, ServerUnavailable, UnknownSchedule

# The answer is no: there is no such job, nothing is finished in time, a check failed.
NO = 1
# Not asked for rightly; the parser of the command line ends with it, too.
USAGE = 2
# Exit code of a process that was told something it cannot work with: starting it again would not help.
CANNOT_START = 3
# Of one whose server is away, which may be back at the next start.
SERVER_AWAY = os.EX_TEMPFAIL

CODES = (
    "Exit codes: 0 done; 1 the answer is no, or there is no such thing; 2 not asked for rightly; "
    "3 the settings, or what is there, cannot be worked with; 75 the server is away: try again."
)


class NotFound(RiachoError):
    """What was asked for by its name or id is not there."""


class CannotStart(RiachoError):
    """The settings, or the flags of a process that stays, name what there is not."""


@contextmanager
def by_settings() -> Iterator[None]:
    """Whatever is wrong in here will be wrong at the next start, too: BadInput is raised as CannotStart."""
    try:
        yield
    except BadInput as error:
        raise CannotStart(str(error)) from error


def exit_code(error: RiachoError | SettingsError) -> int:
    """What a command that raised this ends with."""
    match error:
        case NotFound() | JobUnknown() | UnknownSchedule() | Refused():
            return NO
        case BadInput():
            return USAGE
        case ServerUnavailable():
            return SERVER_AWAY
        case _:
            return CANNOT_START
