"""What the engine promises, in plain Python: no Redis, no time but its own, nothing at once.

A job is in one place at a time, and every transition of the broker is a method here. Who compares the two is
test_state_machine.py.
"""

from collections import Counter, defaultdict, deque
from collections.abc import Callable, Iterable
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from itertools import count
from typing import Literal

from pipeline import Stage
from pipeline.message import State

LEASE = 2  # the unit of time is the model's own

Where = Literal[
    "delayed", "held", "waiting", "active", "retrying", "released", "limited",
    "completed", "dead", "cancelled", "cleared",
]  # fmt: skip
Parking = Literal["retrying", "released", "limited"]

ASIDE: frozenset[Where] = frozenset({"delayed", "held"})
PARKED: frozenset[Where] = frozenset({"retrying", "released", "limited"})
IN_STREAM: frozenset[Where] = PARKED | {"waiting", "active"}
UNFINISHED = IN_STREAM | ASIDE
LOTS: dict[str, str] = {"retrying": "~retry", "released": "~released", "limited": "~limited1"}


@dataclass(eq=False)
class ModelJob:
    """One job; `id` and `entry` are learned from the server, `n` is its payload."""

    n: int
    stage: Stage
    tenant: str
    where: Where = "waiting"
    attempt: int = 0
    holder: str = ""
    since: int = 0  # when its holder was last heard of
    due: int = 0
    timed: bool = False  # it is among those that are due at some time; may be so though it is not parked any more
    turn: int = 0  # its place in the stream
    marked: bool = False  # somebody cancelled it while it was with a worker
    letter: bool = False  # it has a dead letter
    record: tuple[State, int] | None = None  # what is remembered of it: a state, and the try it was in
    next: list["ModelJob"] = field(default_factory=list)
    id: str = ""
    entry: str = ""

    @property
    def account(self) -> str:
        return self.stage.account(self.tenant)

    def held_by(self, consumer: str, attempt: int) -> bool:
        """Whether this very delivery is the one that counts."""
        return self.where == "active" and (self.holder, self.attempt) == (consumer, attempt)

    def view(self) -> tuple[State, int] | None:
        """State and attempt as they are shown; None where nothing is remembered."""
        match self.where:
            case "delayed" | "active" | "retrying" as state:
                return state, self.attempt
            case "held" | "waiting" | "released" | "limited":
                return "waiting", self.attempt
            case _:
                return self.record


class Model:
    """All jobs of some stages, in the order in which they were accepted."""

    def __init__(self, stages: Iterable[Stage]) -> None:
        self.stages = {stage.name: stage for stage in stages}
        self.time = 0
        self.jobs: list[ModelJob] = []
        self.paused: set[str] = set()
        self.draining: set[str] = set()
        self.full: set[str] = set()  # until they are down to their low-water mark
        self.groupless = set(self.stages)
        self.dedups: dict[tuple[str, str], ModelJob] = {}
        self._lines: dict[tuple[str, str], deque[ModelJob]] = defaultdict(deque)
        self._turns = count(1)

    # ── looking ──────────────────────────────────────────────────────────────────────────────────

    def having(self, stage: Stage, places: AbstractSet[Where]) -> list[ModelJob]:
        """The stage's jobs in some places."""
        return [job for job in self.jobs if job.stage is stage and job.where in places]

    def in_stream(self, stage: Stage) -> list[ModelJob]:
        """The stage's jobs in its stream, first come first."""
        return sorted(self.having(stage, IN_STREAM), key=lambda job: job.turn)

    def unfinished(self, stage: Stage) -> list[ModelJob]:
        """What the stage has still to do."""
        return self.having(stage, UNFINISHED)

    def accounts(self, stage: Stage) -> Counter[str]:
        """How many entries each account has in the stream."""
        return Counter(job.account for job in self.in_stream(stage)) if stage.account_limit else Counter()

    def counts(self, stage: Stage) -> dict[str, int]:
        """The figures of `status`."""
        found = Counter(job.where for job in self.jobs if job.stage is stage)
        waiting = found["held"] + found["waiting"] + found["released"] + found["limited"]
        return {
            "waiting": waiting,
            "delayed": found["delayed"],
            "active": found["active"],
            "retrying": found["retrying"],
            "dead": sum(job.letter for job in self.jobs if job.stage is stage),
        }

    # ── jobs come in ─────────────────────────────────────────────────────────────────────────────

    def add(self, stage: Stage, n: int, tenant: str, dedup: str, delay: int) -> ModelJob | None:
        """The job taken, or the earlier one of that dedup id; None where it is refused."""
        if dedup and (earlier := self.dedups.get((stage.name, dedup))):
            return earlier
        if stage.name in self.draining | self.full or len(self.unfinished(stage)) >= stage.high_water:
            return None
        job = self.put(stage, n, tenant, delay)
        if dedup:
            self.dedups[stage.name, dedup] = job
        return job

    def fill(self, stage: Stage) -> None:
        """After jobs were offered: a stage that is full stays so until it is down to its low-water mark."""
        if len(self.unfinished(stage)) >= stage.high_water:
            self.full.add(stage.name)

    def look_for_low_tide(self) -> None:
        """Stages that are down to their low-water mark are full no longer."""
        self.full = {
            name for name in self.full if len(self.unfinished(self.stages[name])) > self.stages[name].low_water
        }

    def put(self, stage: Stage, n: int, tenant: str, delay: int = 0) -> ModelJob:
        """A new job, whatever the stage holds."""
        self.look_for_low_tide()
        job = ModelJob(n, stage, tenant)
        if delay:
            job.where, job.due = "delayed", self.time + delay
        else:
            self._admit(job)
        self.jobs.append(job)
        return job

    def _admit(self, job: ModelJob) -> None:
        limit = job.stage.account_limit
        if limit and self.accounts(job.stage)[job.account] >= limit:
            job.where = "held"
            self._lines[job.stage.name, job.account].append(job)
        else:
            self._append(job)

    def _append(self, job: ModelJob) -> None:
        job.where, job.turn = "waiting", next(self._turns)

    # ── workers take them ────────────────────────────────────────────────────────────────────────

    def fetch(self, stage: Stage, consumer: str, most: int) -> list[ModelJob]:
        """What comes to a consumer that asks for new jobs."""
        if stage.name in self.paused | self.groupless:
            return []
        waiting = [job for job in self.in_stream(stage) if job.where == "waiting"]
        for job in waiting[:most]:
            self._hand_out(job, consumer)
        return waiting[:most]

    def promote(self, due: Iterable[ModelJob]) -> None:
        """Delayed jobs whose time has come are as good as any."""
        for job in due:
            self._admit(job)

    def reclaim(self, stage: Stage, consumer: str, room: int, due: list[ModelJob]) -> list[tuple[ModelJob, str]]:
        """What comes to a consumer that asks for jobs due again or abandoned, and from whom. `due` are the first
        of the parked ones, in the server's order."""
        taken: list[tuple[ModelJob, str]] = []
        for job in due:
            job.timed = False
            if job.where in PARKED:
                self._take(job, consumer, taken)
        for name in sorted({job.holder for job in self.having(stage, {"active"})}):
            held = [job for job in self.in_stream(stage) if job.where == "active" and job.holder == name]
            stale = [job for job in held if self.time - job.since >= LEASE]
            for job in stale[: room - len(taken)]:
                self._take(job, consumer, taken)
        return taken

    def _take(self, job: ModelJob, consumer: str, taken: list[tuple[ModelJob, str]]) -> None:
        if job.marked:
            self._finish(job, "cancelled", ("cancelled", job.attempt))
            return
        taken.append((job, job.holder))
        self._hand_out(job, consumer)

    def _hand_out(self, job: ModelJob, consumer: str) -> None:
        job.where, job.holder, job.since = "active", consumer, self.time
        job.attempt += 1

    # ── and finish them, or not ──────────────────────────────────────────────────────────────────

    def renew(self, job: ModelJob, consumer: str, attempt: int) -> bool:
        """A sign of life; False where the delivery no longer counts."""
        if not job.held_by(consumer, attempt):
            return False
        job.since = self.time
        return True

    def park(self, job: ModelJob, consumer: str, attempt: int, lot: Parking, after: int, left: int) -> bool:
        """Set a job aside with `left` tries behind it; False where the delivery no longer counts."""
        if not job.held_by(consumer, attempt):
            return False
        if lot == "retrying":
            job.record = lot, attempt
        job.where, job.holder, job.attempt = lot, LOTS[lot], left
        job.due, job.timed = self.time + after, True
        return True

    def settle(
        self, job: ModelJob, record: tuple[State, int] | None, forward: Callable[[], list[ModelJob]]
    ) -> bool:
        """Finish a job that anybody holds, and hand it on; False where nobody does."""
        if job.where not in PARKED | {"active"}:
            return False
        following = forward()
        if record:
            job.next = following
        # Who settles without a word leaves what was said of an earlier failure.
        kept: tuple[State, int] | None = ("completed", job.record[1]) if job.record else None
        self._finish(job, "cancelled" if record and record[0] == "cancelled" else "completed", record or kept)
        return True

    def settle_plain(self, job: ModelJob) -> bool:
        """The short way, for what leaves nothing: it finishes a job that its group forgot, too."""
        if job.where == "waiting":
            self._finish(job, "completed", ("completed", job.record[1]) if job.record else None)
            return False
        return self.settle(job, None, list)

    def bury(self, job: ModelJob, consumer: str, attempt: int) -> bool:
        """To the dead letters; False where the delivery no longer counts."""
        if not job.held_by(consumer, attempt):
            return False
        job.letter = True
        self._finish(job, "dead", ("failed", attempt))
        return True

    def replay(self, job: ModelJob) -> ModelJob:
        """A dead letter's job, put back as another one."""
        job.letter = False
        job.next = [self.put(job.stage, job.n, job.tenant)]
        return job.next[0]

    def _finish(self, job: ModelJob, where: Where, record: tuple[State, int] | None) -> None:
        job.where, job.record = where, record
        line = self._lines[job.stage.name, job.account]
        while job.stage.account_limit and line:
            following = line.popleft()
            if following.where == "held":
                self._append(following)
                return

    # ── steering ─────────────────────────────────────────────────────────────────────────────────

    def cancel(self, job: ModelJob) -> Literal["cancelled", "cancelling", "unknown"]:
        """Take a job out, or mark it where it is with a worker."""
        if job.where in ASIDE:
            job.where, job.record = "cancelled", ("cancelled", 0)
        elif job.where == "active":
            job.marked = True
            return "cancelling"
        elif job.where in IN_STREAM:
            job.timed = False
            self._finish(job, "cancelled", ("cancelled", job.attempt))
        else:
            return "unknown"
        return "cancelled"

    def clear(self, stage: Stage, *, active: bool) -> int:
        """Forget the stage's unfinished jobs, those with a worker only if `active`."""
        cleared = [job for job in self.unfinished(stage) if active or job.where != "active"]
        for job in sorted(cleared, key=lambda job: job.where not in ASIDE):
            if job.where in ASIDE:
                job.where = "cleared"
            else:
                job.timed = False
                self._finish(job, "cleared", None)
        return len(cleared)

    def lose_group(self, stage: Stage) -> None:
        """Nobody knows any more who holds what, or how often it was tried."""
        self.groupless.add(stage.name)
        for job in self.having(stage, IN_STREAM):
            job.where, job.attempt, job.holder = "waiting", 0, ""
