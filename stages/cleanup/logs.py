"""The stage `cleanup.logs`: what became of notifications, and alerts that were told."""

from collections.abc import Callable

from sqlalchemy import case, exists, func, literal

from pipeline import Context
from pipeline.message import now_ms
from stages.cleanup.aged import Aged, Sweep
from stages.cleanup.retention import Retention
from stages.cleanup.run import Pruned, Run
from stages.conversation.store import conversations
from stages.jobs import Prune
from stages.notification.alerts import alerts
from stages.notification.away import waiting_for_log
from stages.notification.log import notifications
from stages.store import Database

# A chat is called as WhatsApp calls the customer: without the + that a number is written to, and in Brazil and
# Mexico in the older form of it, perhaps (see stages/notification/phone.py).
_to = notifications.c.recipient
_without_9 = literal("55") + func.substr(_to, 4, 2) + func.substr(_to, 7)
_BRAZIL = case((_to.like("+55__9________"), _without_9), else_=_to)
_MEXICO = case((_to.like("+52__________"), literal("521") + func.substr(_to, 4)), else_=_to)
_in_held_chat = exists().where(
    conversations.c.tenant == notifications.c.tenant,
    conversations.c.chat.in_([_to, func.substr(_to, 2), _BRAZIL, _MEXICO]),
    conversations.c.held,
)
OLD_NOTIFICATIONS = Aged(
    notifications,
    (notifications.c.created_ms, notifications.c.called_ms, notifications.c.status_ms),
    held=_in_held_chat,
)
TOLD_ALERTS = Aged(alerts, (alerts.c.seen_ms, alerts.c.told_ms), loose=alerts.c.count == 0)


class LogsHandler:
    """Deletes notifications that nothing happened to since the cutoff, and alerts with nothing left to tell."""

    def __init__(self, database: Database, retention: Retention, now: Callable[[], int] = now_ms) -> None:
        self._database = database
        self._retention = retention
        self._now = now

    async def __call__(self, ctx: Context, job: Prune) -> Pruned:
        now, run = self._now(), Run(ctx, job)
        cutoffs = self._retention.cutoffs(job, now)
        with waiting_for_log(ctx, now):
            old = Sweep(self._database, OLD_NOTIFICATIONS, cutoffs)
            told = Sweep(self._database, TOLD_ALERTS, cutoffs)
            run.total = await old.count() + await told.count()
            await old.prune(run, "notifications")
            await told.prune(run, "alerts")
        return run.result()
