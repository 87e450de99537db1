"""The stage `notification.fallback`."""

import logging
from collections.abc import Mapping

import msgspec

from pipeline import Context, Permanent
from stages.jobs import Fallback
from stages.notification.email import Email
from stages.notification.errors import Refused, Retryable
from stages.notification.webhook import SignedWebhook

log = logging.getLogger(__name__)

SUBJECT = "Mensagem que o WhatsApp não entregou"
EMAIL_TRIES = 2  # then a webhook gets what a mail server that is away does not take


class Unsent(msgspec.Struct, frozen=True, omit_defaults=True, rename="camel"):
    """What the webhook is told in an event `fallback`; the fields are Fallback's."""

    tenant: str
    to: str
    text: str
    subject: str = ""
    media_url: str | None = None
    job: str = ""
    reason: str = ""


class FallbackHandler:
    """Say by e-mail, or else to the webhook, what WhatsApp did not take.

    The e-mail goes to the job's own address, else to the tenant's of `by_tenant`, else to `default`. The webhook
    has its turn where there is no mail server or address, or the server refuses the message, or stays away. Raises
    Permanent where no channel takes it.
    """

    def __init__(
        self, *, email: Email | None, webhook: SignedWebhook | None, default: str, by_tenant: Mapping[str, str]
    ) -> None:
        self._email = email
        self._webhook = webhook
        self._default = default
        self._by_tenant = by_tenant

    async def __call__(self, ctx: Context, job: Fallback) -> dict[str, str]:
        try:
            return {"channel": "email", "messageId": await self._mail(ctx, job)}
        except Refused as error:
            by_email: Refused | Retryable = error
        except Retryable as error:
            if self._webhook is None or ctx.attempt < EMAIL_TRIES:
                raise
            by_email = error
        return {"channel": "webhook", "messageId": await self._post(ctx, job, by_email)}

    async def _mail(self, ctx: Context, job: Fallback) -> str:
        address = job.email or self._by_tenant.get(ctx.tenant) or self._default
        if self._email is None:
            raise Refused("no mail server is set, see email.host (RIACHO_EMAIL_HOST)")
        if not address:
            raise Refused("no address is set for this shop, see fallback.email (RIACHO_FALLBACK_EMAIL)")
        return await self._email.send(address, job.subject or SUBJECT, words(job), message_id=str(ctx.job_id))

    async def _post(self, ctx: Context, job: Fallback, by_email: Refused | Retryable) -> str:
        if self._webhook is None:
            unset = "no address is set, see fallback.url (RIACHO_FALLBACK_URL)"
            raise Permanent(_nobody(by_email, unset))
        log.info("the webhook gets %s: %s", ctx.job_id, by_email)
        unsent = Unsent(ctx.tenant, job.to, job.text, job.subject, job.media_url, job.job, job.reason)
        try:
            return await self._webhook.post("fallback", unsent, id=str(ctx.job_id))
        except Refused as error:
            if isinstance(by_email, Retryable):
                raise Retryable(_nobody(by_email, error)) from None
            raise Permanent(_nobody(by_email, error)) from None


def words(job: Fallback) -> str:
    """The e-mail's text."""
    reason = f"Motivo: {job.reason}" if job.reason else ""
    media = f"Anexo: {job.media_url}" if job.media_url else ""
    head = f"O WhatsApp não entregou a mensagem abaixo, que era para {job.to}."
    return "\n\n".join(part for part in ("\n".join(filter(None, (head, reason))), job.text, media) if part) + "\n"


def _nobody(by_email: object, by_webhook: object) -> str:
    return f"no channel took the message; by e-mail: {by_email}; by webhook: {by_webhook}"
