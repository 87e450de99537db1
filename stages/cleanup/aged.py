"""Rows that go by their age: found in pages, looked at again under a lock, deleted by their keys."""

from collections.abc import AsyncIterator, Sequence
from typing import Any, TypeVar

import msgspec
from sqlalchemy import (
    Column,
    ColumnElement,
    RowMapping,
    Table,
    and_,
    delete,
    false,
    func,
    literal,
    select,
    true,
    tuple_,
)
from sqlalchemy.ext.asyncio import AsyncConnection

from stages.cleanup.retention import Cutoffs
from stages.cleanup.run import BATCH, PAGE, Run
from stages.store import Database, Rows

Key = tuple[Any, ...]
T = TypeVar("T")


class Aged(msgspec.Struct, frozen=True):
    """Rows of a table that go when all of `times`, and `newest`, are long ago; the first has an index. Those that
    are not `loose` are no matter here, those that are `held` stay. The table has a column `tenant`."""

    table: Table
    times: tuple[Column[int], ...]
    newest: ColumnElement[int] = literal(0)
    loose: ColumnElement[bool] = true()
    held: ColumnElement[bool] = false()

    @property
    def key(self) -> tuple[Column[Any], ...]:
        return tuple(self.table.primary_key.columns)


class Sweep:
    """The rows of a table that are beyond their cutoffs.

    Pages come in the order of time from the index, and each goes on where the last one ended, so that what stays,
    or was deleted, is gone through once.
    """

    def __init__(self, database: Database, aged: Aged, cutoffs: Cutoffs) -> None:
        self._database = database
        self._aged = aged
        self._cutoffs = cutoffs
        self._keys = Rows(database, aged.key)
        these = self._keys.has(*aged.key)
        again = self._rows().where(these, aged.loose)
        self._lock = again.with_for_update(of=aged.table, skip_locked=True)
        self._remove = delete(aged.table).where(these)

    async def count(self) -> int:
        """How many rows the pages have in all."""
        return await number_of(self._database, self._aged.table, *self._old())

    async def pages(self) -> AsyncIterator[Sequence[RowMapping]]:
        """All rows that may be due, so many at a time."""
        order = (self._aged.times[0], *self._aged.key)
        after: ColumnElement[bool] = true()
        while rows := await self._database.read(
            self._rows().where(*self._old(), after).order_by(*order).limit(PAGE)
        ):
            yield rows
            last = [literal(rows[-1][column.name], column.type) for column in order]
            after = and_(order[0] >= last[0], tuple_(*order) > tuple_(*last))

    def due(self, rows: Sequence[RowMapping]) -> list[Key]:
        """The keys of those that go."""
        return [self._key(row) for row in rows if self._is_old(row) and not self._is_held(row)]

    def held_back(self, rows: Sequence[RowMapping]) -> int:
        """How many stay only because they are held."""
        return sum(self._is_old(row) and self._is_held(row) for row in rows)

    async def still_due(self, connection: AsyncConnection, keys: Sequence[Key]) -> list[Key]:
        """Those of some keys that go, with their rows locked; one that somebody else has locked is being written,
        and stays."""
        locked = await connection.execute(self._lock, self._keys.parameters(keys))
        return self.due(locked.mappings().all())

    async def delete(self, connection: AsyncConnection, keys: Sequence[Key]) -> int:
        """Delete the rows of these keys, and say how many there were."""
        gone: int = (await connection.execute(self._remove, self._keys.parameters(keys))).rowcount
        return gone

    async def prune(self, run: Run, name: str) -> None:
        """Delete all that is due, or only count it, under this name."""
        async for rows in self.pages():
            run.counts["held_back"] += self.held_back(rows)
            keys = self.due(rows)
            for some in parts_of(keys, BATCH):
                run.counts[name] += len(some) if run.dry else await self._delete_due(run, some)
            await run.saw(len(rows))

    async def _delete_due(self, run: Run, keys: Sequence[Key]) -> int:
        async with run.turn(self._database) as connection:
            due = await self.still_due(connection, keys)
            return await self.delete(connection, due) if due else 0

    def _rows(self) -> Any:
        columns = dict.fromkeys((self._aged.table.c.tenant, *self._aged.key, *self._aged.times))
        return select(*columns, self._aged.newest.label("newest"), self._aged.held.label("is_held"))

    def _old(self) -> list[ColumnElement[bool]]:
        conditions = [time < self._cutoffs.latest for time in self._aged.times]
        if self._cutoffs.tenant is not None:
            conditions.append(self._aged.table.c.tenant == self._cutoffs.tenant)
        return [*conditions, self._aged.loose]

    def _is_old(self, row: RowMapping) -> bool:
        times = (row[time.name] for time in self._aged.times)
        return self._cutoffs.is_old(row["tenant"], max(row["newest"], *times))

    def _is_held(self, row: RowMapping) -> bool:
        return row["is_held"] or row["tenant"] in self._cutoffs.held

    def _key(self, row: RowMapping) -> Key:
        return tuple(row[column.name] for column in self._aged.key)


async def number_of(database: Database, table: Table, *conditions: ColumnElement[bool]) -> int:
    """How many rows of a table there are."""
    (found,) = await database.read(select(func.count().label("rows")).select_from(table).where(*conditions))
    return int(found["rows"])


def parts_of(whole: Sequence[T], size: int) -> list[Sequence[T]]:
    """Parts of no more than a size, in order."""
    return [whole[start : start + size] for start in range(0, len(whole), size)]
