"""Jobs in, and what their producers may ask of them later."""

import asyncio
import functools
import random
import zlib
from collections.abc import Awaitable, Iterable, Sequence
from itertools import chain, repeat
from typing import Any, Literal

from redis.exceptions import OutOfMemoryError

from pipeline import scripts, telemetry
from pipeline.backpressure import NO_MEMORY
from pipeline.broker.access import LOOK_AGAIN, MOST_PER_CALL, Access, chunks
from pipeline.errors import (
    JobUnknown,
    Refused,
    ServerFull,
    ServerUnavailable,
    StageDraining,
    StageFull,
)
from pipeline.intake import Caller, Intake, Offer
from pipeline.keys import GROUP
from pipeline.message import (
    Added,
    Job,
    JobId,
    Refusal,
    seal,
    seal_probe,
)
from pipeline.stage import Stage

EARLIER = ord("=")  # before the id of a job that was there already


class Producing(Access):
    """For whoever has work done."""

    @functools.cached_property
    def _intakes(self) -> list[Intake]:
        """The way into each partition."""
        return [
            Intake(functools.partial(self._send, partition), MOST_PER_CALL) for partition in range(self.partitions)
        ]

    async def add(self, jobs: Sequence[Job]) -> list[Added]:
        """Make jobs durable; one answer for each, in their order.

        Jobs for one partition (of one key, say) share a script call, whatever their stages: an event that two
        stages have to learn of is added in one step. Raises UnknownStage or BadInput before anything is added.
        """
        stages = [self.pipeline.check(job) for job in jobs]
        if refusal := await self._memory.refusal():
            return [Added(None, refusal=refusal)] * len(jobs)
        if not self._traced:
            return await self._add(stages, jobs, repeat(""))
        with telemetry.sends(stages, [job.key for job in jobs]) as spans:
            answers = await self._add(stages, jobs, map(telemetry.traceparent, spans))
            for span, added in zip(spans, answers, strict=True):
                telemetry.sent(span, added)
            return answers

    async def _add(self, stages: Sequence[Stage], jobs: Sequence[Job], traces: Iterable[str]) -> list[Added]:
        places: dict[int, list[int]] = {}
        offers: list[Offer] = []
        for index, (stage, job, trace) in enumerate(zip(stages, jobs, traces, strict=False)):
            partition = self._partition(job)
            places.setdefault(partition, []).append(index)
            offers.append(self._sealed(stage, job, partition, trace))
        if len(places) == 1 and len(offers) <= MOST_PER_CALL:
            return await self._taken_in(next(iter(places)), offers)
        return await self._offer(places, offers)

    @property
    def takes_at_once(self) -> bool:
        """Whether `submit` will do: the server's memory need not be looked at first."""
        return self._memory.known_to_last

    def submit(self, job: Job, caller: Caller) -> None:
        """As `add` for one job that the pipeline has checked, and without a coroutine: for whoever is offered very
        many one by one, while `takes_at_once`."""
        stage = self.pipeline.stage(job.stage)
        partition, trace = self._partition(job), ""
        if self._traced:
            span = telemetry.send(stage, job.key)
            trace = telemetry.traceparent(span)
            caller = telemetry.Sending(span, caller) if span.is_recording() else caller
        self._intakes[partition].add([self._sealed(stage, job, partition, trace)], caller)

    def _taken_in(self, partition: int, offers: list[Offer]) -> "asyncio.Future[list[Added]]":
        """Who cancels in time gets nothing added."""
        answers: asyncio.Future[list[Added]] = asyncio.get_running_loop().create_future()
        self._intakes[partition].add(offers, answers)
        return answers

    def _sealed(self, stage: Stage, job: Job, partition: int, trace: str) -> Offer:
        dedup = self._keys.dedup(stage.name, partition, job.dedup) if job.dedup else ""
        return stage.name, seal(job, trace), dedup, stage.account(job.tenant), int(job.delay * 1000)

    async def _offer(self, places: dict[int, list[int]], offers: list[Offer]) -> list[Added]:
        answers: list[Added] = [Added(None)] * len(offers)
        for partition, indexes in places.items():
            for chunk in chunks(indexes):
                found = await self._taken_in(partition, [offers[index] for index in chunk])
                for index, answer in zip(chunk, found, strict=True):
                    answers[index] = answer
        return answers

    async def enqueue(self, job: Job, *, patience: float = 0.0) -> JobId:
        """Make one job durable, waiting up to `patience` seconds for room.

        Raises StageFull, StageDraining or ServerFull, and what `add` raises.
        """
        loop = asyncio.get_running_loop()
        deadline = loop.time() + patience
        while True:
            (added,) = await self.add([job])
            if added.id:
                return added.id
            left = deadline - loop.time()
            if left <= 0 or added.refusal is None:
                raise _refused(self.pipeline.stage(job.stage), added.refusal)
            await asyncio.sleep(min(left, added.refusal.wait or LOOK_AGAIN, LOOK_AGAIN))

    def _send(self, partition: int, offers: list[Offer]) -> Awaitable[list[Added]]:
        """One script call for jobs of one partition, a section for each stage."""
        sections: dict[str, list[Offer]] = {}
        for offer in offers:
            sections.setdefault(offer[0], []).append(offer)
        keys: list[str] = []
        args: list[Any] = [self._keys.signals]
        for name, section in sections.items():
            keys += self._keys.place(name, partition)
            stage = self.pipeline.stage(name)
            args += _section(stage, section, stage.account_limit)
        return self._sent(partition, offers, list(sections), scripts.add(self._wire, keys, args))

    async def _sent(
        self, partition: int, offers: list[Offer], names: list[str], asked: Awaitable[list[list[bytes]]]
    ) -> list[Added]:
        try:
            replies = await asked
        except ServerUnavailable as error:
            if isinstance(error.__cause__, OutOfMemoryError):  # the guard looks now and then only
                return [Added(None, refusal=NO_MEMORY)] * len(offers)
            raise
        answers = {name: _added(name, partition, reply) for name, reply in zip(names, replies, strict=True)}
        if self._figures:
            for name, added in answers.items():
                new = sum(1 for one in added if one.id and not one.duplicate)
                self._figures.sent(self.pipeline.stage(name), new)
        found = {name: iter(added) for name, added in answers.items()}
        return [next(found[offer[0]]) for offer in offers]

    async def cancel(self, job: JobId) -> Literal["cancelled", "cancelling"]:
        """Take a job out before it runs; one that is with a worker is told to stop ('cancelling'), and may still
        finish. Raises JobUnknown where there is no such unfinished job."""
        limit = self.pipeline.stage(job.stage).account_limit
        command = f"cancel {job.stage} {job.partition} "
        args = [GROUP, job.entry, self._keys.signals, command, limit]
        answer: bytes = await scripts.cancel(self._wire, [*self._keys.place(job.stage, job.partition)], args)
        if not answer:
            raise JobUnknown(f"no unfinished job {job}; nothing was cancelled")
        return "cancelled" if answer == b"cancelled" else "cancelling"

    async def first_asked(self, name: str, fingerprint: str, keep: float) -> str:
        """The fingerprint of what was first asked for under `name`, '' where nothing was: then it is this one, for
        `keep` seconds. One step, so of several at a time one is the first."""
        if await self._memory.refusal():
            return ""  # nothing is taken in either
        key, ttl = self._keys.request(name), int(keep * 1000)
        known: bytes | None = await self._wire.command("SET", key, fingerprint, "NX", "GET", "PX", ttl)
        return known.decode() if known else ""

    async def add_probe(self, stage: Stage, partition: int) -> JobId:
        """A job without work. It goes on nobody's account, so no tenant's jobs hold it back, nor it theirs.

        Raises StageFull or StageDraining.
        """
        once = _section(stage, [(stage.name, seal_probe(), "", "", 0)], limit=0)
        keys = [*self._keys.place(stage.name, partition)]
        (reply,) = await scripts.add(self._wire, keys, [self._keys.signals, *once])
        (added,) = _added(stage.name, partition, reply)
        if not added.id:
            raise _refused(stage, added.refusal)
        return added.id

    def _partition(self, job: Job) -> int:
        if self.partitions == 1:
            return 0
        place = job.key or job.dedup
        return (zlib.crc32(place.encode()) if place else random.getrandbits(32)) % self.partitions


def _section(stage: Stage, offers: list[Offer], limit: int) -> list[Any]:
    """What the script is told of one stage's jobs, of which an account may have `limit` in the stream (0: any
    number); nothing that none of them has."""
    _, bodies, dedups, accounts, delays = zip(*offers, strict=True)
    said: dict[str, Sequence[Any]] = {}
    if any(dedups):
        said["d"] = dedups
    if limit:
        said["t"] = accounts
    if any(delays):
        said["w"] = delays
    head = [stage.name, stage.high_water, stage.low_water, int(stage.dedup_ttl * 1000), limit]
    return [*head, "".join(said), len(offers), *chain.from_iterable(zip(bodies, *said.values(), strict=True))]


def _added(stage: str, partition: int, replies: list[bytes]) -> list[Added]:
    refused = Added(None)
    if replies[-1].startswith(b"!") and len(replies[-1]) > 1:
        reason, depth, wait = replies.pop().decode()[1:].split(" ")
        why: Any = reason
        refused = Added(None, refusal=Refusal(why, int(depth), int(wait) / 1000))
    return [
        refused
        if reply == b"!"
        else Added(JobId(stage, partition, reply.decode().lstrip("=")), reply[0] == EARLIER)
        for reply in replies
    ]


def _refused(stage: Stage, refusal: Refusal | None) -> Refused:
    match refusal:
        case Refusal("draining"):
            return StageDraining(f"{stage.full_name} is being drained and takes no new jobs", refusal)
        case Refusal("memory", _, wait):
            return ServerFull(f"the server's memory is nearly full; try again in {wait:g} s", refusal)
        case Refusal(_, depth, wait):
            holds = f"{stage.full_name} holds {depth} unfinished jobs, {stage.fullness(depth)}"
            return StageFull(f"{holds}; try again in {wait:g} s", refusal)
        case None:
            raise AssertionError("a job was neither taken nor refused")
