"""Every key in Redis. All keys of one partition share a hash tag, so one script may touch them together."""

from functools import cache
from typing import NamedTuple

from pipeline.message import JobId

GROUP = b"riacho"

# Pseudo-consumers that own parked entries; the scripts know them by the '~'.
RETRYING = b"~retry"
RELEASED = b"~released"
LIMITED = b"~limited"  # with how many tokens the entries have, the last of which they wait for


def limited(tokens: int) -> bytes:
    """The pseudo-consumer of entries that wait for a rate limit."""
    return LIMITED + str(tokens).encode()


def tokens_of(consumer: bytes) -> int:
    """How many tokens the entries of a consumer have."""
    return int(consumer.removeprefix(LIMITED)) if consumer.startswith(LIMITED) else 0


def rests(consumer: bytes) -> bool:
    """Whether its entries wait without having failed."""
    return consumer == RELEASED or consumer.startswith(LIMITED)


class Place(NamedTuple):
    """The keys of one stage's partition, in the order in which the scripts take them (lua/prelude.lua)."""

    stream: str  # STREAM: the stage's entries; deleted when settled, so its length is the unfinished work
    due: str  # ZSET: parked entry ids by the ms they are due
    delays: str  # ZSET: ids of delayed jobs by the ms they are due
    later: str  # HASH: by id, jobs that are not in the stream yet: delayed, or held back for their tenant
    tenants: str  # HASH: how many entries of each tenant are in the stream, where the stage limits that
    control: (
        str  # HASH: `paused` (the id the group had come to), `draining`, `full` (until it has come down to this
    )
    # depth), `again` (how many entries were set aside first: the stream counts them twice)
    cancelled: str  # SET with a TTL: entries to be cancelled by whoever holds them, until they have ended
    flow: str  # STRING with a TTL: when the stage last refused a job, and how many it had finished by then
    held: str  # prefix of a LIST per tenant: ids of its jobs that are held back, first come first
    job: str  # prefix of a HASH per job, with a TTL: `record`, `next`, `at`, `progress`, `started`; also a channel
    events: str  # STREAM with a TTL: transitions of all the partition's jobs, while somebody listens


class ScheduleKeys(NamedTuple):
    """The keys of all schedules, which share a hash tag."""

    definitions: str  # HASH: those put at run time, by name, in JSON
    paused: str  # SET: names, of the configuration's too
    version: str  # STRING: a number that grows with every change to the two above
    changes: str  # channel: there is a new version
    state: str  # prefix of a HASH per schedule: how far it has come (schedule.ScheduleState)


class Keys:
    """The key names of one namespace (`riacho`, or one of its own for each test)."""

    def __init__(self, namespace: str = "riacho") -> None:
        self._namespace = namespace
        self.place = cache(self._place)  # asked for in every call
        self.signals = f"{{{namespace}}}:signals"  # channel: what workers have to be told at once
        tag = f"{{{namespace}:schedules}}"
        self.schedules = ScheduleKeys(*(f"{tag}:{kind}" for kind in ScheduleKeys._fields))

    def _place(self, stage: str, partition: int) -> Place:
        def key(kind: str) -> str:
            return self._key(partition, kind, stage)

        prefixes = ("held", "job")
        names = (key(kind) + ":" * (kind in prefixes) for kind in Place._fields[:-1])
        return Place(*[*names, self.events(partition)])

    def _key(self, partition: int, kind: str, name: str) -> str:
        return f"{{{self._namespace}:{partition}}}:{kind}:{name}"

    def events(self, partition: int) -> str:
        """Transitions of a partition's jobs."""
        return f"{{{self._namespace}:{partition}}}:events"

    def stream(self, stage: str, partition: int) -> str:
        """The stage's entries."""
        return self.place(stage, partition).stream

    def dead(self, stage: str, partition: int) -> str:
        """STREAM: dead letters (`id`, `e` envelope, `record`)."""
        return self._key(partition, "dead", stage)

    def letters(self, stage: str, partition: int) -> str:
        """HASH: by buried job's id, its letter among the dead letters."""
        return self._key(partition, "letters", stage)

    def held_longest(self, stage: str, partition: int) -> str:
        """HASH with a TTL: by consumer, the entry it has held longest and since when."""
        return self._key(partition, "longest", stage)

    def job(self, job: JobId) -> str:
        """What is remembered of a job."""
        return self.place(job.stage, job.partition).job + job.entry

    def dedup(self, stage: str, partition: int, dedup: str) -> str:
        """STRING with a TTL: the entry id first added under this dedup id."""
        return self._key(partition, "dedup", f"{stage}:{dedup}")

    def request(self, name: str) -> str:
        """STRING with a TTL: the fingerprint of what was first asked for under this name."""
        return f"{{{self._namespace}:request:{name}}}"

    def schedule(self, name: str) -> str:
        """How far a schedule has come."""
        return f"{self.schedules.state}:{name}"

    def bucket(self, name: str) -> str:
        """STRING with a TTL: the time, in ms, up to which a rate limit's tokens are given out."""
        return f"{{{self._namespace}:limits}}:bucket:{name}"

    def slot(self, host: str, number: int) -> str:
        """STRING with a TTL: which process goes by this consumer name."""
        return f"{{{self._namespace}:slots}}:slot:{host}:{number}"
