"""What a handler's run ends in: values, each matched exhaustively where it is used."""

from typing import Any

import msgspec

from pipeline.message import Job


class Done(msgspec.Struct, frozen=True):
    """Finished. `forward` is handed to the next stages in the same atomic step."""

    result: Any = None
    forward: tuple[Job, ...] = ()


class Retry(msgspec.Struct, frozen=True):
    """Try again after `after` seconds. A try that does not count leaves the attempts as they were."""

    after: float
    error: str = ""
    counts: bool = True


class Throttled(msgspec.Struct, frozen=True):
    """Not run yet: the last of so many tokens, its own, will be there in `after` seconds."""

    after: float
    tokens: int = 1


# A job as it is handed on: its stage, its envelope, its account there, its delay in ms.
Forward = tuple[str, bytes, str, int]


class Bury(msgspec.Struct, frozen=True):
    """To the dead letters. `reason` is for a person, `error` for who has to mend it. `forwards` are the stage's to
    name (`Stage.buried`), not the handler's."""

    reason: str
    error: str = ""
    forwards: tuple[Forward, ...] = ()


Outcome = Done | Retry | Bury


class Settled(msgspec.Struct, frozen=True, gc=False):
    """`Done`, ready to be written, its result in MessagePack. Or the end of a job that somebody cancelled. `keep`
    is for how many seconds it is remembered, whatever its stage keeps."""

    result: msgspec.Raw
    forwards: tuple[Forward, ...] = ()
    cancelled: bool = False
    keep: float = 0.0


# What the executor gives to the settler.
Ending = Settled | Retry | Throttled | Bury
