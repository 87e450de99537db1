"""What was seen, as Prometheus takes it. Labels are queues, stages and states: there are only so many.

`/metrics` has it as it is when it is asked for, beside the process's own figures; `Observed` has it for OTLP.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from typing import NamedTuple

from aiohttp import web
from opentelemetry.metrics import CallbackOptions, Meter, Observation
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from api.load import DEPTHS, Load, StageLoad
from api.watching import Seen, Watch
from pipeline.backpressure import Memory
from pipeline.flow import RISING
from pipeline.services.ticker import every

STAGE = ("queue", "stage")
LOOK_EVERY = 10.0  # seconds between two looks for those who get the figures sent
GOOD_FOR = 30.0  # seconds; older ones say nothing of how it is


class Figure(NamedTuple):
    """A gauge that every stage has one of."""

    name: str
    help: str
    of: Callable[[StageLoad], float]


FIGURES = (
    Figure(
        "riacho_stage_oldest_waiting_seconds",
        "For how long the oldest job could have run and did not; 0: there is none.",
        lambda stage: stage.oldest_waiting or 0.0,
    ),
    Figure("riacho_stage_workers", "Workers heard of within a lease.", lambda stage: stage.workers),
    Figure("riacho_stage_slots", "Places of these in which jobs (or batches) run.", lambda stage: stage.slots),
    Figure(
        "riacho_stage_high_water_jobs",
        "Unfinished jobs above which the stage refuses new ones.",
        lambda stage: stage.high_water,
    ),
    Figure(
        "riacho_stage_low_water_jobs",
        "Unfinished jobs to which a stage that was full has to come down before it takes new ones.",
        lambda stage: stage.low_water,
    ),
    Figure("riacho_stage_paused", "1: no job of the stage is started.", lambda stage: stage.paused),
    Figure(
        "riacho_stage_demand_jobs",
        "Jobs that take a worker: ready, due, running or to be tried again. To scale by, from 0 workers on.",
        lambda stage: stage.demand,
    ),
)

# By Prometheus' name: as OTel has it, and the unit.
AS_OTEL = {
    "riacho_stage_jobs": ("riacho.stage.jobs", "{job}"),
    "riacho_stage_state": ("riacho.stage.state", "1"),
    "riacho_stage_oldest_waiting_seconds": ("riacho.stage.oldest_waiting", "s"),
    "riacho_stage_workers": ("riacho.stage.workers", "{worker}"),
    "riacho_stage_slots": ("riacho.stage.slots", "{slot}"),
    "riacho_stage_high_water_jobs": ("riacho.stage.high_water_jobs", "{job}"),
    "riacho_stage_low_water_jobs": ("riacho.stage.low_water_jobs", "{job}"),
    "riacho_stage_paused": ("riacho.stage.paused", "1"),
    "riacho_stage_demand_jobs": ("riacho.stage.demand_jobs", "{job}"),
    "riacho_stage_added": ("riacho.stage.added", "{job}"),
    "riacho_stage_finished": ("riacho.stage.finished", "{job}"),
    "riacho_redis_memory_used_bytes": ("riacho.redis.memory_used", "By"),
    "riacho_redis_memory_limit_bytes": ("riacho.redis.memory_limit", "By"),
}

NOTHING = Seen(Load(state="ok", memory=0.0, at=0, queues=[]), Memory(0, 0, full=False), {})


def exposition(seen: Seen, own: CollectorRegistry | None = None) -> bytes:
    """Prometheus' text format, with the process's own figures where there are some."""
    return generate_latest(_Together(seen, own))


class Observed:
    """The same figures as OTel's, of the last look: whoever sends them cannot wait for Redis."""

    def __init__(self, watch: Watch, meter: Meter) -> None:
        self._watch = watch
        for family in _families(NOTHING):
            name, unit = AS_OTEL[family.name]
            make = meter.create_observable_counter if family.type == "counter" else meter.create_observable_gauge
            make(name, [self._teller(family.name)], unit=unit, description=family.documentation)

    async def running(self, _: web.Application) -> AsyncIterator[None]:
        """Look now and then while the application runs."""
        looking = asyncio.create_task(every(LOOK_EVERY, self._watch.refresh, asyncio.Event()))
        yield
        looking.cancel()
        await asyncio.wait([looking])

    def _teller(self, name: str) -> Callable[[CallbackOptions], Iterable[Observation]]:
        def tell(_: CallbackOptions) -> Iterable[Observation]:
            seen = self._watch.last(GOOD_FOR)
            families = _families(seen) if seen else ()
            return [
                Observation(float(sample.value), sample.labels)
                for family in families
                if family.name == name
                for sample in family.samples
            ]

        return tell


class _Together(Collector):
    """What was seen, then what the process has of its own, but for what was said already."""

    def __init__(self, seen: Seen, own: CollectorRegistry | None) -> None:
        self._seen, self._own = seen, own

    def collect(self) -> Iterable[Metric]:
        yield from _families(self._seen)
        if self._own:
            yield from (family for family in self._own.collect() if family.name not in AS_OTEL)


def _families(seen: Seen) -> Iterator[Metric]:
    stages = [stage for queue in seen.load.queues for stage in queue.stages]
    yield _by_state("riacho_stage_jobs", "Jobs of the stage.", stages, DEPTHS, getattr)
    yield _by_state(
        "riacho_stage_state",
        "1 for how the stage takes jobs in: ok, throttling (above the low-water mark), shedding (it refuses).",
        stages,
        RISING,
        lambda stage, state: stage.state == state,
    )
    yield from (_figure(figure, stages) for figure in FIGURES)
    yield from _counters(seen, stages)
    yield GaugeMetricFamily("riacho_redis_memory_used_bytes", "Memory that Redis uses.", seen.memory.used)
    yield GaugeMetricFamily("riacho_redis_memory_limit_bytes", "Memory that Redis may use.", seen.memory.most)


def _counters(seen: Seen, stages: Sequence[StageLoad]) -> Iterator[Metric]:
    added = CounterMetricFamily("riacho_stage_added", "Jobs that came in, each once.", labels=STAGE)
    finished = CounterMetricFamily("riacho_stage_finished", "Jobs that ended in whatever way.", labels=STAGE)
    for stage in stages:
        added.add_metric(_labels(stage), seen.totals[stage.stage].added)
        finished.add_metric(_labels(stage), seen.totals[stage.stage].finished)
    yield added
    yield finished


def _labels(stage: StageLoad) -> list[str]:
    return [stage.queue, stage.stage]


def _figure(figure: Figure, stages: Sequence[StageLoad]) -> Metric:
    family = GaugeMetricFamily(figure.name, figure.help, labels=STAGE)
    for stage in stages:
        family.add_metric(_labels(stage), figure.of(stage))
    return family


def _by_state(
    name: str,
    about: str,
    stages: Sequence[StageLoad],
    states: Sequence[str],
    value: Callable[[StageLoad, str], float],
) -> Metric:
    family = GaugeMetricFamily(name, about, labels=(*STAGE, "state"))
    for stage in stages:
        for state in states:
            family.add_metric([*_labels(stage), state], value(stage, state))
    return family
