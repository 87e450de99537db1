"""What follows where a message will not go out: another channel says it, and somebody is told."""

import re
from collections.abc import Callable, Sequence

from pipeline import Bury, Context, Job
from stages.jobs import Alert, Fallback, SendClient, SendVendor
from stages.notification.courier import HELD
from stages.notification.vendor import order_text

REASON_LIMIT = 2_000  # characters
CAUSE_LIMIT = 150
TEXT_LIMIT = 4_096
NUMBERS = re.compile(r"\d{7,}")  # of phones and ids: no part of what several failures have in common


class Rescue:
    """Names the jobs that follow: an alert, and a fallback where there is one and the message did not go out.

    `has_fallback` knows by tenant and the job's own e-mail address.
    """

    def __init__(self, has_fallback: Callable[[str, str | None], bool]) -> None:
        self._has_fallback = has_fallback

    def of_buried(self, ctx: Context, job: SendClient | SendVendor, why: Bury) -> Sequence[Job]:
        """For a job that is buried."""
        reason = why.error if why.reason.startswith("gave up") and why.error else why.reason
        return self.of_message(str(ctx.job_id), ctx.tenant, ctx.key, job, reason)

    def of_message(
        self, job_id: str, tenant: str, key: str, job: SendClient | SendVendor, reason: str
    ) -> Sequence[Job]:
        """For the message of a job that failed."""
        jobs = [Job(stage="alert", payload=alert(job_id, f"{job.to}: {reason}", reason), tenant=tenant, key=key)]
        if reason != HELD and self._has_fallback(tenant, job.email):
            jobs.append(Job(stage="fallback", payload=_fallback(job_id, job, reason), tenant=tenant, key=key))
        return jobs


def of_buried_fallback(ctx: Context, job: Fallback, why: Bury) -> Sequence[Job]:
    """For a fallback that failed, too."""
    return _told(ctx, job.to, why)


def of_buried(ctx: Context, _: object, why: Bury) -> Sequence[Job]:
    """For what is done for a tenant as a whole."""
    return _told(ctx, ctx.tenant, why)


def _told(ctx: Context, whom: str, why: Bury) -> Sequence[Job]:
    reason = why.error or why.reason
    return [ctx.forward("alert", alert(str(ctx.job_id), f"{whom}: {reason}", reason))]


def alert(job_id: str, text: str, reason: str) -> Alert:
    """Tells of a job that failed, together with others that failed for the same reason."""
    cause = f"{job_id.partition('.')[0]}: {NUMBERS.sub('…', reason)}"
    return Alert(cause=cause[:CAUSE_LIMIT], text=text[:REASON_LIMIT], job=job_id)


def _fallback(job_id: str, job: SendClient | SendVendor, reason: str) -> Fallback:
    reason = reason[:REASON_LIMIT]
    match job:
        case SendClient():
            return Fallback(to=job.to, text=job.text, email=job.email, job=job_id, reason=reason)
        case SendVendor():
            return Fallback(
                to=job.to or "",
                text=order_text(job, TEXT_LIMIT),
                subject=f"Pedido {job.order_id}",
                media_url=job.proof_url,
                email=job.email,
                job=job_id,
                reason=reason,
            )
