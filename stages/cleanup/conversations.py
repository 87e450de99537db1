"""The stage `cleanup.conversations`: chats in which nothing was said for long, and voice notes of none."""

from collections.abc import Callable, Sequence
from typing import Any

from sqlalchemy import Integer, Table, bindparam, delete, exists, func, or_, select, tuple_
from sqlalchemy.ext.asyncio import AsyncConnection

from pipeline import Context
from pipeline.message import now_ms
from stages.audio.media import media
from stages.cleanup.aged import Aged, Key, Sweep, parts_of
from stages.cleanup.retention import Cutoffs, Retention
from stages.cleanup.run import BATCH, PAGE, Pruned, Run
from stages.conversation.store import conversations, messages
from stages.jobs import Prune
from stages.notification.away import waiting_for_log
from stages.store import Database, Rows

CHATS = 20  # that share a transaction: with a dozen messages each they fill it

OF_CHATS = (messages, media)
_its_chat = exists().where(conversations.c.tenant == media.c.tenant, conversations.c.chat == media.c.chat)
LOOSE_MEDIA = Aged(media, (media.c.at_ms,), loose=or_(media.c.chat == "", ~_its_chat))


class ConversationsHandler:
    """Deletes the chats whose last message is beyond the cutoff: their messages, then their media, then their
    rows, which whoever writes to a chat has to lock first.

    A transaction locks the rows of some chats, looks again that they are old, and deletes at most BATCH rows of
    theirs; the next one goes on. So a message that comes meanwhile waits for one small transaction at most, and
    makes its chat a young one, which is left as it is from then on. A run that is cut off has deleted whole
    transactions, and the next run finds the rest.
    """

    def __init__(self, database: Database, retention: Retention, now: Callable[[], int] = now_ms) -> None:
        self._database = database
        self._retention = retention
        self._now = now
        self._chats = Rows(database, list(conversations.primary_key.columns))
        self._numbers = {table.name: _number(table, self._chats) for table in OF_CHATS}
        self._some = {table.name: _some(table, self._chats) for table in OF_CHATS}

    async def __call__(self, ctx: Context, job: Prune) -> Pruned:
        now, run = self._now(), Run(ctx, job)
        with waiting_for_log(ctx, now):
            await self._prune(run, self._retention.cutoffs(job, now))
        return run.result()

    async def _prune(self, run: Run, cutoffs: Cutoffs) -> None:
        await self._adopt(cutoffs)
        chats = Sweep(self._database, _silent_chats(self._now()), cutoffs)
        loose = Sweep(self._database, LOOSE_MEDIA, cutoffs)
        run.total = await chats.count() + await loose.count()
        async for rows in chats.pages():
            run.counts["held_back"] += chats.held_back(rows)
            for some in parts_of(chats.due(rows), CHATS):
                await (self._count(run, some) if run.dry else self._delete(run, chats, some))
            await run.saw(len(rows))
        await loose.prune(run, "media")

    async def _adopt(self, cutoffs: Cutoffs) -> None:
        """Have a row for each chat that only has messages: workers of an older version write none."""
        orphans = _orphans(cutoffs.latest).limit(PAGE)
        insert = self._database.insert(conversations).on_conflict_do_nothing()
        while found := await self._database.read(orphans):
            await self._database.write(insert, [dict(row) for row in found])

    async def _count(self, run: Run, chats: Sequence[Key]) -> None:
        run.counts["conversations"] += len(chats)
        these = self._chats.parameters(chats)
        for name, number in self._numbers.items():
            (found,) = await self._database.read(number.params(these))
            run.counts[name] += found["rows"]

    async def _delete(self, run: Run, sweep: Sweep, chats: Sequence[Key]) -> None:
        while chats:
            async with run.turn(self._database) as connection:
                chats = await sweep.still_due(connection, chats)
                gone = await self._emptied(connection, chats) if chats else {}
                empty = sum(gone.values()) < BATCH
                if chats and empty:
                    gone["conversations"] = await sweep.delete(connection, chats)
            run.counts.update(gone)
            chats = [] if empty else chats

    async def _emptied(self, connection: AsyncConnection, chats: Sequence[Key]) -> dict[str, int]:
        """Delete up to BATCH rows of chats, and say how many of which table; fewer: there are no more."""
        gone: dict[str, int] = {}
        these = self._chats.parameters(chats)
        for name, some in self._some.items():
            room = BATCH - sum(gone.values())
            if room:
                gone[name] = (await connection.execute(some, these | {"room": room})).rowcount
        return gone


def _silent_chats(now: int) -> Aged:
    """Their rows say when something was said last; what an older version wrote since, only the message does. Times
    that are yet to come say nothing."""
    said = messages.c.tenant == conversations.c.tenant, messages.c.chat == conversations.c.chat
    newest = select(func.max(messages.c.sent_ms)).where(*said, messages.c.sent_ms <= now).scalar_subquery()
    times = (conversations.c.last_ms,)
    return Aged(conversations, times, newest=func.coalesce(newest, 0), held=conversations.c.held)


def _orphans(before: int) -> Any:
    """Chats of old messages that have no row; as one would be."""
    tenant, chat, sent = messages.c.tenant, messages.c.chat, messages.c.sent_ms
    known = exists().where(conversations.c.tenant == tenant, conversations.c.chat == chat)
    times = func.min(sent).label("started_ms"), func.max(sent).label("last_ms")
    return select(tenant, chat, *times).where(sent < before, ~known).group_by(tenant, chat)


def _number(table: Table, chats: Rows) -> Any:
    return select(func.count().label("rows")).select_from(table).where(chats.has(table.c.tenant, table.c.chat))


def _some(table: Table, chats: Rows) -> Any:
    """Deletes so many of the rows of chats as there is `room` for."""
    key = table.primary_key.columns
    some = select(*key).where(chats.has(table.c.tenant, table.c.chat)).limit(bindparam("room", type_=Integer))
    return delete(table).where(tuple_(*key).in_(some))
