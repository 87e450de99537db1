"""The stage `notification.alert`: administrators are told of each cause at once, and then now and then."""

import asyncio
import logging
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any, Protocol

import msgspec
from sqlalchemy import (
    BigInteger,
    Column,
    Integer,
    String,
    Table,
    Text,
    case,
    delete,
    or_,
    select,
    update,
)

from pipeline import Context, RetryLater
from pipeline.message import now_ms
from stages.jobs import Alert
from stages.notification.email import Email
from stages.notification.errors import NotSent, OutcomeUnknown
from stages.notification.webhook import SignedWebhook
from stages.ports import Messenger, Outgoing
from stages.store import Database, metadata, storable

log = logging.getLogger(__name__)

AGAIN_MS = 60_000  # until an alert that no channel took is tried again, or `every` where that is less
LOST_MS = 300_000  # a carrier that is so late was cancelled, cleared or buried: another takes its place
KEEP_MS = 86_400_000  # a job that told is known for as long, should it come again

# A row is what is known of a cause: failures not told of yet, since when, and the job that carries them until they
# are; when it was last seen. `told_ms` is when the last alert went out. Whoever told stays the carrier of nothing.
alerts = Table(
    "alerts",
    metadata,
    Column("tenant", String, primary_key=True),
    Column("cause", String, primary_key=True),
    Column("carrier", String, nullable=False),
    Column("seen_ms", BigInteger, nullable=False),
    Column("told_ms", BigInteger, nullable=False),
    Column("count", Integer, nullable=False),
    Column("since_ms", BigInteger, nullable=False),
    Column("text", Text, nullable=False),
    Column("job", String, nullable=False),
)


class Untold(msgspec.Struct, frozen=True):
    """What has not been told of a cause: how many failures, since when, and the newest as an example.

    `carrier` is the job that is to tell it. `told_ms` is when an alert of this cause last went out, 0 if none did.
    """

    carrier: str
    told_ms: int
    count: int
    since_ms: int
    text: str
    job: str


class AlertChannel(Protocol):
    """A way to an administrator."""

    async def send(self, subject: str, text: str, *, id: str) -> None:  # noqa: A002
        """Send an alert; `id` is the same where one is sent again. Raises NotSent or OutcomeUnknown."""


class AlertStore:
    """Counts failures by tenant and cause, on a database that has the table `alerts`. `now` is in milliseconds.

    `every` is the time between two alerts of a cause, in seconds.
    """

    def __init__(self, database: Database, every: float) -> None:
        self._database = database
        self.every_ms = int(every * 1000)

    async def count(self, tenant: str, carrier: str, alert: Alert, now: int) -> Untold:
        """Count a failure that the job `carrier` brings, unless that carries the cause already and comes back.

        It becomes the carrier where there is none. Returns what is untold then.
        """
        row = {"tenant": storable(tenant), "cause": storable(alert.cause), "carrier": carrier}
        row |= {"text": storable(alert.text), "job": storable(alert.job)}
        insert = self._database.insert(alerts).values(count=1, since_ms=now, seen_ms=now, told_ms=0, **row)
        counted = insert.on_conflict_do_update(
            index_elements=alerts.primary_key, set_=self._counted(insert.excluded, now)
        )
        return await self._change(counted, row["tenant"], row["cause"])

    def _counted(self, new: Any, now: int) -> dict[str, Any]:
        """The row with one failure more; one statement, so that nobody's count is lost."""
        old = alerts.c
        back = old.carrier == new.carrier
        vacant = or_(old.count == 0, old.seen_ms < now - self.every_ms - LOST_MS)
        return {
            "count": case((back, old.count), else_=old.count + 1),
            "since_ms": case((old.count == 0, new.since_ms), else_=old.since_ms),
            "text": case((back, old.text), else_=new.text),
            "job": case((back, old.job), else_=new.job),
            "carrier": case((vacant, new.carrier), else_=old.carrier),
            "seen_ms": case((or_(back, vacant), new.seen_ms), else_=old.seen_ms),
        }

    async def told(self, tenant: str, cause: str, untold: Untold, now: int) -> Untold:
        """An alert of `untold` went out; returns what has come since. Another's telling of it counts first."""
        same = alerts.c.carrier == untold.carrier, alerts.c.told_ms == untold.told_ms
        rest = {"count": alerts.c.count - untold.count, "since_ms": now, "seen_ms": now, "told_ms": now}
        left = await self._change(update(alerts).where(*_of(tenant, cause), *same).values(rest), tenant, cause)
        old = now - self.every_ms - KEEP_MS
        await self._database.write(delete(alerts).where(alerts.c.count == 0, alerts.c.told_ms < old))
        return left

    async def _change(self, statement: Any, tenant: str, cause: str) -> Untold:
        columns = [alerts.c[name] for name in Untold.__struct_fields__]
        (row,) = await self._database.change(statement, select(*columns).where(*_of(tenant, cause)))
        return Untold(**row)


class AlertHandler:
    """Tell the administrators of a failure, together with others of the same tenant and cause.

    The first is told at once. Of those that come in the time between two alerts (see AlertStore) the first waits
    until it is over, and carries the others, which are only counted and done; then one alert tells of them all,
    and so on. So a cause has one job waiting, and one alert in that time, however many fail and whichever workers
    they come to. A carrier that comes back (its worker was lost) goes on as one, and is not counted again; one
    that never does is replaced. An alert goes out at least once: where a worker is lost right after it, again.

    All channels are asked, and one that takes the alert is enough. While none does, what was counted stays and the
    carrier tries again; where there are no channels the alert goes to the log.
    """

    def __init__(
        self, store: AlertStore, channels: Sequence[AlertChannel], *, now: Callable[[], int] = now_ms
    ) -> None:
        self._store = store
        self._channels = channels
        self._now = now

    async def __call__(self, ctx: Context, job: Alert) -> dict[str, int]:
        me = str(ctx.job_id)
        untold = await self._store.count(ctx.tenant, me, job, self._now())
        if untold.carrier != me or not untold.count:
            return {"told": 0}
        self._wait_for_turn(untold)
        await self._tell(ctx.tenant, job.cause, untold)
        left = await self._store.told(ctx.tenant, job.cause, untold, self._now())
        if left.carrier == me and left.count:
            raise RetryLater(self._store.every_ms / 1000, "carries what failed while the last alert went out")
        return {"told": untold.count}

    def _wait_for_turn(self, untold: Untold) -> None:
        """Raises RetryLater while the last alert is too recent."""
        left = untold.told_ms + self._store.every_ms - self._now()
        if left > 0:
            wait = min(left, self._store.every_ms)  # whatever another worker's clock says
            raise RetryLater(wait / 1000, "carries what fails until the next alert of this cause")

    async def _tell(self, tenant: str, cause: str, untold: Untold) -> None:
        """Raises RetryLater where no channel takes the alert."""
        subject, text = headline(cause, untold.count), words(tenant, cause, untold)
        if not self._channels:
            log.error("nobody is set to be alerted (alerts.to): %s", text)
            return
        alert_id = f"{untold.carrier}-{untold.told_ms}"  # a carrier may tell more than once
        taken = await asyncio.gather(*(offer(channel, subject, text, alert_id) for channel in self._channels))
        if not any(taken):
            log.error("no channel took an alert, it is tried again: %s", text)
            raise RetryLater(min(AGAIN_MS, self._store.every_ms) / 1000, "no channel took the alert")


class EmailAlerts:
    """Alerts to an e-mail address."""

    def __init__(self, email: Email, address: str) -> None:
        self._email = email
        self._address = address

    async def send(self, subject: str, text: str, *, id: str) -> None:  # noqa: A002
        """See AlertChannel."""
        await self._email.send(self._address, subject, text, message_id=id)


class WebhookAlerts:
    """Alerts to a webhook: events `alert` with a subject and a text."""

    def __init__(self, webhook: SignedWebhook) -> None:
        self._webhook = webhook

    async def send(self, subject: str, text: str, *, id: str) -> None:  # noqa: A002
        """See AlertChannel."""
        await self._webhook.post("alert", {"subject": subject, "text": text}, id=id)


class MessengerAlerts:
    """Alerts to a phone, over the channel messages go out by; by its `template` if it has one, as administrators
    seldom write to the shop's number."""

    def __init__(self, messenger: Messenger, to: str, *, template: bool) -> None:
        self._messenger = messenger
        self._to = to
        self._template = template

    async def send(self, subject: str, text: str, *, id: str) -> None:  # noqa: A002
        """See AlertChannel."""
        message = Outgoing(tenant="", to=self._to, text=f"{subject}\n\n{text}", template=self._template)
        await self._messenger.send(id, message, again=False)


def headline(cause: str, count: int) -> str:
    """An alert's subject."""
    return f"[Riacho] {cause}" if count == 1 else f"[Riacho] {cause} ({count} vezes)"


def words(tenant: str, cause: str, untold: Untold) -> str:
    """An alert's text."""
    when = datetime.fromtimestamp(untold.since_ms / 1000, UTC).strftime("%d/%m/%Y %H:%M:%S UTC")
    times = f"1 vez, em {when}" if untold.count == 1 else f"{untold.count} vezes desde {when}"
    about = [
        ("Causa", cause),
        ("Loja", tenant),
        ("Ocorrências", times),
        ("Exemplo mais recente", untold.text),
        ("Tarefa", untold.job),
    ]
    return "".join(f"{name}: {value}\n" for name, value in about if value)


async def offer(channel: AlertChannel, subject: str, text: str, alert_id: str) -> bool:
    """Whether a channel took an alert."""
    try:
        await channel.send(subject, text, id=alert_id)
    except (NotSent, OutcomeUnknown) as error:
        log.warning("an alert did not go out by %s: %s", type(channel).__name__, error)
        return False
    except Exception as error:  # noqa: BLE001 - one channel's fault is not to keep the others' alert
        # What it says may have an address or a secret in it.
        log.warning("an alert did not go out by %s: %s", type(channel).__name__, type(error).__name__)
        return False
    return True


def _of(tenant: str, cause: str) -> tuple[Any, Any]:
    return alerts.c.tenant == storable(tenant), alerts.c.cause == storable(cause)
