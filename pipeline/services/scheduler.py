"""Adds the jobs of schedules when they are due; any number of schedulers may do so beside each other."""

import asyncio
import logging
from collections.abc import Callable, Sequence
from contextlib import suppress

from redis.exceptions import RedisError

from pipeline.broker import Broker
from pipeline.broker.scheduling import Advance
from pipeline.errors import RiachoError, ServerUnavailable
from pipeline.message import Added
from pipeline.schedule import Schedule, ScheduleState, Turn, checked, next_slot, turn
from pipeline.services import ticker
from pipeline.signals import Inbox

log = logging.getLogger(__name__)

LONGEST_SLEEP = 30.0  # seconds
PATIENCE = 5.0  # seconds before what could not be added is tried again
CLOCKS_APART = 60.0  # seconds; a dedup id is to outlive its slot by any clock
NEVER = 2**62


class Scheduler:
    """Fires the schedules of the configuration, and those put at run time.

    1. What is due gets its job under a dedup id made of schedule and slot: who comes second is answered the same.
    2. Only then is it noted how far the schedule has come: who dies in between leaves nothing lost or doubled.
    3. Else it sleeps until the next slot, or until somebody changes something.

    The clock is the server's; `clock` is another, in ms since the epoch. Raises BadInput where a schedule of the
    configuration cannot be worked with.
    """

    def __init__(
        self, broker: Broker, schedules: Sequence[Schedule], *, clock: Callable[[], int] | None = None
    ) -> None:
        self._broker = broker
        self._configured = {schedule.name: checked(schedule) for schedule in schedules}
        self._clock = clock
        self._version: int | None = None
        self._claimed = False
        self._all: dict[str, Schedule] = {}
        self._paused: frozenset[str] = frozenset()
        self._next: dict[str, int] = {}  # ms of the next slot of each that is not paused
        self._said: dict[str, str] = {}  # what was logged of a schedule last, so as not to repeat it
        self._waiting: set[str] = set()  # those due that could not be added
        self._inbox: Inbox | None = None

    async def run_once(self) -> int:
        """Add what is due; returns the number of jobs added. Raises ServerUnavailable."""
        now = await self._look()
        due = [name for name, at in self._next.items() if at <= now]
        states = await self._broker.schedule_states(due)
        return sum([await self._attend(self._all[name], states[name], now) for name in due])

    async def sleep(self) -> float:
        """Seconds until there is something to do, half a minute at most."""
        earliest = min((at for name, at in self._next.items() if name not in self._waiting), default=NEVER)
        now = await self._now()
        most = PATIENCE if self._waiting else LONGEST_SLEEP
        return min(most, max(0.001, (earliest - now + 1) / 1000))

    async def run(self, stopping: asyncio.Event) -> None:
        """Fire what is due until told to stop."""
        async with self._broker.schedule_changes() as inbox:
            self._inbox = inbox
            while not stopping.is_set():
                seconds = await ticker.attempt(self._fire_and_sleep, PATIENCE)
                with suppress(TimeoutError):
                    await asyncio.wait_for(inbox.get(), seconds)
                while not inbox.empty():
                    inbox.get_nowait()

    async def _fire_and_sleep(self) -> float:
        await self.run_once()
        return await self.sleep()

    def stop(self) -> None:
        """Wake `run`, which then ends if it was told to stop."""
        if self._inbox:
            self._inbox.put_nowait(None)

    async def _now(self) -> int:
        return self._clock() if self._clock else (await self._broker.schedule_time())[0]

    async def _look(self) -> int:
        """The time; what somebody changed meanwhile is known then."""
        now, version = await self._broker.schedule_time()
        now = self._clock() if self._clock else now
        if version != self._version:
            await self._learn(now)
        else:
            await self._stand_by(now)
        return now

    async def _stand_by(self, now: int) -> None:
        """Say that we are here for the configuration's; those with other times are ours when nobody else is."""
        await self._recall(now)
        ours = [schedule for name, schedule in self._configured.items() if name in self._all]
        await self._broker.see_schedules(ours, now)

    async def _learn(self, now: int) -> None:
        """All schedules, and how far they have come."""
        plans = await self._broker.plans()
        for name in plans.unreadable:
            self._say(name, "cannot be read; it is left to workers of another version")
        others = (schedule for schedule in plans.schedules if schedule.name not in self._configured)
        configured, put = (list(filter(self._has_stage, some)) for some in (self._configured.values(), others))
        await self._recall(now)
        # Whoever starts last has the word on the configuration's; what is put at run time, whoever put it last.
        states = await self._broker.see_schedules(configured, now, anew=not self._claimed)
        states |= await self._broker.see_schedules(put, now)
        self._claimed = True
        self._all = {schedule.name: schedule for schedule in [*configured, *put]}
        self._paused, self._version = plans.paused, plans.version
        self._next.clear()
        self._waiting.clear()
        for name, schedule in self._all.items():
            if name not in self._paused:
                self._plan(schedule, states[name].done)
            await asyncio.sleep(0)  # of a thousand, jobs beside it would feel it

    async def _recall(self, now: int) -> None:
        """What was due when the server is found to have lost how far the configuration's have come, still is."""
        for schedule in self._configured.values():
            if (due := self._next.get(schedule.name, NEVER)) <= now:
                await self._broker.see_schedules([schedule], due - 1, gone_after=NEVER)

    def _has_stage(self, schedule: Schedule) -> bool:
        """Whether this worker knows its stage; one of an older version may meet a newer configuration."""
        known = any(stage.name == schedule.stage for stage in self._broker.pipeline)
        if not known:
            self._say(schedule.name, f"is left out: there is no stage '{schedule.stage[:80]}' here")
        return known

    def _plan(self, schedule: Schedule, after: int) -> None:
        self._next[schedule.name] = next_slot(schedule, after) or NEVER

    def _say(self, name: str, what: str) -> None:
        """Once, and not each time it is tried again."""
        if self._said.get(name) != what:
            self._said[name] = what
            log.warning("schedule '%s' %s", name, what)

    async def _attend(self, schedule: Schedule, state: ScheduleState, now: int) -> int:
        """One schedule that may be due; its errors do not hold up the others."""
        try:
            return await self._fire(schedule, state, now)
        except (ServerUnavailable, RedisError):
            raise
        except RiachoError as error:
            self._say(schedule.name, f"cannot be fired: {error}")
        except Exception:
            log.exception("schedule '%s' failed", schedule.name)
        self._waiting.add(schedule.name)
        return 0

    async def _fire(self, schedule: Schedule, state: ScheduleState, now: int) -> int:
        if not state.fingerprint:  # the server has lost it: begin anew
            self._version = None
            return 0
        if state.fingerprint != schedule.fingerprint:
            self._say(schedule.name, "is left to workers that started later with other times for it")
            self._plan(schedule, now)
            return 0
        todo = turn(schedule, state, now, grace=self._grace(schedule))
        if todo is None:  # another one was first
            self._waiting.discard(schedule.name)
            self._plan(schedule, state.done)
            return 0
        added = await self._broker.add_slots(schedule, todo.fire) if todo.fire else []
        return await self._note(schedule, state, todo, added, now)

    def _grace(self, schedule: Schedule) -> float:
        """Seconds; a slot is not fired when its dedup id may be forgotten."""
        kept = self._broker.pipeline.stage(schedule.stage).dedup_ttl - CLOCKS_APART
        return max(0.0, min(schedule.grace, kept))

    async def _note(
        self, schedule: Schedule, state: ScheduleState, todo: Turn, added: list[Added], now: int
    ) -> int:
        step, refused = _step(state, todo, added, now)
        state = await self._broker.advance_schedule(schedule, state, step)
        if step.missed:
            log.warning("schedule '%s': %d times that were missed are left out", schedule.name, step.missed)
        if refused:
            self._say(schedule.name, f"waits: {schedule.stage} takes no job now ({_reason(added)})")
            self._waiting.add(schedule.name)
        else:
            self._said.pop(schedule.name, None)
            self._waiting.discard(schedule.name)
        self._plan(schedule, state.done)
        return sum(answer.id is not None and not answer.duplicate for answer in added)


def _step(state: ScheduleState, todo: Turn, added: Sequence[Added], now: int) -> tuple[Advance, bool]:
    """How far the answers bring a schedule, and whether a slot of it was refused, which stays due."""
    taken = next((n for n, answer in enumerate(added) if answer.id is None), len(added))
    refused = taken < len(added)
    until = todo.until
    if refused:
        before = [slot for slot in [*todo.missed, *todo.fire] if slot < todo.fire[taken]]
        until = max(before, default=state.done)
    step = Advance(
        until,
        missed=sum(slot <= until for slot in todo.missed),
        refused=todo.fire[-1] if refused else 0,
        slot=todo.fire[taken - 1] if taken else 0,
        fired=now if taken else 0,
        job=str(added[taken - 1].id) if taken else "",
    )
    return step, refused


def _reason(added: Sequence[Added]) -> str:
    return next((answer.refusal.reason for answer in added if answer.refusal), "")
