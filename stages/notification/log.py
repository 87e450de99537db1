"""The notification log: what became of each message, and which senders are held up, in a database."""

from collections.abc import Sequence
from typing import Any

import msgspec
from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Index,
    Integer,
    String,
    Table,
    Text,
    bindparam,
    case,
    delete,
    exists,
    or_,
    select,
    true,
    update,
)

from stages.jobs import Receipt
from stages.notification.errors import RateLimited
from stages.store import Database, metadata

notifications = Table(
    "notifications",
    metadata,
    Column("job", String, primary_key=True),
    Column("tenant", String, nullable=False),
    Column("kind", String, nullable=False),
    Column("recipient", String, nullable=False),
    Column("channel", String, nullable=False),
    Column("payload", Text, nullable=False),
    Column("created_ms", BigInteger, nullable=False),
    Column("called_ms", BigInteger, nullable=False),
    Column("state", String, nullable=False),
    Column("calls", Integer, nullable=False),
    Column("template", Boolean, nullable=False),
    Column("message_id", String, nullable=False),
    Column("status", String, nullable=False),
    Column("status_rank", Integer, nullable=False),
    Column("status_ms", BigInteger, nullable=False),
    Column("code", Integer),
    Column("error", Text, nullable=False),
)
Index("notifications_by_time", notifications.c.created_ms)

senders = Table(
    "senders",
    metadata,
    Column("tenant", String, primary_key=True),
    Column("paused", Boolean, nullable=False),
    Column("until_ms", BigInteger, nullable=False),
    Column("strikes", Integer, nullable=False),
    Column("code", Integer),
    Column("reason", Text, nullable=False),
    Column("since_ms", BigInteger, nullable=False),
)

# Statuses come in any order; the furthest one counts. What was delivered has not failed.
RANKS = {"sent": 1, "failed": 2, "delivered": 3, "read": 4, "played": 5}
STRIKES_FORGOTTEN = 600_000  # ms after a sender was last too fast


class Notification(msgspec.Struct, frozen=True, kw_only=True):
    """What became of a job's message.

    `state`: sending (the channel was asked, and has not answered), refused (it did not take it this time),
    accepted, failed for good, or unknown (given up while it was sending). `calls` is how often it was asked,
    `called_ms` when last; `message_id` its own id of the message, `status` what it told of it since, and when.
    `payload` is the job's, in JSON.
    """

    job: str
    tenant: str
    kind: str
    recipient: str
    channel: str
    payload: str
    created_ms: int
    called_ms: int
    state: str = "sending"
    calls: int = 1
    template: bool = False
    message_id: str = ""
    status: str = ""
    status_rank: int = 0
    status_ms: int = 0
    code: int | None = None
    error: str = ""


class Held(msgspec.Struct, frozen=True, kw_only=True):
    """A sender that is to be silent until `until_ms`. `paused`: then one message is tried, and the others wait for
    it; otherwise it was too fast, `strikes` times in a row."""

    tenant: str
    paused: bool
    until_ms: int
    strikes: int
    code: int | None
    reason: str
    since_ms: int


class NotificationLog:
    """On a database that has the tables `notifications` and `senders`. Times are ms since the epoch."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._insert = database.insert(notifications)
        self._begin = self._insert.from_select(_names(notifications), _row_unless_held()).on_conflict_do_nothing()

    # ── messages ──

    async def begin(self, new: Notification) -> bool:
        """Note that a job's channel is about to be asked, in a single statement; False where that was noted
        before, or the sender is held up."""
        return await self._database.write(self._begin, msgspec.structs.asdict(new)) > 0

    async def record(self, new: Notification) -> bool:
        """Note something of a job that nothing is known of; False where it is."""
        return await self._database.write(self._insert.on_conflict_do_nothing(), msgspec.structs.asdict(new)) > 0

    async def begin_again(self, known: Notification, now: int) -> bool:
        """Note that it is about to be asked once more; False where somebody else was faster, or a receipt has told
        meanwhile that it was taken."""
        unchanged = _of(known.job).where(notifications.c.calls == known.calls, notifications.c.message_id == "")
        again = unchanged.values(state="sending", calls=known.calls + 1, called_ms=now)
        return await self._database.write(again) > 0

    async def accepted(self, job: str, message_id: str) -> None:
        """The channel took it. What it told of it in the meantime stays."""
        taken = _of(job).where(notifications.c.state == "sending")
        await self._database.write(taken.values(state="accepted", message_id=message_id, code=None, error=""))

    async def refused(
        self, job: str, code: int | None, error: str, *, template: bool = False, counts: bool = True
    ) -> None:
        """The channel did not take it; `template`: it would take the approved template. A call that does not count
        leaves `calls` as they were before it."""
        not_taken = _of(job).where(notifications.c.state == "sending")
        changes: dict[str, Any] = {"template": True} if template else {}
        if not counts:
            changes["calls"] = notifications.c.calls - 1
        await self._database.write(not_taken.values(state="refused", code=code, error=error, **changes))

    async def failed(self, job: str, tenant: str, error: str, now: int) -> None:
        """It will not be tried again, though nobody may know whether it went out; one that did stays accepted."""
        unknown = notifications.c.state.in_(("sending", "unknown"))
        state = case((unknown, "unknown"), else_="failed")
        given_up = _of(job).where(notifications.c.state != "accepted")
        if not await self._database.write(given_up.values(state=state, error=error)):
            await self.record(_never_called(job, tenant, error, now))

    async def receive(self, receipts: Sequence[Receipt]) -> None:
        """Note what the channel told, in one call: whatever the order, the furthest status stays."""
        # In one order, or two workers that note the same messages wait for each other, and PostgreSQL ends one.
        rows = [_told(receipt) for receipt in sorted(receipts, key=lambda told: told.job) if receipt.job]
        for failures in (False, True):
            some = [row for row in rows if ("b_error" in row) is failures]
            if some:
                await self._database.write(FAILED if failures else RECEIVED, some)

    async def find(self, job: str) -> Notification | None:
        """What is known of a job's message."""
        return (await self.find_all([job])).get(job)

    async def find_all(self, jobs: Sequence[str]) -> dict[str, Notification]:
        """What is known of the messages of some jobs."""
        rows = await self._database.read(select(notifications).where(notifications.c.job.in_(jobs)))
        return {row["job"]: Notification(**row) for row in rows}

    # ── senders ──

    async def held(self, tenant: str, now: int) -> Held | None:
        """Who holds up a tenant's messages, if anybody does."""
        rows = await self._database.read(select(senders).where(senders.c.tenant == tenant))
        found = [Held(**row) for row in rows]
        return found[0] if found and (found[0].paused or found[0].until_ms > now) else None

    async def paused(self) -> list[Held]:
        """The senders that are paused."""
        return [Held(**row) for row in await self._database.read(select(senders).where(senders.c.paused))]

    async def slow_down(self, tenant: str, error: RateLimited, now: int) -> None:
        """A sender was too fast, and is silent, longer each time; what was under way meanwhile changes nothing."""
        rows = await self._database.read(select(senders).where(senders.c.tenant == tenant))
        recent = bool(rows) and now - rows[0]["until_ms"] < STRIKES_FORGOTTEN
        strikes = rows[0]["strikes"] + 1 if recent else 1
        until_ms = now + int(error.wait(strikes) * 1000)
        row = Held(
            tenant=tenant,
            paused=False,
            until_ms=until_ms,
            strikes=strikes,
            code=error.code,
            reason=str(error),
            since_ms=now,
        )
        over = ~senders.c.paused & (senders.c.until_ms <= now)
        await self._hold(row, over)

    async def pause(self, tenant: str, code: int | None, reason: str, now: int, until_ms: int) -> bool:
        """A sender may not send; False where that was known."""
        row = Held(
            tenant=tenant,
            paused=True,
            until_ms=until_ms,
            strikes=0,
            code=code,
            reason=reason,
            since_ms=now,
        )
        return await self._hold(row, ~senders.c.paused)

    async def _hold(self, row: Held, unless_newer: Any) -> bool:
        values = msgspec.structs.asdict(row)
        insert = self._database.insert(senders).values(values)
        upsert = insert.on_conflict_do_update(index_elements=["tenant"], set_=values, where=unless_newer)
        return await self._database.write(upsert) > 0

    async def take_probe(self, held: Held, until_ms: int) -> bool:
        """Be the one message that a paused sender tries; False where another is."""
        mine = update(senders).where(senders.c.tenant == held.tenant, senders.c.until_ms == held.until_ms)
        return await self._database.write(mine.values(until_ms=until_ms)) > 0

    async def put_off(self, tenant: str, until_ms: int) -> None:
        """Have the next probe of a paused sender then."""
        of_tenant = update(senders).where(senders.c.tenant == tenant, senders.c.paused)
        await self._database.write(of_tenant.values(until_ms=until_ms))

    async def resume(self, tenant: str) -> bool:
        """A paused sender may send again; False where it was not paused."""
        return await self._database.write(delete(senders).where(senders.c.tenant == tenant, senders.c.paused)) > 0


def _never_called(job: str, tenant: str, error: str, now: int) -> Notification:
    return Notification(
        job=job,
        tenant=tenant,
        kind=job.partition(".")[0],
        recipient="",
        channel="",
        payload="",
        created_ms=now,
        called_ms=now,
        state="failed",
        calls=0,
        error=error,
    )


def _names(table: Table) -> list[str]:
    return [column.name for column in table.columns]


def _row_unless_held() -> Any:
    """The parameters as a row, or no row while the tenant's sender is held up."""
    row = [bindparam(column.name, type_=column.type) for column in notifications.columns]
    in_force = or_(senders.c.paused == true(), senders.c.until_ms > bindparam("called_ms", type_=BigInteger()))
    of_tenant = senders.c.tenant == bindparam("tenant", type_=String())
    return select(*row).where(~exists().where(of_tenant, in_force))


def _of(job: str) -> Any:
    return update(notifications).where(notifications.c.job == job)


def _told(receipt: Receipt) -> dict[str, Any]:
    row: dict[str, Any] = {
        "b_job": receipt.job,
        "b_status": receipt.status,
        "b_rank": RANKS[receipt.status],
        "b_at": receipt.at_ms,
        "b_message": receipt.message_id,
    }
    return row | ({"b_code": receipt.code, "b_error": receipt.error} if receipt.status == "failed" else {})


_LATER = update(notifications).where(
    notifications.c.job == bindparam("b_job"), notifications.c.status_rank < bindparam("b_rank")
)
_TOLD: dict[str, Any] = {
    "status": bindparam("b_status"),
    "status_rank": bindparam("b_rank"),
    "status_ms": bindparam("b_at"),
    "message_id": bindparam("b_message"),
}
RECEIVED = _LATER.values(_TOLD | {"state": "accepted"})
# What failed of an earlier call does not matter where a later one is on its way.
_OF_THIS_CALL = or_(notifications.c.message_id == "", notifications.c.message_id == bindparam("b_message"))
FAILED = _LATER.where(_OF_THIS_CALL).values(
    _TOLD | {"state": "failed", "code": bindparam("b_code"), "error": bindparam("b_error")}
)
