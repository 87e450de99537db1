"""Checks of who talks to the outside: numbers at WhatsApp, the mail server."""

import functools
from collections.abc import Mapping, Sequence

import msgspec

from stages.health.finding import Finding, each_of
from stages.notification.cloud_api import CloudApi, Sender
from stages.notification.email import Email
from stages.notification.errors import NotSent, OutcomeUnknown, Refused, SenderPaused

PATIENCE = 5.0  # seconds for one
PAUSED = "see whatsapp.access_token, phone_number_id and senders, and the number's state at Meta"


class WhatsAppCheck(msgspec.Struct, frozen=True):
    """Whether each sender's token may use its number, by what a finding is to be called; of the first 50."""

    senders: Mapping[str, Sender]
    outbox: bool

    async def __call__(self) -> Sequence[Finding]:
        if self.outbox:
            return [Finding("whatsapp", "ok", "no number is asked: messages go to the outbox")]
        async with CloudApi(PATIENCE) as api:
            look = functools.partial(_of_sender, api)
            return await each_of("whatsapp", "numbers", list(self.senders.items()), look)


async def _of_sender(api: CloudApi, known: tuple[str, Sender]) -> Finding:
    name, sender = f"whatsapp.{known[0]}", known[1]
    try:
        await api.check(sender)
    except (SenderPaused, Refused) as error:
        return Finding(name, "failed", str(error), PAUSED)
    except (NotSent, OutcomeUnknown) as error:
        return Finding(name, "warning", str(error), "see the network, and Meta's status page")
    return Finding(name, "ok", f"phone number id {sender.phone_number_id} and its token are good")


class EmailCheck(msgspec.Struct, frozen=True):
    """Whether the mail server can be logged in to; nothing is sent."""

    email: Email

    async def __call__(self) -> Sequence[Finding]:
        try:
            await self.email.check()
        except NotSent as error:
            return [Finding("email", "failed", str(error), "see the settings email.*")]
        return [Finding("email", "ok", "the mail server takes our login")]
