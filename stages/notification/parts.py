"""What the stages of notifications are made of."""

from collections.abc import Callable, Mapping, Sequence

import msgspec

from stages.notification.alerts import AlertChannel, AlertStore
from stages.notification.courier import Care
from stages.notification.email import Email
from stages.notification.log import NotificationLog
from stages.notification.send import Pace
from stages.notification.webhook import SignedWebhook
from stages.ports import Messenger


class Notifying(msgspec.Struct, frozen=True, kw_only=True):
    """`messenger` is the channel messages go out by, at the `pace` it allows a number (None: any), which
    `number_of` knows by tenant; `log` is what became of them. `email` and `webhook` are there for what it does not
    take, `alert_channels` for who has to know. By tenant, `vendors` are phones, `fallback_emails` addresses.
    """

    log: NotificationLog
    messenger: Messenger
    care: Care
    pace: Pace | None
    number_of: Callable[[str], str]
    region: str
    vendors: Mapping[str, str]
    email: Email | None
    webhook: SignedWebhook | None
    fallback_email: str
    fallback_emails: Mapping[str, str]
    alerts: AlertStore
    alert_channels: Sequence[AlertChannel]

    def has_fallback(self, tenant: str, address: str | None) -> bool:
        """Whether there is another channel for a tenant's message, whose job names this e-mail address."""
        address = address or self.fallback_emails.get(tenant) or self.fallback_email
        return self.webhook is not None or bool(self.email and address)
