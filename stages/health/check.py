"""The stage `cleanup.health`: looks at everything, and has administrators told of what changed."""

import logging
from collections.abc import Sequence
from typing import Any

import msgspec

from pipeline import Context, Done, Job
from stages.health.finding import Check, Finding, examine
from stages.health.states import HealthLog
from stages.jobs import Alert, CheckHealth
from stages.notification.alerts import AlertChannel, offer
from stages.store import StoreUnavailable

log = logging.getLogger(__name__)

STATES = {"ok": "voltou ao normal", "warning": "atenção", "failed": "falhou"}
NO_DATABASE = "[Riacho] saúde: sem banco de dados"


class Checking(msgspec.Struct, frozen=True):
    """What the stage is made of. `channels` are for when there is no database, without which no alert goes out."""

    checks: Sequence[Check]
    log: HealthLog
    channels: Sequence[AlertChannel]


class HealthHandler:
    """Run all checks; the findings are the result, and an alert is handed on for each whose state changed.

    The findings are kept before the job is settled, under the time it was asked for. A job that comes back after
    that tells what it had kept, instead of checking again: handing on is one step with settling, so each change is
    told once, however often the job is run.

    Without a database nobody knows what changed: an alert is handed on for all that is not well, which waits for
    the database as all alerts do, and each check tells the administrators at once by their channels.
    """

    def __init__(self, parts: Checking) -> None:
        self._parts = parts

    async def __call__(self, ctx: Context, _: CheckHealth) -> Done:
        at, health = ctx.enqueued_ms, self._parts.log
        findings: list[Finding] = []
        try:
            kept = await health.kept(at)
            if not kept.findings:
                findings = await examine(self._parts.checks)
                kept = await health.keep(findings, at)
        except StoreUnavailable as error:
            log.error("nothing can be kept of the health check: %s", error)
            return await self._untracked(ctx, findings or await examine(self._parts.checks))
        findings = findings or kept.findings
        return _done(ctx, findings, [finding for finding in findings if finding.name in kept.changed])

    async def _untracked(self, ctx: Context, findings: Sequence[Finding]) -> Done:
        unwell = [finding for finding in findings if finding.state != "ok"]
        text = "".join(f"{_cause(finding)}: {_text(finding)}\n" for finding in unwell)
        for channel in self._parts.channels:
            await offer(channel, NO_DATABASE, text or NO_DATABASE, str(ctx.job_id))
        return _done(ctx, findings, unwell)


def _done(ctx: Context, findings: Sequence[Finding], told: Sequence[Finding]) -> Done:
    result: dict[str, Any] = {"findings": findings}
    return Done(result, tuple(_alert(ctx, finding) for finding in told))


def _alert(ctx: Context, finding: Finding) -> Job:
    return ctx.forward("alert", Alert(cause=_cause(finding)[:200], text=_text(finding)[:2000]))


def _cause(finding: Finding) -> str:
    return f"saúde: {finding.name[:150]}: {STATES[finding.state]}"


def _text(finding: Finding) -> str:
    return f"{finding.detail}; {finding.remedy}" if finding.remedy else finding.detail
