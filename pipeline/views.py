"""What is shown of jobs, stages and the server, made from what Redis answers."""

from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import msgspec

from pipeline.backpressure import most_memory
from pipeline.keys import RETRYING, rests
from pipeline.message import Envelope, JobId, Record, State, decode_record, trace_id_of, unseal

FINISHED: frozenset[State] = frozenset({"completed", "failed", "cancelled"})
# What INFO says "ok" of while the server can write to its disk.
WRITES = ("aof_last_write_status", "aof_last_bgrewrite_status", "rdb_last_bgsave_status")


class JobView(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """A job as it is shown. Times are ms since the epoch; `progress` is per cent, as its handler reported it,
    `doing` what an active one is at; `next` are the jobs it was handed on to.

    `position` is how many jobs of its partition come before a waiting one and are with no worker; so many at least
    where it says `position_at_least`. `started_at` is when its last try began; it is missing where that is not
    known, as of an active one in its first seconds, or of one that was lost with its worker.
    `trace_id` is the W3C trace it is part of."""

    job_id: str
    queue: str
    stage: str
    state: State
    attempt: int = 0
    progress: int = 0
    doing: str = ""
    tenant: str = ""
    enqueued_at: int | None = None
    position: int | None = None
    position_at_least: bool = False
    due_at: int | None = None
    started_at: int | None = None
    ended_at: int | None = None
    result: Any = None
    reason: str = ""
    error: str = ""
    trace_id: str = ""
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


class WorkerView(msgspec.Struct, frozen=True, rename="camel"):
    """A worker by its consumers: the stages it reads, how many entries it holds, running or ready to run, and for
    how long nothing was heard of it."""

    worker: str
    stages: list[str]
    active: int
    silent_seconds: float


class StageProbe(NamedTuple):
    """How a job without work came through a stage: in how many milliseconds, or why it did not."""

    queue: str
    stage: str
    milliseconds: float | None
    error: str = ""


class ServerInfo(NamedTuple):
    """What `check` learned; `warnings` are for a person, loudly."""

    version: str
    warnings: list[str]


class StageAges(NamedTuple):
    """Seconds; None: there is none. `waiting`: how long the oldest job could have run, and did not. Not counted
    are jobs that are not due, and those held back for their tenant, which wait for the tenant's own before them.
    `active`: how long the oldest one has been with a worker, up to a third of a lease less."""

    waiting: float | None
    active: float | None


class ServerFacts(msgspec.Struct, frozen=True, kw_only=True):
    """A server by its INFO. `latency` is of a PING, in seconds; memory is in bytes. `writes_fail`: its disk does
    not take what it is to keep, and it may refuse writes; `lag`: seconds that a replica is behind, at the most."""

    latency: float
    version: str
    uptime: int
    clients: int
    memory: int
    most_memory: int
    policy: str
    append_only: bool
    writes_fail: str
    saved_at: int
    role: str
    replicas: int
    linked: bool
    lag: int

    @property
    def evicts(self) -> str:
        """What is wrong with its eviction policy, if anything is."""
        if self.policy == "noeviction":
            return ""
        return (
            f"maxmemory-policy is '{self.policy}': Redis may delete queued jobs when memory is short; "
            "set it to 'noeviction'"
        )

    @property
    def forgets(self) -> str:
        """What a restart of it would lose, if anything."""
        if self.append_only:
            return ""
        return "appendonly is off: a restart of Redis loses the newest jobs; set 'appendonly yes'"

    @property
    def warnings(self) -> list[str]:
        """What may lose jobs."""
        return [warning for warning in (self.evicts, self.forgets) if warning]


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


class Consumer(NamedTuple):
    """A worker on one stage's partition; `silent` in seconds."""

    name: str
    held: int
    silent: float


def consumers_of(reply: list[list[Any]]) -> list[Consumer]:
    """A group's consumers by XINFO, without those that own parked entries."""
    known = [dict(zip(each[::2], each[1::2], strict=True)) for each in reply]
    workers = [each for each in known if each[b"name"] != RETRYING and not rests(each[b"name"])]
    return [Consumer(each[b"name"].decode(), each[b"pending"], each[b"idle"] / 1000) for each in workers]


def workers_of(consumers: Iterable[tuple[str, Consumer]]) -> list[WorkerView]:
    """Workers by the consumers they have on stages; who was heard of last comes first."""
    known: dict[str, list[tuple[str, Consumer]]] = {}
    for stage, consumer in consumers:
        known.setdefault(consumer.name, []).append((stage, consumer))
    views = [_worker(name, places) for name, places in known.items()]
    return sorted(views, key=lambda view: (view.silent_seconds, view.worker))


def _worker(name: str, places: list[tuple[str, Consumer]]) -> WorkerView:
    consumers = [consumer for _, consumer in places]
    silent = min(consumer.silent for consumer in consumers)
    stages = list(dict.fromkeys(stage for stage, _ in places))
    return WorkerView(name, stages, sum(consumer.held for consumer in consumers), silent)


def of_set_aside(view: JobView, kept: bytes, due: bytes | None) -> JobView:
    """A job that is not in the stream yet: delayed, or held back for its tenant."""
    length, _, rest = kept.partition(b":")
    envelope = unseal(rest[int(length) :])
    return msgspec.structs.replace(
        view,
        state="delayed" if due else "waiting",
        due_at=int(float(due)) if due else None,
        **_sent(envelope),
    )


def _sent(envelope: Envelope[msgspec.Raw]) -> dict[str, Any]:
    """What is shown of an envelope."""
    return {
        "tenant": envelope.tenant,
        "enqueued_at": envelope.enqueued_ms,
        "trace_id": trace_id_of(envelope.trace),
    }


def of_unfinished(
    view: JobView, body: bytes, pending: Any, record: Record | None, started: bytes | None
) -> JobView:
    """A job whose entry is there: its bytes, what XPENDING says of it, its last failure if it had one, and when a
    try began, as its worker noted it (renew.lua)."""
    changes: dict[str, Any] = {}
    if record:
        changes = {"error": record.error, "started_at": record.started_ms or None}
    if pending:
        _, consumer, _, attempt = pending[0]
        state = "retrying" if consumer == RETRYING else "waiting" if rests(consumer) else "active"
        changes |= {"state": state, "attempt": attempt}
        if state == "active":
            changes["started_at"] = _began(started, b"%b %d" % (consumer, attempt))
    try:
        changes |= _sent(unseal(body))
    except ValueError as error:
        changes["error"] = str(error)
    return msgspec.structs.replace(view, **changes)


def _began(started: bytes | None, of_try: bytes) -> int | None:
    noted, _, at = (started or b"").rpartition(b" ")
    return int(at) if noted == of_try else None


def of_finished(view: JobView, record: Record, following: bytes | None) -> JobView:
    """A job whose entry is gone: how it ended, and the ids it was handed on to."""
    if record.state == "retrying":  # what an earlier try came to after all, which leaves no record of its own
        return msgspec.structs.replace(view, state="completed", attempt=record.attempt, progress=100)
    return msgspec.structs.replace(
        view,
        state=record.state,
        attempt=record.attempt,
        progress=100 if record.state == "completed" else view.progress,
        started_at=record.started_ms or None,
        ended_at=record.at_ms,
        trace_id=record.trace_id,
        result=record.result,
        reason=record.reason,
        error=record.error,
        next=following.decode().split(",") if following else [],
    )


def dead_letter(
    stage: str, partition: int, letter: bytes, fields: list[bytes], *, whole: bool = True
) -> DeadLetter:
    """A dead letter from its entry, without its payload where that is not asked for `whole`."""
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
        payload = msgspec.msgpack.decode(envelope.payload) if whole else None
    except (ValueError, RecursionError):
        return view
    return msgspec.structs.replace(view, tenant=envelope.tenant, key=envelope.key, payload=payload)


def tenant_of(fields: list[bytes]) -> str:
    """Whose job a dead letter was; empty where it cannot be read."""
    found = dict(zip(fields[::2], fields[1::2], strict=True))
    try:
        return unseal(found.get(b"e", b"")).tenant
    except ValueError:
        return ""


def facts_of(info: dict[str, str], latency: float = 0.0) -> ServerFacts:
    """What a server's INFO says, in our words."""
    primary = info.get("role", "master") == "master"
    return ServerFacts(
        latency=latency,
        version=info.get("valkey_version") or info["redis_version"],
        uptime=int(info.get("uptime_in_seconds", 0)),
        clients=int(info.get("connected_clients", 0)),
        memory=int(info["used_memory"]),
        most_memory=most_memory(info),
        policy=info.get("maxmemory_policy", "noeviction"),
        append_only=info.get("aof_enabled") != "0",
        writes_fail=", ".join(what for what in WRITES if info.get(what, "ok") != "ok"),
        saved_at=int(info.get("rdb_last_save_time", 0)),
        role="primary" if primary else "replica",
        replicas=int(info.get("connected_slaves", 0)),
        linked=primary or info.get("master_link_status") == "up",
        lag=max(_lags(info), default=0),
    )


def _lags(info: dict[str, str]) -> Iterator[int]:
    """Seconds since each replica was heard of; on a replica, since its primary was."""
    if info.get("role") == "slave":
        yield int(info.get("master_last_io_seconds_ago", 0))
        return
    for number in range(int(info.get("connected_slaves", 0))):
        about = dict(part.partition("=")[::2] for part in info.get(f"slave{number}", "").split(","))
        yield int(about.get("lag", 0))
