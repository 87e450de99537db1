"""Jobs that come again and again: what is known of their schedules, and how far these have come."""

import asyncio
from collections.abc import Collection, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any, NamedTuple

import msgspec

from pipeline import scripts
from pipeline.broker.producing import Producing
from pipeline.errors import BadInput, UnknownSchedule, did_you_mean
from pipeline.message import Added, Job, JobId, now_ms
from pipeline.schedule import Plans, Schedule, ScheduleState, checked
from pipeline.signals import Inbox

MOST_SCHEDULES = 1000  # put at run time
GONE_AFTER = 120_000  # ms without a look at its schedules, after which a scheduler is taken to be gone


class Advance(NamedTuple):
    """A step of a schedule: all is done up to `done`, `missed` slots on the way have no job, and slots up to
    `refused` were refused. `slot` is the newest one that has a job, `job`, since `fired`. Times in ms, 0: none."""

    done: int
    missed: int = 0
    refused: int = 0
    slot: int = 0
    fired: int = 0
    job: str = ""


class Scheduling(Producing):
    """For schedulers, and whoever puts, looks at and stops schedules.

    Where something happens at a time, `at_ms` is that; without it, it is the server's.
    """

    async def put_schedule(
        self, schedule: Schedule, configured: Collection[str] = (), *, at_ms: int | None = None
    ) -> None:
        """Keep a schedule, or change one. Raises BadInput, UnknownStage or BadPayload where it could not be worked
        with, or where its name is that of a configured one."""
        if schedule.name in configured:
            raise BadInput(
                f"schedule '{schedule.name}' is the configuration's; change it there, or choose another name"
            )
        self._job(checked(schedule))
        keys = self._keys.schedules
        at = "" if at_ms is None else at_ms
        args = [
            schedule.name,
            msgspec.json.encode(schedule),
            schedule.fingerprint,
            MOST_SCHEDULES,
            at,
            keys.changes,
        ]
        places = [keys.definitions, keys.version, self._keys.schedule(schedule.name)]
        if not await scripts.plan(self._wire, places, args):
            raise BadInput(
                f"there are {MOST_SCHEDULES} schedules, which are the most; remove one before '{schedule.name}'"
            )

    async def remove_schedule(self, name: str, configured: Collection[str] = ()) -> None:
        """Forget a schedule that was put at run time. Raises UnknownSchedule, and BadInput where it is the
        configuration's."""
        keys = self._keys.schedules
        if not await self._wire.command("HEXISTS", keys.definitions, name):
            if name in configured:
                raise BadInput(f"schedule '{name}' is the configuration's; an empty expression there turns it off")
            raise await self._unknown_schedule(name, ())
        commands: list[tuple[Any, ...]] = [("HDEL", keys.definitions, name)]
        if name not in configured:
            commands += ("DEL", self._keys.schedule(name)), ("SREM", keys.paused, name)
        await self._change(commands)

    async def pause_schedule(self, name: str, configured: Collection[str] = ()) -> None:
        """Have a schedule come no more until it is resumed. Raises UnknownSchedule."""
        await self._check_known(name, configured)
        await self._change([("SADD", self._keys.schedules.paused, name)])

    async def resume_schedule(
        self, name: str, configured: Collection[str] = (), *, at_ms: int | None = None
    ) -> None:
        """Have a schedule go on; what was due while it was paused is not made up for. Raises
        UnknownSchedule."""
        await self._check_known(name, configured)
        keys = self._keys.schedules
        places = [keys.paused, keys.version, self._keys.schedule(name)]
        await scripts.unpause(self._wire, places, [name, "" if at_ms is None else at_ms, keys.changes])

    async def fire_schedule(self, schedule: Schedule) -> JobId:
        """Add a schedule's job now, besides its slots. Raises what `enqueue` raises."""
        job = await self.enqueue(self._job(schedule))
        state = self._keys.schedule(schedule.name)
        await self._wire.command("HSET", state, "slot", 0, "fired", now_ms(), "job", str(job))
        return job

    async def add_slots(self, schedule: Schedule, slots: Sequence[int]) -> list[Added]:
        """Add the job of each of these slots, if it was not added already. Raises UnknownStage or BadPayload."""
        job = self._job(schedule)
        dedups = [f"schedule:{schedule.name}:{slot}" for slot in slots]
        return await self.add([msgspec.structs.replace(job, dedup=dedup) for dedup in dedups])

    def _job(self, schedule: Schedule) -> Job:
        stage = self.pipeline.stage(schedule.stage)
        payload = self.pipeline.payload(stage, schedule.payload, schedule.tenant)
        return Job(stage=stage.name, payload=payload, tenant=schedule.tenant, key=schedule.name)

    async def plans(self) -> Plans:
        """What was put at run time."""
        keys = self._keys.schedules
        commands = [("GET", keys.version), ("HGETALL", keys.definitions), ("SMEMBERS", keys.paused)]
        version, definitions, paused = await self._together(commands)
        schedules, unreadable = [], []
        for name, definition in zip(definitions[::2], definitions[1::2], strict=True):
            try:
                schedules.append(checked(msgspec.json.decode(definition, type=Schedule)))
            except (BadInput, ValueError):  # by a newer version, say
                unreadable.append(name.decode())
            await asyncio.sleep(0)  # there may be a thousand
        return Plans(int(version or 0), schedules, unreadable, frozenset(name.decode() for name in paused))

    async def schedule_time(self) -> tuple[int, int]:
        """The server's time in ms, and the version of what was put at run time."""
        (seconds, micros), version = await self._together([("TIME",), ("GET", self._keys.schedules.version)])
        return int(seconds) * 1000 + int(micros) // 1000, int(version or 0)

    def schedule_changes(self) -> AbstractAsyncContextManager[Inbox]:
        """Tells that there is a new version."""
        return self._signals.listen(self._keys.schedules.changes)

    async def see_schedules(
        self, schedules: Sequence[Schedule], at_ms: int, *, anew: bool = False, gone_after: int = GONE_AFTER
    ) -> dict[str, ScheduleState]:
        """How far schedules have come, by name; those that nobody knows yet begin at `at_ms`, as do those that are
        known with other times if `anew`, or if nobody with those looked at them for `gone_after` ms."""
        if not schedules:
            return {}
        places = [self._keys.schedule(schedule.name) for schedule in schedules]
        prints = [schedule.fingerprint for schedule in schedules]
        found: list[list[bytes]] = await scripts.see(self._wire, places, [at_ms, int(anew), gone_after, *prints])
        return {schedule.name: _state(each) for schedule, each in zip(schedules, found, strict=True)}

    async def schedule_states(self, names: Collection[str]) -> dict[str, ScheduleState]:
        """How far schedules have come, by name."""
        found = await self._together([("HGETALL", self._keys.schedule(name)) for name in names]) if names else []
        return {name: _state(each) for name, each in zip(names, found, strict=True)}

    async def advance_schedule(self, schedule: Schedule, state: ScheduleState, step: Advance) -> ScheduleState:
        """Note a step from `state`; how far the schedule has come, whoever was first."""
        args = [schedule.fingerprint, state.done, step.done, step.missed, step.refused or "", step.slot or ""]
        found = await scripts.advance(
            self._wire, [self._keys.schedule(schedule.name)], [*args, step.fired, step.job]
        )
        return _state(found)

    async def _change(self, commands: Sequence[tuple[Any, ...]]) -> None:
        keys = self._keys.schedules
        await self._together([*commands, ("INCR", keys.version), ("PUBLISH", keys.changes, "")])

    async def _check_known(self, name: str, configured: Collection[str]) -> None:
        if name not in configured and not await self._wire.command(
            "HEXISTS", self._keys.schedules.definitions, name
        ):
            raise await self._unknown_schedule(name, configured)

    async def _unknown_schedule(self, name: str, configured: Collection[str]) -> UnknownSchedule:
        put: list[bytes] = await self._wire.command("HKEYS", self._keys.schedules.definitions)
        known = [*configured, *(each.decode() for each in put)]
        return UnknownSchedule(f"no schedule '{name[:80]}'{did_you_mean(name, known)}")


def _state(found: list[bytes]) -> ScheduleState:
    known: Mapping[str, str] = {
        name.decode(): value.decode() for name, value in zip(found[::2], found[1::2], strict=True)
    }
    return msgspec.convert(known, ScheduleState, strict=False)
