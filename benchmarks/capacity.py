"""How much so many messages a second take, by what one was measured to cost: the model of CAPACITY.md.

Pure functions of `Costs`, which the scenario `chat` measures. Times are seconds, shares go from 0 to 1.
"""

import math
from collections.abc import Mapping
from typing import Any, Self

import msgspec

from pipeline import Stage
from stages import KEEP_RESULTS

PREFIX = "cost_"  # of the figures in a report
FULL = 0.95  # of a core: a Python process that takes more has its event loop and its threads wait for each other
MEMORY_SHARE = 0.9  # of the server's memory; above it no new message is taken (config/default.toml)
DEFAULTS: dict[str, Any] = {field.name: field.default for field in msgspec.structs.fields(Stage)}
HIGH_WATER: int = DEFAULTS["high_water"]  # waiting jobs of a stage in a partition, above which none is taken
EVENLY = 0.9  # of that: keys do not spread quite evenly over partitions
REMEMBERED = KEEP_RESULTS  # what came of a job
KNOWN: float = DEFAULTS["dedup_ttl"]  # that a message has come


class Costs(msgspec.Struct, frozen=True, kw_only=True):
    """What messages took: ms of CPU and bytes of each, without what is taken when nothing happens."""

    api_cpu_ms: float  # of the API, for a webhook
    worker_cpu_ms: float  # of a worker, for the conversation and the reply
    server_cpu_ms: float  # of Redis, for a text
    audio_server_cpu_ms: float  # of Redis, for a voice note
    transcriber_cpu_ms: float  # of a transcriber, for a second of audio
    generator_cpu_ms: float  # of the benchmark itself, which is no cost but where it shares the machine
    transcribed_audio_seconds_per_second: float  # by one transcriber with a backlog, on
    cores: float  # of the machine
    note_seconds: float  # mean length of the voice notes
    waiting_bytes: float  # of Redis, for a message that waits
    known_bytes: float  # of Redis, for knowing that a message has come
    text_bytes: float  # of Redis, for a text that was answered, the latter included
    audio_bytes: float  # the same for a voice note
    empty_bytes: float  # of Redis, where there are no messages

    @classmethod
    def of(cls, figures: Mapping[str, float]) -> Self:
        """Out of a report. Raises msgspec.ValidationError naming what is missing."""
        own = {name.removeprefix(PREFIX): value for name, value in figures.items() if name.startswith(PREFIX)}
        return msgspec.convert(own, cls)

    def figures(self) -> dict[str, float]:
        return {f"{PREFIX}{name}": value for name, value in msgspec.structs.asdict(self).items()}

    def server_ms(self, audio: float) -> float:
        """Of Redis, for a message of this mix."""
        return self.server_cpu_ms * (1 - audio) + self.audio_server_cpu_ms * audio

    def transcriber_ms(self, audio: float) -> float:
        """Of transcribers, for a message of this mix."""
        return audio * self.note_seconds * self.transcriber_cpu_ms


class Wanted(msgspec.Struct, frozen=True, kw_only=True):
    """What is asked of the system. At `busy` of what it can do in full, waits are still short."""

    rate: float  # messages a second at the busiest
    audio: float  # share of voice notes
    outage: float  # seconds in which messages come and none is worked, to be survived
    daily: float  # messages a second over a whole day
    busy: float
    cores: int  # of a machine


class Needs(msgspec.Struct, frozen=True, kw_only=True):
    """What that takes: numbers of processes, cores that are busy, bytes of Redis' memory."""

    apis: int
    workers: int
    transcribers: int  # each on all cores of a machine
    redis_cores: float  # commands are run by one
    partitions: int
    cores: float  # of all processes together
    machines: int
    waiting_bytes: float
    remembered_bytes: float
    redis_bytes: float  # that it is to be given


def needs(costs: Costs, wanted: Wanted) -> Needs:
    apis = _processes(wanted.rate * costs.api_cpu_ms / 1000, wanted)
    workers = _processes(wanted.rate * costs.worker_cpu_ms / 1000, wanted)
    audio_seconds = wanted.rate * wanted.audio * costs.note_seconds
    of_a_machine = costs.transcribed_audio_seconds_per_second / costs.cores * wanted.cores
    transcribing = audio_seconds / of_a_machine / wanted.busy  # machines
    redis = wanted.rate * costs.server_ms(wanted.audio) / 1000
    cores = (redis + wanted.rate * (costs.api_cpu_ms + costs.worker_cpu_ms) / 1000) / wanted.busy
    cores += transcribing * wanted.cores
    waits = wanted.rate * wanted.outage
    longest = waits * max(wanted.audio, 1 - wanted.audio)  # line: texts and notes wait in different stages
    return Needs(
        apis=apis,
        workers=workers,
        transcribers=math.ceil(transcribing),
        redis_cores=redis,
        partitions=max(1, math.ceil(longest / (HIGH_WATER * EVENLY))),
        cores=cores,
        machines=math.ceil(cores / wanted.cores),
        waiting_bytes=waits * costs.waiting_bytes,
        remembered_bytes=_remembered(costs, wanted),
        redis_bytes=(costs.empty_bytes + waits * costs.waiting_bytes + _remembered(costs, wanted)) / MEMORY_SHARE,
    )


def _processes(cores: float, wanted: Wanted) -> int:
    return max(1, math.ceil(cores / (FULL * wanted.busy)))


def _remembered(costs: Costs, wanted: Wanted) -> float:
    mean = costs.text_bytes * (1 - wanted.audio) + costs.audio_bytes * wanted.audio
    return wanted.daily * (REMEMBERED * (mean - costs.known_bytes) + KNOWN * costs.known_bytes)


def limits(costs: Costs, audio: float) -> dict[str, float]:
    """Messages a second at which each part of what `riacho up` starts is full, on the machine that was measured,
    with the benchmark beside it. A note costs API and worker what a text does."""
    taken = costs.api_cpu_ms + costs.worker_cpu_ms + costs.server_ms(audio) + costs.generator_cpu_ms
    found = {
        "api": FULL * 1000 / costs.api_cpu_ms,
        "worker": FULL * 1000 / costs.worker_cpu_ms,
        "redis": 1000 / costs.server_ms(audio),
        "cores": costs.cores * 1000 / (taken + costs.transcriber_ms(audio)),
    }
    if audio:
        found["transcriber"] = costs.transcribed_audio_seconds_per_second / (audio * costs.note_seconds)
    return found


def sustainable(costs: Costs, audio: float) -> float:
    """Messages a second above which that machine falls behind."""
    return min(limits(costs, audio).values())
