"""A run of a cleanup job: small transactions with pauses, what they deleted, how far it has come."""

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import msgspec
from sqlalchemy.ext.asyncio import AsyncConnection

from pipeline import Context
from stages.jobs import Prune
from stages.store import Database

pause = asyncio.sleep
BATCH = 250  # rows of the largest table that one transaction deletes: a few milliseconds
PAGE = 1_000  # rows that are looked at in one go
PAUSE = 2  # times as long as the transaction before


class Pruned(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """What a job deleted, or with `dry_run` would. `held_back` is what stays only because it is held: chats, or
    notifications. `batches` are the transactions it took. `skipped` says why nothing was looked at."""

    messages: int = 0
    conversations: int = 0
    media: int = 0
    notifications: int = 0
    alerts: int = 0
    files: int = 0
    bytes: int = 0
    held_back: int = 0
    batches: int = 0
    dry_run: bool = False
    skipped: str = ""


class Run:
    """Counts what goes, by the names in Pruned, and tells the job's progress; `total` is how many things it is to
    look at."""

    def __init__(self, ctx: Context, job: Prune) -> None:
        self._ctx = ctx
        self.dry = job.dry_run
        self.counts: Counter[str] = Counter()
        self.total = 0
        self._seen = 0
        self._percent = 0

    @asynccontextmanager
    async def turn(self, database: Database) -> AsyncIterator[AsyncConnection]:
        """A transaction, and a longer pause than it took: SQLite has one writer at a time, and who waits for it
        looks only now and then, later each time, so the lock has to be free at one of the first looks."""
        async with database.transaction() as connection:
            started = time.monotonic()
            yield connection
        self.counts["batches"] += 1
        await pause(PAUSE * (time.monotonic() - started))

    async def saw(self, number: int) -> None:
        """So many more of the total are done with."""
        self._seen += number
        await self.reached(100 * self._seen // max(self.total, 1))

    async def reached(self, percent: int) -> None:
        """Tell the progress where it is more than was told: a hundred times at most."""
        percent = min(percent, 100)
        if percent > self._percent:
            self._percent = percent
            gone = ("messages", "conversations", "media", "notifications", "alerts", "files")
            await self._ctx.progress(percent, f"{sum(self.counts[name] for name in gone):,} gone")

    def result(self) -> Pruned:
        """What was counted."""
        return msgspec.structs.replace(Pruned(dry_run=self.dry), **self.counts)
