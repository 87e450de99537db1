"""The real parts of the notification stages, made of the settings."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

from phonenumbers import SUPPORTED_REGIONS

from config import Settings
from config.settings import Sender as SenderSettings
from config.settings import WhatsApp as WhatsAppSettings
from pipeline import RiachoError
from stages.notification.alerts import AlertChannel, AlertStore, EmailAlerts, MessengerAlerts, WebhookAlerts
from stages.notification.cloud_api import CloudApi, Sender
from stages.notification.courier import Care
from stages.notification.email import Email, EmailUnusable
from stages.notification.log import NotificationLog
from stages.notification.outbox import Outbox
from stages.notification.parts import Notifying
from stages.notification.phone import normalised
from stages.notification.send import Pace
from stages.notification.webhook import SignedWebhook, WebhookUnusable
from stages.notification.whatsapp import WhatsApp
from stages.store import Database

NOTHING_OWN = SenderSettings()
WEBHOOK_TIMEOUT = 20.0  # seconds


class NotifyingUnusable(RiachoError):
    """The settings of notifications, e-mail, fallback or alerts do not go together."""


class Notifications:
    """Makes `parts`; to be opened where stages are worked. Raises NotifyingUnusable naming the setting."""

    def __init__(
        self, settings: Settings, database: Database, outbox: Path, voice: Callable[[str], Awaitable[bytes]] | None
    ) -> None:
        self._settings = settings
        self._api = CloudApi(settings.whatsapp.timeout)
        self._webhooks: list[SignedWebhook] = []
        self.log = NotificationLog(database)
        try:
            self.parts = self._made(database, outbox, voice)
        except (EmailUnusable, WebhookUnusable, ValueError) as error:
            raise NotifyingUnusable(str(error)) from None

    @asynccontextmanager
    async def opened(self) -> AsyncIterator[None]:
        """Keep the connections of what sends."""
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(self._api)
            for webhook in self._webhooks:
                await stack.enter_async_context(webhook)
            yield

    def _made(
        self, database: Database, outbox: Path, voice: Callable[[str], Awaitable[bytes]] | None
    ) -> Notifying:
        settings = self._settings
        by_whatsapp = sends_by_whatsapp(settings)
        self._check()
        messenger = WhatsApp(self._api, self._sender, voice) if by_whatsapp else Outbox(outbox)
        whatsapp, notification, fallback = settings.whatsapp, settings.notification, settings.fallback
        pace = Pace(
            per_second=whatsapp.per_second,
            pair_every=whatsapp.pair_every,
            pair_burst=whatsapp.pair_burst,
        )
        email = self._email()
        return Notifying(
            log=self.log,
            messenger=messenger,
            care=Care(
                unknown=notification.unknown,
                unknown_wait=notification.unknown_wait,
                probe=notification.probe,
            ),
            pace=pace if by_whatsapp else None,
            number_of=lambda tenant: self._sender(tenant).phone_number_id,
            region=notification.region,
            vendors=notification.vendors,
            email=email,
            webhook=self._webhook(fallback.url.reveal()) if fallback.url else None,
            fallback_email=fallback.email,
            fallback_emails=fallback.emails,
            alerts=AlertStore(database, settings.alerts.every),
            alert_channels=[self._alert_channel(to.reveal(), email, messenger) for to in settings.alerts.to],
        )

    def _check(self) -> None:
        """Early, what else would only show when a job comes."""
        notification = self._settings.notification
        if notification.region and notification.region not in SUPPORTED_REGIONS:
            raise NotifyingUnusable(
                f"setting notification.region = {notification.region!r} is no region; it is two letters, as in BR"
            )
        for tenant, number in notification.vendors.items():
            try:
                normalised(number, notification.region)
            except ValueError as error:
                raise NotifyingUnusable(f"setting notification.vendors of {tenant!r}: {error}") from None

    def _sender(self, tenant: str) -> Sender:
        return sender_of(self._settings.whatsapp, tenant)

    def _email(self) -> Email | None:
        email = self._settings.email
        if not email.host:
            return None
        return Email(
            host=email.host,
            port=email.port,
            security=email.security,
            user=email.user,
            password=email.password.reveal(),
            sender=email.sender,
            timeout=email.timeout,
        )

    def _webhook(self, url: str) -> SignedWebhook:
        webhook = SignedWebhook(url, self._settings.fallback.secret.reveal(), WEBHOOK_TIMEOUT)
        self._webhooks.append(webhook)
        return webhook

    def _alert_channel(self, address: str, email: Email | None, messenger: WhatsApp | Outbox) -> AlertChannel:
        if address.startswith(("http://", "https://")):
            return WebhookAlerts(self._webhook(address))
        if "@" not in address:
            return self._phone_alerts(messenger, address)
        if email is None:
            raise NotifyingUnusable(
                "alerts.to names an e-mail address, and there is no mail server: set email.host"
            )
        return EmailAlerts(email, address)

    def _phone_alerts(self, messenger: WhatsApp | Outbox, number: str) -> MessengerAlerts:
        sender = self._sender("")
        if isinstance(messenger, WhatsApp) and not (sender.phone_number_id and sender.token):
            raise NotifyingUnusable(
                "alerts.to names a phone number, and there is none to send from: set whatsapp.phone_number_id and "
                "whatsapp.access_token"
            )
        return MessengerAlerts(messenger, self._alerted_phone(number), template=bool(sender.template))

    def _alerted_phone(self, number: str) -> str:
        try:
            return normalised(number, self._settings.notification.region)
        except ValueError:  # its text has what may be the address of a webhook, its https:// forgotten
            raise NotifyingUnusable(
                "setting alerts.to: one of its entries is no phone number, e-mail address or http(s) address"
            ) from None


def sender_of(whatsapp: WhatsAppSettings, tenant: str) -> Sender:
    """Who sends for a tenant: what it has of its own, and the common settings for the rest."""
    own = whatsapp.senders.get(tenant, NOTHING_OWN)
    return Sender(
        phone_number_id=own.phone_number_id or tenant or whatsapp.phone_number_id,
        token=(own.access_token or whatsapp.access_token).reveal(),
        url=own.graph_url or whatsapp.graph_url,
        version=own.version or whatsapp.version,
        template=own.template or whatsapp.template,
        template_language=own.template_language or whatsapp.template_language,
    )


def tenants_of(whatsapp: WhatsAppSettings) -> dict[str, str]:
    """Tenants by the number id they have of their own: what is said to it is theirs to answer."""
    return {own.phone_number_id: tenant for tenant, own in whatsapp.senders.items() if own.phone_number_id}


def sends_by_whatsapp(settings: Settings) -> bool:
    """Whether messages go out for real. Raises NotifyingUnusable where they should and cannot."""
    whatsapp, channel = settings.whatsapp, settings.notification.channel
    has_token = bool(whatsapp.access_token) or any(own.access_token for own in whatsapp.senders.values())
    if channel == "whatsapp" and not has_token:
        raise NotifyingUnusable(
            "notification.channel is 'whatsapp', and there is no access token: set RIACHO_WHATSAPP_ACCESS_TOKEN, "
            "or access_token in RIACHO_WHATSAPP_SENDERS"
        )
    return has_token and channel != "outbox"
