"""How long things are kept: by tenant, and by what a job says."""

from collections.abc import Collection, Mapping

import msgspec

from stages.jobs import Prune

DAY = 86_400_000  # ms


class Cutoffs(msgspec.Struct, frozen=True, kw_only=True):
    """What is older than these times (ms since the epoch) goes: a tenant's own, or the common one. Of the tenants
    in `held` nothing does. `tenant` is the only one that is looked at, where one is named."""

    common: int
    by_tenant: Mapping[str, int] = {}
    held: Collection[str] = frozenset()
    tenant: str | None = None

    @property
    def latest(self) -> int:
        """Nothing newer than this goes, whoever's it is."""
        if self.tenant is not None:
            return self._of(self.tenant)
        return max(self.common, *self.by_tenant.values()) if self.by_tenant else self.common

    def is_old(self, tenant: str, at_ms: int) -> bool:
        """Whether a tenant's thing of that time would go, if nobody held it."""
        return at_ms < self._of(tenant)

    def _of(self, tenant: str) -> int:
        return self.by_tenant.get(tenant, self.common)


class Retention(msgspec.Struct, frozen=True):
    """Days that things of one kind are kept, by tenant where it has its own, and the tenants that are held."""

    days: float
    by_tenant: Mapping[str, float] = {}
    held: Collection[str] = frozenset()

    def cutoffs(self, job: Prune, now: int) -> Cutoffs:
        """What a job may delete at `now`. Its `days` go over all of these; a hold stands whatever it says."""
        own = {} if job.days else {tenant: _before(now, days) for tenant, days in self.by_tenant.items()}
        common = _before(now, job.days or self.days)
        return Cutoffs(common=common, by_tenant=own, held=self.held, tenant=job.tenant)


def _before(now: int, days: float) -> int:
    return now - int(days * DAY)
