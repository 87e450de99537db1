"""What is shown of jobs, stages and the server, made from what Redis answers."""

from typing import Any, NamedTuple

import msgspec

from pipeline.keys import RETRYING, rests
from pipeline.message import JobId, Record, State, decode_record, unseal

FINISHED: frozenset[State] = frozenset({"completed", "failed", "cancelled"})


class JobView(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """A job as it is shown. Times are ms since the epoch; `progress` is per cent, as its handler reported it,
    `doing` what an active one is at; `next` are the jobs it was handed on to."""

    job_id: str
    queue: str
    stage: str
    state: State
    attempt: int = 0
    progress: int = 0
    doing: str = ""
    tenant: str = ""
    enqueued_at: int | None = None
    due_at: int | None = None
    ended_at: int | None = None
    result: Any = None
    reason: str = ""
    error: str = ""
    next: list[str] = []


class StageStatus(msgspec.Struct, frozen=True):
    """Exact at the moment of asking. `waiting` includes what a stopping worker handed back, what waits for a rate
    limit's token, and what is held back for its tenant; `delayed` is not due yet."""

    queue: str
    stage: str
    waiting: int = 0
    delayed: int = 0
    active: int = 0
    retrying: int = 0
    dead: int = 0
    paused: bool = False
    draining: bool = False


class DeadLetter(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """A buried job. `letter` is its id among the dead letters; `payload` is missing where it cannot be read."""

    job_id: str
    letter: str
    reason: str
    error: str
    attempt: int
    buried_at: int
    tenant: str = ""
    key: str = ""
    payload: Any = None


class ServerInfo(NamedTuple):
    """What `check` learned; `warnings` are for a person, loudly."""

    version: str
    warnings: list[str]


class Depths(NamedTuple):
    """What the server says of one partition."""

    length: int  # XLEN
    pending: Any  # XPENDING
    later: int  # jobs set aside
    delayed: int  # those of them that are delayed
    control: list[bytes | None]  # paused, draining
    dead: int


def add_up(total: StageStatus, found: Depths) -> StageStatus:
    """One partition's depths on top of a stage's total."""
    count, consumers = (found.pending[0], found.pending[3] or []) if found.pending else (0, [])
    parked = {name: int(held) for name, held in consumers}
    retrying = parked.get(RETRYING, 0)
    resting = sum(held for name, held in parked.items() if rests(name))
    paused, draining = found.control
    return StageStatus(
        total.queue,
        total.stage,
        waiting=total.waiting + found.length - count + resting + found.later - found.delayed,
        delayed=total.delayed + found.delayed,
        active=total.active + count - retrying - resting,
        retrying=total.retrying + retrying,
        dead=total.dead + found.dead,
        paused=total.paused or paused is not None,
        draining=total.draining or draining is not None,
    )


def live_consumers(consumers: list[list[Any]], silent: float) -> list[bytes]:
    """The names of a group's consumers that were heard of within `silent` seconds."""
    known = [dict(zip(consumer[::2], consumer[1::2], strict=True)) for consumer in consumers]
    live = [consumer[b"name"] for consumer in known if consumer[b"idle"] <= silent * 1000]
    return [name for name in live if name != RETRYING and not rests(name)]


def of_set_aside(view: JobView, kept: bytes, due: bytes | None) -> JobView:
    """A job that is not in the stream yet: delayed, or held back for its tenant."""
    length, _, rest = kept.partition(b":")
    envelope = unseal(rest[int(length) :])
    return msgspec.structs.replace(
        view,
        state="delayed" if due else "waiting",
        due_at=int(float(due)) if due else None,
        tenant=envelope.tenant,
        enqueued_at=envelope.enqueued_ms,
    )


def of_unfinished(view: JobView, body: bytes, pending: Any, record: Record | None) -> JobView:
    """A job whose entry is there: its bytes, what XPENDING says of it, its last failure if it had one."""
    changes: dict[str, Any] = {}
    if pending:
        _, consumer, _, attempt = pending[0]
        state = "retrying" if consumer == RETRYING else "waiting" if rests(consumer) else "active"
        changes = {"state": state, "attempt": attempt}
    if record:
        changes["error"] = record.error
    try:
        envelope = unseal(body)
        changes |= {"tenant": envelope.tenant, "enqueued_at": envelope.enqueued_ms}
    except ValueError as error:
        changes["error"] = str(error)
    return msgspec.structs.replace(view, **changes)


def of_finished(view: JobView, record: Record, following: bytes | None) -> JobView:
    """A job whose entry is gone: how it ended, and the ids it was handed on to."""
    if record.state == "retrying":  # what an earlier try came to after all, which leaves no record of its own
        return msgspec.structs.replace(view, state="completed", attempt=record.attempt, progress=100)
    return msgspec.structs.replace(
        view,
        state=record.state,
        attempt=record.attempt,
        progress=100 if record.state == "completed" else view.progress,
        ended_at=record.at_ms,
        result=record.result,
        reason=record.reason,
        error=record.error,
        next=following.decode().split(",") if following else [],
    )


def dead_letter(stage: str, partition: int, letter: bytes, fields: list[bytes]) -> DeadLetter:
    """A dead letter from its entry."""
    found = dict(zip(fields[::2], fields[1::2], strict=True))
    record = decode_record(found[b"record"])
    view = DeadLetter(
        job_id=str(JobId(stage, partition, found[b"id"].decode())),
        letter=letter.decode(),
        reason=record.reason,
        error=record.error,
        attempt=record.attempt,
        buried_at=record.at_ms,
    )
    try:
        envelope = unseal(found[b"e"])
        payload = msgspec.msgpack.decode(envelope.payload)
    except (ValueError, RecursionError):
        return view
    return msgspec.structs.replace(view, tenant=envelope.tenant, key=envelope.key, payload=payload)


def warnings_of(info: dict[str, str]) -> list[str]:
    """What in a server\'s INFO may lose jobs."""
    warnings = []
    policy = info.get("maxmemory_policy", "noeviction")
    if policy != "noeviction":
        warnings.append(
            f"maxmemory-policy is '{policy}': Redis may delete queued jobs when memory is short; "
            "set it to 'noeviction'"
        )
    if info.get("aof_enabled") == "0":
        warnings.append("appendonly is off: a restart of Redis loses the newest jobs; set 'appendonly yes'")
    return warnings
