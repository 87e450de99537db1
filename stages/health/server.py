"""Checks of Redis: whether it answers, its memory, what it would lose, its replicas."""

import time
from collections.abc import Callable, Sequence

import msgspec

from pipeline import Broker
from pipeline.errors import ServerUnavailable
from pipeline.views import ServerFacts
from stages.health.finding import Finding

MOST_LAG = 10  # seconds a replica may be behind
MIB = 2**20


class ServerCheck(msgspec.Struct, frozen=True):
    """Warnings begin at `latency` in seconds, and `memory` as a share; `remedy` is for a server that is away."""

    broker: Callable[[], Broker]
    latency: float
    memory: float
    remedy: str

    async def __call__(self) -> Sequence[Finding]:
        try:
            facts = await self.broker().server()
        except ServerUnavailable as error:
            return [Finding("redis", "failed", f"cannot reach {error}", self.remedy)]
        return [self._answers(facts), self._memory(facts), _persistence(facts), _replication(facts)]

    def _answers(self, facts: ServerFacts) -> Finding:
        about = f"{facts.latency * 1000:.1f} ms, version {facts.version}, up for {facts.uptime:,} s"
        detail = f"{about}, {facts.clients} connections"
        if facts.latency <= self.latency:
            return Finding("redis", "ok", detail)
        return Finding("redis", "warning", detail, "see the load of its machine, and of the way there")

    def _memory(self, facts: ServerFacts) -> Finding:
        share = facts.memory / facts.most_memory
        detail = f"{facts.memory / MIB:,.0f} of {facts.most_memory / MIB:,.0f} MiB ({share:.0%})"
        if share > self.memory:
            remedy = "have its jobs worked, clear what nobody needs, or raise maxmemory"
            return Finding("redis.memory", "warning", detail, remedy)
        if facts.evicts:
            return Finding("redis.memory", "warning", f"{detail}; {facts.evicts}", "maxmemory-policy noeviction")
        return Finding("redis.memory", "ok", detail)


def _persistence(facts: ServerFacts) -> Finding:
    name = "redis.persistence"
    if facts.writes_fail:
        remedy = "see its log, and the space on its disk: it may refuse to write until that is mended"
        return Finding(name, "failed", f"it could not write to its disk ({facts.writes_fail})", remedy)
    if facts.forgets:
        saved = f"; it last saved {max(0, int(time.time()) - facts.saved_at):,} s ago" if facts.saved_at else ""
        return Finding(name, "warning", f"{facts.forgets}{saved}", "appendonly yes")
    return Finding(name, "ok", "appends to a file, and its last writes went well")


def _replication(facts: ServerFacts) -> Finding:
    name = "redis.replication"
    if facts.role == "replica":
        link = "follows its primary" if facts.linked else "and has lost its primary"
        remedy = "have REDIS_URL name the primary, or promote this one"
        return Finding(name, "failed", f"this is a replica, which takes no jobs; it {link}", remedy)
    if facts.lag > MOST_LAG:
        detail = f"a replica was last heard of {facts.lag} s ago"
        return Finding(name, "warning", detail, "see that replica's log and its connection")
    return Finding(name, "ok", f"primary, replicas: {facts.replicas}")
