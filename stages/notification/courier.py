"""Each job's message sent once, as far as anybody can know."""

import logging
from collections.abc import Callable
from typing import Literal

import msgspec

from pipeline import Context, Permanent, RetryLater
from pipeline.message import now_ms
from stages.jobs import Alert, SendClient, SendVendor
from stages.notification.away import waiting_for_log
from stages.notification.errors import (
    NotSent,
    OutcomeUnknown,
    OutsideWindow,
    RateLimited,
    Refused,
    Retryable,
    SenderPaused,
)
from stages.notification.log import Notification, NotificationLog
from stages.ports import Messenger, Outgoing
from stages.store import StoreUnavailable

log = logging.getLogger(__name__)

MOST_CALLS = 12  # of a job, whatever they came to
MOST_UNKNOWN = 4  # calls after which one that nobody knows the outcome of is the last
PROBE_AGAIN = 60.0  # seconds until the next, where a probe failed for what has nothing to do with its sender
LONGEST_LOOK = 30.0  # seconds between looks whether a sender is still held up
HELD = "nobody knows whether it went out: ask, and replay it if it did not"


class Care(msgspec.Struct, frozen=True, kw_only=True):
    """What is done where it is not known whether a message went out, after waiting `unknown_wait` seconds for the
    channel to tell; and after how many seconds a message of a paused sender is tried."""

    unknown: Literal["resend", "hold"] = "resend"
    unknown_wait: float = 30.0
    probe: float = 900.0


class Courier:
    """Sends messages, and keeps the log of them.

    That a job is about to call is in the log before it calls, what came of it after. A job that finds a call
    without an outcome (its worker died, the answer was lost) waits for the channel to tell by a receipt, which
    names the job; if it does not, the message is sent again or held for a person. A call that is known to have
    failed ends by what there is to do about it; waiting for a limit, a paused sender or the log is not a try.
    """

    def __init__(
        self,
        messages: NotificationLog,
        messenger: Messenger,
        care: Care,
        now: Callable[[], int] = now_ms,
    ) -> None:
        self._log = messages
        self._messenger = messenger
        self._care = care
        self._look = min(care.probe, LONGEST_LOOK)
        self._now = now

    async def deliver(self, ctx: Context, message: Outgoing, job: SendClient | SendVendor) -> dict[str, str]:
        """Send a job's message, or find that it was sent; returns the channel and its id for the message.

        Raises RetryLater where it is to wait, Permanent where it never goes out this way, NotSent for another try.
        """
        call = Notification(
            job=str(ctx.job_id),
            tenant=ctx.tenant,
            kind=ctx.job_id.stage,
            recipient=message.to,
            channel=self._messenger.name,
            payload=msgspec.json.encode(job).decode(),
            created_ms=ctx.enqueued_ms,
            called_ms=self._now(),
            template=message.template,
        )
        with waiting_for_log(ctx, call.called_ms):
            call, probe = await self._begun(call)
        if call.message_id:  # taken; what it came to since has followed from its receipt
            return self._result(call.message_id)
        return await self._send(ctx, call, msgspec.structs.replace(message, template=call.template), probe=probe)

    async def _begun(self, call: Notification) -> tuple[Notification, bool]:
        """The call as it is in the log now, or what is known of one that was taken; and whether it is a probe."""
        if await self._log.begin(call):
            return call, False
        known = await self._log.find(call.job)
        if known and known.message_id:
            return known, False
        self._check(known)
        probe = await self._may_send(call.tenant)
        return await self._begin_again(call, known), probe

    def _check(self, known: Notification | None) -> None:
        """Whether a job that called before may call again."""
        if known is None:
            return
        if known.state == "sending" and not self._messenger.knows_jobs:
            left = known.called_ms / 1000 + self._care.unknown_wait - self._now() / 1000
            if left > 0:
                raise RetryLater(left, "its outcome is not known; waiting for the receipt")
            if self._care.unknown == "hold" or known.calls >= MOST_UNKNOWN:
                raise Permanent(HELD)
        if known.calls >= MOST_CALLS:
            raise Permanent(f"{known.channel} was asked {known.calls} times; the last answer: {known.error}")

    async def _may_send(self, tenant: str) -> bool:
        """Whether this message is the one that a paused sender tries. Raises RetryLater while it is held up."""
        now = self._now()
        held = await self._log.held(tenant, now)
        if held is None:
            return False
        if held.until_ms > now or not await self._log.take_probe(held, now + int(self._care.probe * 1000)):
            wait = max(1.0, (held.until_ms - now) / 1000)
            raise RetryLater(min(wait, self._look), f"its sender waits: {held.reason}")
        return True

    async def _begin_again(self, call: Notification, known: Notification | None) -> Notification:
        begun = await (self._log.begin_again(known, call.called_ms) if known else self._log.record(call))
        if not begun:
            raise RetryLater(1.0, "somebody else has just begun to send it")
        return msgspec.structs.replace(known, calls=known.calls + 1) if known else call

    async def _send(self, ctx: Context, call: Notification, message: Outgoing, *, probe: bool) -> dict[str, str]:
        try:
            message_id = await self._messenger.send(call.job, message, again=call.calls > 1)
        except OutcomeUnknown as error:
            if probe:
                await self._probe_soon(call.tenant)
            raise RetryLater(self._care.unknown_wait, str(error)) from None
        except NotSent as error:
            await self._log.refused(
                call.job,
                error.code,
                str(error),
                template=isinstance(error, OutsideWindow),
                counts=not _of_sender(error),  # however long a sender is held up, its messages stay
            )
            if probe:
                await self._probed(call.tenant, error)
            await self._on_refusal(ctx, call, error, probe=probe)
            raise
        await self._note_accepted(call, message_id, probe=probe)
        return self._result(message_id)

    async def _probed(self, tenant: str, error: NotSent) -> None:
        """What a probe that did not go out says of its sender."""
        match error:
            case OutsideWindow() | Refused():  # it is about this message alone
                await self._resume(tenant)
            case Retryable() | RateLimited():
                await self._probe_soon(tenant)

    async def _probe_soon(self, tenant: str) -> None:
        await self._log.put_off(tenant, self._now() + int(min(self._care.probe, PROBE_AGAIN) * 1000))

    async def _resume(self, tenant: str) -> None:
        if await self._log.resume(tenant):
            log.warning("the sender of tenant %r sends again", tenant)

    async def _on_refusal(self, ctx: Context, call: Notification, error: NotSent, *, probe: bool) -> None:
        """What follows from a refusal beside another try."""
        match error:
            case Refused():
                raise Permanent(str(error))
            case OutsideWindow() if call.template:
                raise Permanent(str(error))
            case OutsideWindow():
                raise RetryLater(0.0, f"{error}; the template goes out instead")
            case RateLimited(pair=True):
                raise RetryLater(error.wait(call.calls), str(error))
            case RateLimited():
                await self._log.slow_down(call.tenant, error, self._now())
                raise RetryLater(error.wait(1), str(error))
            case SenderPaused():
                await self._pause(ctx, call, error, probe=probe)
                raise RetryLater(self._look, str(error))

    async def _pause(self, ctx: Context, call: Notification, error: SenderPaused, *, probe: bool) -> None:
        now = self._now()
        until_ms = now + int(self._care.probe * 1000)
        if await self._log.pause(call.tenant, error.code, str(error), now, until_ms) or probe:
            log.error("the sender of tenant %r is paused: %s", call.tenant, error)
            whose = f" de {call.tenant:.100}" if call.tenant else ""
            told = Alert(cause=f"o WhatsApp parou o número{whose}", text=f"{call.job}: {error}")
            await ctx.add(ctx.forward("alert", told))

    async def _note_accepted(self, call: Notification, message_id: str, *, probe: bool) -> None:
        """It went out: a log that cannot be written must not have it sent again. The receipt will tell it, and the
        next probe sets its sender free."""
        try:
            await self._log.accepted(call.job, message_id)
            if probe:
                await self._resume(call.tenant)
        except StoreUnavailable as error:
            log.error("%s went out as %s, which could not be noted: %s", call.job, message_id, error)

    def _result(self, message_id: str) -> dict[str, str]:
        return {"channel": self._messenger.name, "messageId": message_id}


def _of_sender(error: NotSent) -> bool:
    """Whether it is about all messages of a sender."""
    return isinstance(error, SenderPaused) or (isinstance(error, RateLimited) and not error.pair)
