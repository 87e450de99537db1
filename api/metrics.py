"""What was seen, as Prometheus takes it. Labels are queues, stages and states: there are only so many."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple

from prometheus_client import generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from api.load import DEPTHS, StageLoad
from api.watching import Seen
from pipeline.flow import RISING

STAGE = ("queue", "stage")


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


def exposition(seen: Seen) -> bytes:
    """Prometheus' text format."""
    return generate_latest(_Collected(seen))


class _Collected(Collector):
    def __init__(self, seen: Seen) -> None:
        self._seen = seen

    def collect(self) -> Iterable[Metric]:
        stages = [stage for queue in self._seen.load.queues for stage in queue.stages]
        yield _by_state("riacho_stage_jobs", "Jobs of the stage.", stages, DEPTHS, getattr)
        yield _by_state(
            "riacho_stage_state",
            "1 for how the stage takes jobs in: ok, throttling (above the low-water mark), shedding (it refuses).",
            stages,
            RISING,
            lambda stage, state: stage.state == state,
        )
        yield from (_figure(figure, stages) for figure in FIGURES)
        yield from self._counters(stages)
        yield from self._memory()

    def _counters(self, stages: Sequence[StageLoad]) -> Iterator[Metric]:
        totals = self._seen.totals
        added = CounterMetricFamily("riacho_stage_added", "Jobs that came in, each once.", labels=STAGE)
        finished = CounterMetricFamily("riacho_stage_finished", "Jobs that ended in whatever way.", labels=STAGE)
        for stage in stages:
            added.add_metric(_labels(stage), totals[stage.stage].added)
            finished.add_metric(_labels(stage), totals[stage.stage].finished)
        yield added
        yield finished

    def _memory(self) -> Iterator[Metric]:
        memory = self._seen.memory
        yield GaugeMetricFamily("riacho_redis_memory_used_bytes", "Memory that Redis uses.", memory.used)
        yield GaugeMetricFamily("riacho_redis_memory_limit_bytes", "Memory that Redis may use.", memory.most)


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
