"""How busy stages and queues are, and whether they take work in: what is shown over HTTP and on the terminal."""

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import msgspec
from msgspec import UNSET, UnsetType

from pipeline import Broker, Stage
from pipeline.backpressure import Memory
from pipeline.flow import Count, Meter, Place, Pressure, Rates, worst
from pipeline.message import now_ms
from pipeline.views import StageAges, StageStatus

DEPTHS = ("waiting", "delayed", "active", "retrying", "dead")
UNFINISHED = ("waiting", "delayed", "active", "retrying")
RATES = ("in1m", "in5m", "out1m", "out5m")

Rate = float | UnsetType  # missing where nobody watches
Time = float | UnsetType | None


class StageLoad(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """A stage. Rates are jobs a second over 1 and 5 minutes, or as long as the service has watched; ages and times
    are seconds.

    `workers` have `slots` places in which jobs (or batches) run; `utilisation`: how much of them is in use, 0 to 1
    (None: no worker). `drain_seconds` is how long all unfinished jobs will take at the rates of the last minute
    (None: they become no fewer). `demand` is what workers are there for: jobs that could run, or run, or come back
    for another try; those of a paused stage only while they run. The marks are over all partitions, each full by
    itself.
    """

    queue: str
    stage: str
    state: Pressure
    waiting: int
    delayed: int
    active: int
    retrying: int
    dead: int
    paused: bool
    draining: bool
    oldest_waiting: float | None
    in1m: Rate = UNSET
    in5m: Rate = UNSET
    out1m: Rate = UNSET
    out5m: Rate = UNSET
    workers: int
    slots: int
    utilisation: float | None
    drain_seconds: Time = UNSET
    high_water: int
    low_water: int
    demand: int


class QueueLoad(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """A queue: the sums over its stages, its worst stage's state, its oldest job, and its slowest stage's time."""

    queue: str
    state: Pressure
    waiting: int
    delayed: int
    active: int
    retrying: int
    dead: int
    oldest_waiting: float | None
    in1m: Rate = UNSET
    in5m: Rate = UNSET
    out1m: Rate = UNSET
    out5m: Rate = UNSET
    drain_seconds: Time = UNSET
    demand: int
    stages: list[StageLoad]


class Load(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """All of it at `at` (ms since the epoch). `memory` is the share of the server's memory in use."""

    state: Pressure
    memory: float
    at: int
    queues: list[QueueLoad]


class Look(NamedTuple):
    """What Redis was asked, at nearly one moment."""

    statuses: list[StageStatus]
    ages: dict[str, StageAges]
    workers: dict[str, int]
    counts: dict[Place, Count]
    memory: Memory


async def look(broker: Broker, silent: float) -> Look:
    """Ask for everything at once; workers count that were heard of within `silent` seconds. Raises
    ServerUnavailable."""
    asked = (broker.status(), broker.ages(), broker.workers(silent), broker.flow(), broker.memory())
    return Look(*await asyncio.gather(*asked))


def load_of(stages: Sequence[Stage], found: Look, meter: Meter | None = None) -> Load:
    """What was found, judged; with rates where there is a meter."""
    rates = (meter.rates(60), meter.rates(300)) if meter else None
    statuses = {status.stage: status for status in found.statuses}
    queues: dict[str, list[StageLoad]] = {}
    for stage in stages:
        queues.setdefault(stage.queue, []).append(_stage_load(stage, statuses[stage.name], found, rates))
    summed = [_queue_load(queue, members) for queue, members in queues.items()]
    return Load(
        state="shedding" if found.memory.full else worst([queue.state for queue in summed]),
        memory=round(found.memory.used / found.memory.most, 4) if found.memory.most else 0.0,
        at=now_ms(),
        queues=summed,
    )


def _stage_load(
    stage: Stage, status: StageStatus, found: Look, rates: tuple[Mapping[str, Rates], Mapping[str, Rates]] | None
) -> StageLoad:
    counts = [count for (name, _), count in found.counts.items() if name == stage.name]
    workers = found.workers[stage.name]
    return StageLoad(
        **msgspec.structs.asdict(status),
        state=_state(stage, status, counts, found.memory),
        oldest_waiting=found.ages[stage.name].waiting,
        workers=workers,
        slots=workers * stage.concurrency,
        utilisation=min(1.0, round(status.active / (workers * stage.at_once), 4)) if workers else None,
        high_water=stage.high_water * len(counts),
        low_water=stage.low_water * len(counts),
        demand=_demand(status, counts),
        **(_flow(status, rates[0][stage.name], rates[1][stage.name]) if rates else {}),
    )


def _state(stage: Stage, status: StageStatus, counts: Sequence[Count], memory: Memory) -> Pressure:
    if status.draining or memory.full:
        return "shedding"
    return worst([count.pressure(stage) for count in counts])


def _demand(status: StageStatus, counts: Sequence[Count]) -> int:
    if status.paused:
        return status.active
    return status.waiting + status.active + status.retrying + sum(count.due for count in counts)


def _flow(status: StageStatus, minute: Rates, five: Rates) -> dict[str, Any]:
    unfinished = sum(getattr(status, depth) for depth in UNFINISHED)
    return {
        "in1m": round(minute.into, 4),
        "in5m": round(five.into, 4),
        "out1m": round(minute.out, 4),
        "out5m": round(five.out, 4),
        "drain_seconds": drain_seconds(unfinished, minute),
    }


def drain_seconds(unfinished: int, rates: Rates) -> float | None:
    """How long until nothing is left at these rates; None: never."""
    if not unfinished:
        return 0.0
    return round(unfinished / (rates.out - rates.into), 1) if rates.out > rates.into else None


def _queue_load(queue: str, stages: list[StageLoad]) -> QueueLoad:
    ages = [stage.oldest_waiting for stage in stages if stage.oldest_waiting is not None]
    counts: dict[str, Any] = {name: sum(getattr(stage, name) for stage in stages) for name in (*DEPTHS, "demand")}
    rates: dict[str, Any] = {rate: _sum([getattr(stage, rate) for stage in stages]) for rate in RATES}
    return QueueLoad(
        queue=queue,
        state=worst([stage.state for stage in stages]),
        **counts,
        **rates,
        oldest_waiting=max(ages, default=None),
        drain_seconds=_slowest([stage.drain_seconds for stage in stages]),
        stages=stages,
    )


def _sum(rates: Sequence[Rate]) -> Rate:
    known = [rate for rate in rates if not isinstance(rate, UnsetType)]
    return round(sum(known), 4) if known else UNSET


def _slowest(times: Sequence[Time]) -> Time:
    known = [time for time in times if not isinstance(time, UnsetType)]
    if not known:
        return UNSET
    finite = [time for time in known if time is not None]
    return max(finite) if len(finite) == len(known) else None
