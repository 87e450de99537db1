"""Figures of the engine, by the OTel API alone: without an SDK set up nothing is counted, and no clock is read.

Whoever has something to count asks once, when it is made, for `work()` or `sending()`; None says that nobody wants
to know. Names and attributes follow the messaging conventions (semconv 1.44, still in development) where there are
some. No attribute is a tenant's or a job's: there are only so many of each.
"""

import functools
import time
import weakref
from collections.abc import Iterable, Mapping, Sequence
from typing import Protocol

from opentelemetry import metrics
from opentelemetry.metrics import (
    CallbackOptions,
    Counter,
    Histogram,
    Meter,
    MeterProvider,
    NoOpMeter,
    Observation,
)

from pipeline import conventions as names
from pipeline.keys import GROUP
from pipeline.message import Delivery
from pipeline.outcome import Bury, Ending, Retry, Settled
from pipeline.stage import Stage

SCOPE = "riacho"
OTHER = "_OTHER"  # as the conventions call a value that is one too many

# Upper bounds of buckets: from half a millisecond to ten minutes, from one to a thousand.
DURATIONS = (
    *(0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5),
    *(1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0),
)
SIZES = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000)

Attributes = Mapping[str, str]


def provider() -> MeterProvider | None:
    """Who collects what is measured; None: nobody set up an SDK."""
    found = metrics.get_meter_provider()
    return None if type(found).__module__.startswith("opentelemetry.metrics") else found


def meter() -> Meter:
    """Makes instruments; of those it makes without an SDK nobody hears."""
    found = provider()
    return found.get_meter(SCOPE) if found else NoOpMeter(SCOPE)


def duration(meter: Meter, name: str, description: str) -> Histogram:
    """A histogram of seconds."""
    return meter.create_histogram(
        name, unit="s", description=description, explicit_bucket_boundaries_advisory=DURATIONS
    )


def work() -> "Work | None":
    """The figures of this process's workers, if anybody wants them."""
    found = provider()
    return _work(found) if found else None


def sending() -> "Sending | None":
    """The figures of whoever talks to Redis, if anybody wants them."""
    found = provider()
    return _sending(found) if found else None


@functools.lru_cache(maxsize=8)
def _work(provider: MeterProvider) -> "Work":
    return Work(provider.get_meter(SCOPE))


@functools.lru_cache(maxsize=8)
def _sending(provider: MeterProvider) -> "Sending":
    return Sending(provider.get_meter(SCOPE))


class Few:
    """An attribute's values as they come from outside: the first `most` of them, OTHER for any more."""

    def __init__(self, most: int = 50) -> None:
        self._most = most
        self._known: set[str] = set()

    def __call__(self, value: str) -> str:
        if value not in self._known:
            if len(self._known) >= self._most:
                return OTHER
            self._known.add(value)
        return value


class Place(Protocol):
    """Where a worker runs the jobs of one stage: a lane."""

    stage: Stage

    @property
    def busy(self) -> int:
        """Slots that run a job, or a batch."""


class _Stage:
    """What is said of one stage, made once, and how many of its tries began."""

    def __init__(self, stage: Stage) -> None:
        self.labels = labels(stage)
        self.process = names.messaging("process", stage.full_name) | {names.GROUP: GROUP.decode()}
        self.started = 0
        self._outcomes: dict[str, dict[str, str]] = {}
        self._failures = {"": self.process}
        self._few = Few()

    def outcome(self, outcome: str) -> Attributes:
        if outcome not in self._outcomes:
            self._outcomes[outcome] = self.labels | {"outcome": outcome}
        return self._outcomes[outcome]

    def processed(self, failure: str) -> Attributes:
        if failure not in self._failures:
            failure = self._few(failure)
            self._failures[failure] = self.process | {names.ERROR: failure}
        return self._failures[failure]


class Work:
    """What the workers of this process do. A job of a batch counts as one that ran by itself."""

    def __init__(self, meter: Meter) -> None:
        self._stages: dict[str, _Stage] = {}
        self._places: tuple[weakref.ref[Place], ...] = ()  # replaced whole, as others read it in their threads
        self._instruments(meter)
        meter.create_observable_counter(
            "riacho.jobs.started", [self._started], unit="{job}", description="Tries that began."
        )
        meter.create_observable_gauge(
            "riacho.worker.slots",
            [self._slots],
            unit="{slot}",
            description="Places in which this process runs jobs, or batches.",
        )
        meter.create_observable_gauge(
            "riacho.worker.busy", [self._busy], unit="{slot}", description="Places of these that are in use."
        )

    def _instruments(self, meter: Meter) -> None:
        counter = meter.create_counter
        self._ended = counter(
            "riacho.jobs.ended",
            unit="{job}",
            description="Ends that were written: completed, retried, buried, cancelled, throttled.",
        )
        self._retries = counter("riacho.job.retries", unit="{retry}", description="Jobs put back for another try.")
        self._letters = counter(
            "riacho.job.dead_letters", unit="{job}", description="Jobs moved to the dead letters."
        )
        self._consumed = counter(
            "messaging.client.consumed.messages",
            unit="{message}",
            description="Jobs that were given to this process.",
        )
        self._waiting = duration(
            meter, "riacho.job.waiting", "How long a job lay in the stream, or was due, before a try of it began."
        )
        self._process = duration(
            meter, "messaging.process.duration", "How long a handler ran, by job; of a batch, once for each."
        )
        self._batches = _sizes(meter, "riacho.batch.size", "Jobs that a handler of batches got at once.")
        self._settles = _sizes(meter, "riacho.settle.size", "Jobs whose ends were written in one call.")

    def watch(self, places: Iterable[Place]) -> None:
        """Tell of these slots, as long as they are there."""
        alive = [place for place in self._places if place()]
        self._places = (*alive, *(weakref.ref(place) for place in places))

    def fetched(self, stage: Stage, count: int) -> None:
        """So many jobs were given to this worker."""
        self._consumed.add(count, self._of(stage).process)

    def began(self, stage: Stage, deliveries: Sequence[Delivery]) -> None:
        """A try of these begins."""
        of = self._of(stage)
        of.started += len(deliveries)
        for delivery in deliveries:
            self._waiting.record(delivery.waited(), of.labels)
        if stage.batch:
            self._batches.record(len(deliveries), of.labels)

    def tried(self, stage: Stage, started: float, returned: Sequence[object], failure: str) -> None:
        """A handler that began at `started`, on the monotonic clock, is through with jobs: what it returned for
        each, or which kind of error it raised ('': none)."""
        of, took = self._of(stage), time.monotonic() - started
        for one in returned:
            self._process.record(took, of.processed(failure or _failure(one)))

    def settled(self, stage: Stage, what: str, ended: Sequence[tuple[Delivery, Ending]], mine: int) -> None:
        """A call wrote these ends, of one kind; so many were not another's."""
        of = self._of(stage)
        self._settles.record(len(ended))
        if what == "settled":
            cancelled = min(mine, sum(isinstance(one, Settled) and one.cancelled for _, one in ended))
            _add(self._ended, cancelled, of.outcome("cancelled"))
            _add(self._ended, mine - cancelled, of.outcome("completed"))
        else:
            _add(self._ended, mine, of.outcome(what))
        if what == "retried":
            _add(self._retries, mine, of.labels)
        elif what == "buried":
            _add(self._letters, mine, of.labels)

    def _of(self, stage: Stage) -> _Stage:
        found = self._stages.get(stage.full_name)
        if found is None:
            found = self._stages[stage.full_name] = _Stage(stage)
        return found

    def _started(self, _: CallbackOptions) -> Iterable[Observation]:
        return [Observation(of.started, of.labels) for of in list(self._stages.values()) if of.started]

    def _slots(self, _: CallbackOptions) -> Iterable[Observation]:
        return _by_stage((place.stage, place.stage.concurrency) for place in self._there())

    def _busy(self, _: CallbackOptions) -> Iterable[Observation]:
        return _by_stage((place.stage, place.busy) for place in self._there())

    def _there(self) -> list[Place]:
        return [place for found in self._places if (place := found())]


class Sending:
    """What goes to Redis from this process: jobs, and calls of scripts."""

    def __init__(self, meter: Meter) -> None:
        self._sent = meter.create_counter(
            "messaging.client.sent.messages",
            unit="{message}",
            description="Jobs that were added to a stage; those it has already, or refuses, do not count.",
        )
        self._scripts = duration(meter, "riacho.script.duration", "One call of a Lua script, there and back.")
        self._stages: dict[str, Attributes] = {}

    def sent(self, stage: Stage, count: int) -> None:
        """So many jobs were added to a stage."""
        if stage.full_name not in self._stages:
            self._stages[stage.full_name] = names.messaging("send", stage.full_name)
        _add(self._sent, count, self._stages[stage.full_name])

    def called(self, attributes: Attributes, started: float) -> None:
        """A script that was called at `started`, on the monotonic clock, has answered, or will not."""
        self._scripts.record(time.monotonic() - started, attributes)


def labels(stage: Stage) -> dict[str, str]:
    """A stage as our own figures name it."""
    return {"queue": stage.queue, "stage": stage.name}


def _sizes(meter: Meter, name: str, description: str) -> Histogram:
    return meter.create_histogram(
        name, unit="{job}", description=description, explicit_bucket_boundaries_advisory=SIZES
    )


def _add(counter: Counter, count: int, attributes: Attributes) -> None:
    """What never happened has no series."""
    if count:
        counter.add(count, attributes)


def _failure(returned: object) -> str:
    """What a handler that raised nothing says went wrong."""
    match returned:
        case Retry():
            return "retry"
        case Bury():
            return "bury"
    return ""


def _by_stage(counts: Iterable[tuple[Stage, int]]) -> list[Observation]:
    """One figure a stage, however many workers there are in this process."""
    found: dict[tuple[str, str], int] = {}
    for stage, count in counts:
        name = stage.queue, stage.name
        found[name] = found.get(name, 0) + count
    return [Observation(count, {"queue": queue, "stage": stage}) for (queue, stage), count in found.items()]
