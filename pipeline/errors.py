"""Every error Riacho raises on purpose.

RiachoError
├── BadInput               the caller's fault; the message names the value and the remedy
│   ├── UnknownStage
│   ├── UnknownSchedule
│   ├── BadPayload
│   └── BadJobId
├── Refused                a stage takes nothing in now; `refusal` says why, how deep it is, how long to wait
│   ├── StageFull          its high-water mark is reached
│   ├── StageDraining      somebody drains it
│   └── ServerFull         the server's memory is nearly used up
├── JobUnknown             no such job, or it is finished and no longer remembered
├── ServerUnavailable      Redis cannot be reached, or went away
├── ServerUnsuitable       Redis answers, but cannot be used as it is
├── DataFolderInUse        another embedded server runs on the same folder
├── EmbeddedServerFailed   the embedded server did not start
├── Permanent              raised by a handler: trying this job again cannot help
└── RetryLater             raised by a handler: not now, and through no fault of the job
"""

import difflib
from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pipeline.message import Refusal


class RiachoError(Exception):
    """Base of all of them; the message is fit for a person."""


class BadInput(RiachoError):
    """What came in cannot be worked with."""


class UnknownStage(BadInput):
    """No such queue, stage, or stage in that queue."""


class UnknownSchedule(BadInput):
    """No schedule of that name."""


class BadPayload(BadInput):
    """A payload that does not have its stage's shape, or is too large."""


class BadJobId(BadInput):
    """Not of the form `<stage>.<partition>.<entry id>`."""


class Refused(RiachoError):
    """A job that a stage did not take. `refusal.wait` is when to try again, in seconds."""

    def __init__(self, message: str, refusal: "Refusal") -> None:
        super().__init__(message)
        self.refusal = refusal


class StageFull(Refused):
    """The stage is at its high-water mark."""


class StageDraining(Refused):
    """The stage is being drained: it finishes what it has and takes nothing in."""


class ServerFull(Refused):
    """The server's memory is nearly used up."""


class JobUnknown(RiachoError):
    """No such job, or it is finished and no longer remembered."""


class ServerUnavailable(RiachoError):
    """Redis cannot be reached, or went away in between."""


class ServerUnsuitable(RiachoError):
    """Redis answers, but not as the engine needs it."""


class DataFolderInUse(RiachoError):
    """Another embedded server runs on the same data folder."""


class EmbeddedServerFailed(RiachoError):
    """The embedded server did not start."""


class Permanent(RiachoError):
    """Raised by a handler whose job can never succeed: it goes to the dead letters with this reason."""


class RetryLater(RiachoError):
    """Raised by a handler that may not go on yet, at a rate limit say: the job waits `seconds`, and the try
    does not count."""

    def __init__(self, seconds: float, reason: str = "") -> None:
        super().__init__(reason)
        self.seconds = seconds


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """`; did you mean 'x'?` when something close is known, else what is known."""
    choices = sorted(known)
    close = difflib.get_close_matches(word, choices, n=1)
    return f"; did you mean '{close[0]}'?" if close else f"; known: {', '.join(choices) or 'none'}"
