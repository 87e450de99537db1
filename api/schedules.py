"""Schedules: those of the configuration, and how all of them are, for the command line and over HTTP."""

import asyncio
import hashlib
from collections.abc import Collection, Sequence
from datetime import UTC, datetime
from typing import Any, Literal

import msgspec
from aiohttp import web

from api.operations import REFUSALS, Answer, Operation, in_path
from api.problems import Handler, json, problem_of_refusal
from config import Settings
from pipeline import Broker, JobId, Schedule
from pipeline.errors import BadInput, BadJobId, Refused, UnknownSchedule, UnknownStage, did_you_mean
from pipeline.schedule import NAME, ScheduleState, checked, next_slot

# By name, which is that of the stage, too: the setting.
CONFIGURED = {name.replace("_", "-"): name for name in ("tts_cache", "conversations", "logs", "stats", "health")}


class Moment(msgspec.Struct, frozen=True):
    """A time, for people (ISO 8601, UTC) and for programs."""

    iso: str
    ms: int


class LastFired(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True):
    """A schedule's last job: of which slot (none, if it was out of turn), when, and what became of it, while that
    is remembered."""

    fired_at: Moment
    job_id: str
    slot: Moment | None = None
    state: str = ""
    result: Any = None
    error: str = ""


class ScheduleView(msgspec.Struct, frozen=True, rename="camel"):
    """A schedule as it is now. `next` is none while it is paused, or where this pipeline has no such stage."""

    name: str
    cron: str
    zone: str
    stage: str
    queue: str
    tenant: str
    misfire: str
    grace: float
    paused: bool
    source: Literal["config", "runtime"]
    next: Moment | None
    last: LastFired | None
    missed: int


class Fired(msgspec.Struct, frozen=True, rename="camel"):
    """The job that a schedule added out of turn."""

    job_id: str


class Rests(msgspec.Struct, frozen=True):
    """Whether a schedule adds jobs."""

    schedule: str
    paused: bool


class Schedules(msgspec.Struct, frozen=True):
    """The schedules that there are, the configuration's first."""

    schedules: list[ScheduleView]


FIRED = {202: Answer(description="Added.", form=Fired)}
RESTS = {200: Answer(description="Whether it rests.", form=Rests)}


def configured_schedules(settings: Settings) -> list[Schedule]:
    """The schedules of the configuration. Raises BadInput where one of them cannot be."""
    given = settings.schedules
    common: dict[str, Any] = {"zone": given.zone, "misfire": given.misfire, "grace": given.grace}
    found = []
    for name, setting in CONFIGURED.items():
        if cron := getattr(given, setting):
            found.append(Schedule(name=name, cron=cron, stage=name, **common))
    found += [
        Schedule(name=_named(kind, tenant), cron=settings.sync.every, stage=kind, tenant=tenant, **common)
        for tenant in (settings.sync.shops if settings.sync.every else ())
        for kind in ("products", "orders")
    ]
    taken = CONFIGURED.keys() | {schedule.name for schedule in found}
    for name, own in given.own.items():
        if name in taken:
            raise BadInput(f"schedules.own has '{name}', which is one of Riacho's; choose another name")
        changed = {"zone": own.zone, "misfire": own.misfire, "grace": own.grace}
        about = common | {key: value for key, value in changed.items() if value not in ("", None)}
        if own.cron:
            found.append(
                Schedule(
                    name=name, cron=own.cron, stage=own.stage, payload=own.payload, tenant=own.tenant, **about
                )
            )
    return [checked(schedule) for schedule in found]


def _named(kind: str, tenant: str) -> str:
    """The name of the schedule that pulls from a tenant's shop."""
    name = f"{kind}-{tenant}"
    return name if NAME.fullmatch(name) else f"{kind}-{hashlib.sha256(tenant.encode()).hexdigest()[:12]}"


class ScheduleEndpoints:
    """What is asked of schedules over HTTP."""

    def __init__(self, broker: Broker, configured: list[Schedule]) -> None:
        self._broker = broker
        self._configured = configured
        self._names = {schedule.name for schedule in configured}

    def operations(self) -> Sequence[Operation]:
        """Everything that is here, as it is reached over HTTP."""
        return [
            Operation(
                method="GET",
                path="/queue/scheduled-jobs",
                handler=self.list,
                scope="read",
                group="schedules",
                name="schedules",
                summary="Jobs that come again and again: when next, what became of the last",
                answers={200: Answer(description="Every schedule.", form=Schedules)},
            ),
            self._steers(
                "run",
                self.run,
                "Add its job now, besides its times",
                FIRED,
            ),
            self._steers("pause", self.pause, "Add no more of its jobs until it is resumed", RESTS),
            self._steers("resume", self.resume, "Go on; what was due meanwhile is not made up for", RESTS),
        ]

    def _steers(self, verb: str, handler: Handler, summary: str, answers: dict[int, Answer]) -> Operation:
        return Operation(
            method="POST",
            path=f"/queue/schedule/{{name}}/{verb}",
            handler=handler,
            scope="admin",
            group="schedules",
            name=f"{verb}Schedule",
            summary=summary,
            parameters=(in_path("name", str, "The schedule's name.", "stats"),),
            answers=answers,
            problems={404: "No such schedule."} | (REFUSALS if verb == "run" else {}),
        )

    async def list(self, _: web.Request) -> web.Response:
        """GET /queue/scheduled-jobs."""
        return json(Schedules(await views(self._broker, self._configured)))

    async def run(self, request: web.Request) -> web.Response:
        """POST /queue/schedule/{name}/run: add its job now, besides its times."""
        schedule = await find(self._broker, self._configured, request.match_info["name"])
        try:
            return json(Fired(str(await self._broker.fire_schedule(schedule))), status=202)
        except Refused as error:
            raise problem_of_refusal(self._broker.pipeline.stage(schedule.stage), error.refusal) from None

    async def pause(self, request: web.Request) -> web.Response:
        """POST /queue/schedule/{name}/pause: no more of its jobs until it is resumed."""
        name = request.match_info["name"]
        await self._broker.pause_schedule(name, self._names)
        return json(Rests(name, paused=True))

    async def resume(self, request: web.Request) -> web.Response:
        """POST /queue/schedule/{name}/resume: go on; what was due meanwhile is not made up for."""
        name = request.match_info["name"]
        await self._broker.resume_schedule(name, self._names)
        return json(Rests(name, paused=False))


async def views(broker: Broker, configured: list[Schedule]) -> list[ScheduleView]:
    """Every schedule as it is now, the configuration's first."""
    plans = await broker.plans()
    names = {schedule.name for schedule in configured}
    put = sorted((each for each in plans.schedules if each.name not in names), key=lambda each: each.name)
    now, _ = await broker.schedule_time()
    everyone = [*configured, *put]
    states = await broker.schedule_states([schedule.name for schedule in everyone])
    return [
        await _view(broker, schedule, states[schedule.name], now, names, plans.paused) for schedule in everyone
    ]


async def find(broker: Broker, configured: list[Schedule], name: str) -> Schedule:
    """The schedule of that name. Raises UnknownSchedule."""
    known = {schedule.name: schedule for schedule in [*(await broker.plans()).schedules, *configured]}
    if name not in known:
        raise UnknownSchedule(f"no schedule '{name[:80]}'{did_you_mean(name, known)}")
    return known[name]


async def _view(
    broker: Broker,
    schedule: Schedule,
    state: ScheduleState,
    now: int,
    configured: Collection[str],
    paused: Collection[str],
) -> ScheduleView:
    queue = _queue(broker, schedule.stage)
    rests = schedule.name in paused
    # What is due by now and not fired yet, as its stage is full say, is still to come.
    begun = state.done if state.fingerprint == schedule.fingerprint else now
    coming = next_slot(schedule, begun) if queue and not rests else None
    return ScheduleView(
        schedule.name,
        schedule.cron,
        schedule.zone,
        schedule.stage,
        queue,
        schedule.tenant,
        schedule.misfire,
        schedule.grace,
        paused=rests,
        source="config" if schedule.name in configured else "runtime",
        next=_moment(coming) if coming else None,
        last=await _last(broker, state),
        missed=state.missed,
    )


def _queue(broker: Broker, stage: str) -> str:
    return next((each.queue for each in broker.pipeline if each.name == stage), "")


async def _last(broker: Broker, state: ScheduleState) -> LastFired | None:
    if not state.job:
        await asyncio.sleep(0)  # there may be a thousand, and nobody else would be answered meanwhile
        return None
    last = LastFired(_moment(state.fired), state.job, _moment(state.slot) if state.slot else None)
    try:
        job = await broker.look(JobId.parse(state.job))
    except (UnknownStage, BadJobId):  # of a pipeline that had such a stage
        return last
    if job is None:
        return last
    return msgspec.structs.replace(last, state=job.state, result=job.result, error=job.error)


def _moment(ms: int) -> Moment:
    return Moment(datetime.fromtimestamp(ms / 1000, UTC).isoformat(timespec="seconds"), ms)
