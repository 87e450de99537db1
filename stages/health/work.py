"""Checks of the queues: work that is stuck, dead letters that become more, senders that WhatsApp stopped."""

from collections.abc import Awaitable, Callable, Sequence

import msgspec

from pipeline import Broker
from pipeline.views import StageAges, StageStatus
from stages.health.finding import Finding, State
from stages.notification.log import NotificationLog
from stages.store import StoreUnavailable


class WorkCheck(msgspec.Struct, frozen=True):
    """A finding for each stage. `waiting` and `active` are seconds; a worker counts if it was heard of within
    `silent` seconds."""

    broker: Callable[[], Broker]
    waiting: float
    active: float
    silent: float

    async def __call__(self) -> Sequence[Finding]:
        broker = self.broker()
        ages, workers = await broker.ages(), await broker.workers(self.silent)
        return [
            self._judged(status, ages[status.stage], workers[status.stage]) for status in await broker.status()
        ]

    def _judged(self, status: StageStatus, ages: StageAges, workers: int) -> Finding:
        name, waiting, active = f"work.{status.stage}", ages.waiting or 0.0, ages.active or 0.0
        longest = f"the oldest for {waiting:.0f} s; {status.active} active, for {active:.0f} s"
        detail = f"{status.waiting} waiting, {longest}" if status.waiting or status.active else "nothing to do"
        if active > self.active:
            remedy = "see its worker's log; 'riacho cancel' has a job stopped"
            return Finding(name, "warning", detail, remedy)
        if status.paused:
            return Finding(name, "ok", f"paused; {detail}", "'riacho resume' lets it go on" if waiting else "")
        if status.waiting and ages.waiting is not None and not workers:
            state: State = "failed" if waiting > self.waiting else "warning"
            remedy = f"start one: riacho worker --stages {status.stage}"
            return Finding(name, state, f"no worker; {detail}", remedy)
        if waiting > self.waiting:
            return Finding(name, "warning", detail, "start more workers, or see what holds up those there are")
        return Finding(name, "ok", detail)


class DeadLettersCheck(msgspec.Struct, frozen=True):
    """Whether there are more than at the last check, which is asked of `last_figure` (None: it is not known)."""

    broker: Callable[[], Broker]
    last_figure: Callable[[str], Awaitable[int | None]]

    async def __call__(self) -> Sequence[Finding]:
        dead = {status.stage: status.dead for status in await self.broker().status() if status.dead}
        count = sum(dead.values())
        by_stage = ", ".join(f"{stage} {number}" for stage, number in dead.items())
        detail = f"{count} in all" + (f": {by_stage}" if dead else "")
        try:
            before = await self.last_figure("dead")
        except StoreUnavailable:
            before = None
        if before is not None and count > before:
            more = f"{count - before} more than at the last check; {detail}"
            return [Finding("dead", "warning", more, "see: riacho dead list", figure=count)]
        return [Finding("dead", "ok", detail, figure=count)]


class PausedCheck(msgspec.Struct, frozen=True):
    """Senders that WhatsApp stopped. `there`: whether there is a database."""

    log: NotificationLog
    there: Callable[[], bool]

    async def __call__(self) -> Sequence[Finding]:
        held = await self.log.paused() if self.there() else []
        if not held:
            return [Finding("senders", "ok", "none is paused")]
        names = ", ".join(f"{sender.tenant or '(no tenant)'}: {sender.reason}" for sender in held[:10])
        detail = f"{len(held)} paused; {names}"
        return [Finding("senders", "warning", detail, "mend what stopped them; riacho senders resume TENANT")]
