"""What is told of jobs as they go from one state to the next, and where somebody is in that."""

import re
from collections.abc import Sequence
from typing import NamedTuple, cast

import msgspec

from pipeline.errors import BadInput
from pipeline.message import State

ID = r"\d{1,20}-\d{1,20}"
CURSOR = re.compile(rf"{ID}(\.{ID})*", re.ASCII)
LONGEST_CURSOR = 50_000  # characters; more than a thousand partitions' worth


class Event(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """A job has come into a state, or further in it, `at` ms since the epoch. `attempt` counts its tries, the
    present or last one included; `progress` is per cent."""

    job_id: str
    queue: str
    stage: str
    state: State
    at: int
    attempt: int = 0
    progress: int | None = None


class Told(NamedTuple):
    """An entry of a partition's events. `said` is None where some that came before it may be lost."""

    partition: int
    id: bytes
    said: bytes | None


class Said(NamedTuple):
    """What an entry says (lua/prelude.lua, `tell`); `entry` is the job's id within its stage's partition."""

    entry: bytes
    state: bytes
    attempt: bytes
    percent: bytes
    stage: bytes


class Span(NamedTuple):
    """The first and the last id of a partition's events."""

    first: bytes
    last: bytes


def read(said: bytes) -> Said:
    """Take an entry apart."""
    return Said(*said.split(b" ", 4))


def event_of(told: Told, said: Said, queue: str) -> Event:
    """An entry as it is shown."""
    stage = said.stage.decode()
    return Event(
        job_id=f"{stage}.{told.partition}.{said.entry.decode()}",
        queue=queue,
        stage=stage,
        state=cast("State", said.state.decode()),
        at=int(told.id.partition(b"-")[0]),
        attempt=int(said.attempt),
        progress=None if said.percent == b"-" else int(said.percent),
    )


def order(entry: bytes) -> tuple[int, int]:
    """What ids are compared by."""
    ms, _, number = entry.partition(b"-")
    return int(ms), int(number)


def cursor_of(position: Sequence[bytes]) -> str:
    """A position, the last id of each partition that somebody has seen, as text."""
    return b".".join(position).decode()


def position_of(cursor: str) -> list[bytes]:
    """Read a cursor. Raises BadInput."""
    if len(cursor) > LONGEST_CURSOR or not CURSOR.fullmatch(cursor):
        raise BadInput(f"{cursor[:80]!r} is no event's id; leave it out to begin with what happens now")
    return cursor.encode().split(b".")
