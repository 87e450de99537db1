"""What the log of notifications learns from the stages that do not send over it."""

import logging
from collections.abc import Callable

from pipeline import Context
from pipeline.message import now_ms
from stages.jobs import Alert, Fallback
from stages.notification.alerts import AlertHandler
from stages.notification.away import waiting_for_log
from stages.notification.courier import HELD
from stages.notification.fallback import FallbackHandler
from stages.notification.log import Notification, NotificationLog
from stages.store import StoreUnavailable

log = logging.getLogger(__name__)


class LoggedFallback:
    """A fallback that is in the log when it went out, and does not where the message itself did, or may have."""

    def __init__(
        self, handler: FallbackHandler, messages: NotificationLog, now: Callable[[], int] = now_ms
    ) -> None:
        self._handler = handler
        self._log = messages
        self._now = now

    async def __call__(self, ctx: Context, job: Fallback) -> dict[str, str]:
        with waiting_for_log(ctx, self._now()):
            failed = await self._log.find(job.job) if job.job else None
        if failed and failed.state == "accepted":
            return {"channel": failed.channel, "messageId": failed.message_id}
        if failed and failed.state in ("sending", "unknown"):
            return {"channel": "", "messageId": "", "reason": HELD}
        sent = await self._handler(ctx, job)
        note = Notification(
            job=str(ctx.job_id),
            tenant=ctx.tenant,
            kind="fallback",
            recipient=job.to,
            channel=sent["channel"],
            payload="",
            created_ms=ctx.enqueued_ms,
            called_ms=self._now(),
            state="accepted",
            calls=ctx.attempt,
            message_id=sent["messageId"],
        )
        try:
            await self._log.record(note)
        except StoreUnavailable as error:  # it went out: another try would say it again
            log.error("%s went out, which could not be noted: %s", note.job, error)
        return sent


class LoggedAlert:
    """An alert whose job, if one failed, has failed in the log before anybody is told."""

    def __init__(self, handler: AlertHandler, messages: NotificationLog, now: Callable[[], int] = now_ms) -> None:
        self._handler = handler
        self._log = messages
        self._now = now

    async def __call__(self, ctx: Context, job: Alert) -> dict[str, int]:
        with waiting_for_log(ctx, self._now()):
            if job.job:
                await self._log.failed(job.job, ctx.tenant, job.text, self._now())
            return await self._handler(ctx, job)
