"""The stages `notification.send-client` and `notification.send-vendor`: what they send, to whom, and how fast."""

import re
from collections.abc import Callable, Mapping, Sequence

import msgspec

from pipeline import Context
from pipeline.stage import RateLimit
from stages.jobs import SendClient, SendVendor
from stages.notification.courier import Courier
from stages.notification.phone import normalised, recipient_key
from stages.notification.vendor import checked, order_text
from stages.notification.whatsapp import CAPTION_LIMIT, TEXT_LIMIT
from stages.ports import Outgoing


class ClientHandler:
    """Send a text to a customer."""

    def __init__(self, courier: Courier) -> None:
        self._courier = courier

    async def __call__(self, ctx: Context, job: SendClient) -> dict[str, str]:
        message = Outgoing(tenant=ctx.tenant, to=job.to, text=job.text, audio=job.audio, template=job.template)
        return await self._courier.deliver(ctx, message, job)


class VendorHandler:
    """Tell a vendor of a paid order, under its payment proof."""

    def __init__(self, courier: Courier) -> None:
        self._courier = courier

    async def __call__(self, ctx: Context, job: SendVendor) -> dict[str, str]:
        text = order_text(job, CAPTION_LIMIT if job.proof_url or job.template else TEXT_LIMIT)
        message = Outgoing(
            tenant=ctx.tenant, to=job.to or "", text=text, media_url=job.proof_url, template=job.template
        )
        return await self._courier.deliver(ctx, message, job)


class Addressed:
    """The checks of both payloads: phone numbers in E.164, and whom a vendor's notification goes to.

    `region` is that of numbers without a country code; `vendors` are phone numbers by tenant; `number_of` gives
    the id of a tenant's own number, where there has to be one. They raise ValueError, fit for a person.
    """

    def __init__(
        self, region: str, vendors: Mapping[str, str], number_of: Callable[[str], str] | None = None
    ) -> None:
        self._region = region
        self._vendors = vendors
        self._number_of = number_of

    def client(self, tenant: str, job: SendClient) -> SendClient:
        """See Stage.check."""
        self._check_sender(tenant)
        return msgspec.structs.replace(job, to=self._number("to", job.to))

    def vendor(self, tenant: str, job: SendVendor) -> SendVendor:
        """See Stage.check."""
        client_phone = self._number("client_phone", job.client_phone)
        return msgspec.structs.replace(self.paid(tenant, job), client_phone=client_phone)

    def paid(self, tenant: str, job: SendVendor) -> SendVendor:
        """Of an order in a shop: whatever its customer left there for a phone number, the vendor is told."""
        self._check_sender(tenant)
        to = job.to or self._vendors.get(tenant)
        if not to:
            raise ValueError(
                f"tenant {tenant[:80]!r} has no vendor: name one in `to`, or in the setting notification.vendors"
            )
        return msgspec.structs.replace(checked(job), to=self._number("to", to))

    def _check_sender(self, tenant: str) -> None:
        if self._number_of and not re.fullmatch(r"\d+", self._number_of(tenant), re.ASCII):
            raise ValueError(
                f"tenant {tenant[:80]!r} has no WhatsApp number: name the tenant by its phone number id, or give "
                "it one in the setting whatsapp.senders (jobs without a tenant: whatsapp.phone_number_id)"
            )

    def _number(self, field: str, text: str) -> str:
        try:
            return normalised(text, self._region)
        except ValueError as error:
            raise ValueError(f"{field}: {error}") from None


class Pace(msgspec.Struct, frozen=True, kw_only=True):
    """How fast WhatsApp may be sent to: messages a second from one number; one message to one recipient each
    `pair_every` seconds, after a burst of `pair_burst`."""

    per_second: float
    pair_every: float
    pair_burst: int


def rates_of(pace: Pace, number_of: Callable[[str], str]) -> Callable[[str, object], Sequence[RateLimit]]:
    """The limits of a message by its tenant, whose number's id `number_of` knows, and its recipient."""

    def rates(tenant: str, job: SendClient | SendVendor) -> Sequence[RateLimit]:
        number = f"whatsapp:{number_of(tenant)}"
        pair = f"{number}:{recipient_key(job.to or '')}"
        # The longer wait first: a token of the number's would be old by the time it is over.
        return RateLimit(pair, 1 / pace.pair_every, pace.pair_burst), RateLimit(number, pace.per_second)

    return rates  # type: ignore[return-value]
