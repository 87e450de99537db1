"""The stage `notification.receipt`: what WhatsApp tells of messages it took."""

import logging
from collections.abc import Callable, Sequence

import msgspec

from pipeline import Context, Done, Job, Retry
from pipeline.message import now_ms
from stages.jobs import Receipt, SendClient, SendVendor
from stages.notification import away
from stages.notification.codes import error_of
from stages.notification.errors import OutsideWindow
from stages.notification.log import Notification, NotificationLog
from stages.notification.rescue import Rescue
from stages.store import StoreUnavailable

log = logging.getLogger(__name__)

PAYLOADS: dict[str, type[SendClient | SendVendor]] = {"send-client": SendClient, "send-vendor": SendVendor}


class ReceiptHandler:
    """Writes a batch of receipts into the log at once. A message that failed after it was taken goes out by the
    template where it may, else the rescue follows, as where it had been refused."""

    def __init__(self, messages: NotificationLog, rescue: Rescue, now: Callable[[], int] = now_ms) -> None:
        self._log = messages
        self._rescue = rescue
        self._now = now

    async def __call__(self, contexts: Sequence[Context], receipts: Sequence[Receipt]) -> Sequence[Done | Retry]:
        try:
            return await self._noted(contexts, receipts)
        except StoreUnavailable as error:
            now = self._now()
            return [Retry(away.AWAY, str(error), counts=away.waited_long(ctx, now)) for ctx in contexts]

    async def _noted(self, contexts: Sequence[Context], receipts: Sequence[Receipt]) -> list[Done]:
        failed = [receipt.job for receipt in receipts if receipt.status == "failed" and receipt.job]
        before = await self._log.find_all(failed) if failed else {}
        given_up = {job for job, known in before.items() if known.state == "failed" and not known.status}
        await self._log.receive(receipts)
        known = await self._log.find_all(failed) if failed else {}
        return [
            # What was given up before has been rescued.
            Done(forward=() if receipt.job in given_up else self._follow_up(ctx, receipt, known.get(receipt.job)))
            for ctx, receipt in zip(contexts, receipts, strict=True)
        ]

    def _follow_up(self, ctx: Context, receipt: Receipt, known: Notification | None) -> tuple[Job, ...]:
        if receipt.status != "failed" or known is None:
            return ()
        if known.status != "failed" or known.message_id != receipt.message_id:  # it came through another way
            return ()
        payload = PAYLOADS.get(known.kind)
        if payload is None or not known.payload:
            return ()
        job = msgspec.json.decode(known.payload, type=payload)
        error = error_of(receipt.code, 0, receipt.error)
        log.info("%s was taken, and failed: %s", known.job, error)
        if isinstance(error, OutsideWindow) and not known.template:
            by_template = msgspec.structs.replace(job, template=True)
            return (Job(stage=known.kind, payload=by_template, tenant=known.tenant, key=ctx.key),)
        return tuple(self._rescue.of_message(known.job, known.tenant, ctx.key, job, str(error)))
