"""Many rows in one statement that is the same for any number of them: VALUES, or a list of keys, would be compiled
anew for each."""

from collections.abc import Sequence
from typing import Any

import msgspec
from sqlalchemy import (
    Column,
    ColumnElement,
    Select,
    String,
    Table,
    bindparam,
    column,
    func,
    literal_column,
    select,
    true,
    tuple_,
)
from sqlalchemy.dialects.postgresql import ARRAY

from stages.store.database import Database


class Rows:
    """Values of some columns, to be told to a statement that has `select` in it: it is run with `parameters`. Text
    must be without NUL: neither database takes it this way."""

    def __init__(self, database: Database, columns: Sequence[Column[Any]]) -> None:
        self._columns = columns
        self._in_arrays = database.dialect == "postgresql"
        self.select = _from_arrays(columns) if self._in_arrays else _from_json(len(columns))

    def has(self, *columns: Column[Any]) -> ColumnElement[bool]:
        """Whether the values of these columns are one of the rows."""
        return (columns[0] if len(columns) == 1 else tuple_(*columns)).in_(self.select)

    def parameters(self, rows: Sequence[Sequence[Any]]) -> dict[str, Any]:
        """Rows, at least one and each with its values in the order of the columns."""
        if not self._in_arrays:
            return {"rows": msgspec.json.encode(rows).decode()}
        values = zip(*rows, strict=True)
        return {column.name: list(of_rows) for column, of_rows in zip(self._columns, values, strict=True)}


class Bulk:
    """An insert into some columns of a table. `insert` is the statement, to be completed by what it does on a
    conflict; it is run with `parameters`, see Rows."""

    def __init__(self, database: Database, table: Table, names: Sequence[str]) -> None:
        rows = Rows(database, [table.c[name] for name in names])
        self.insert = database.insert(table).from_select(list(names), rows.select)
        self.parameters = rows.parameters


def _from_arrays(columns: Sequence[Column[Any]]) -> Select[Any]:
    """One array for each column."""
    arrays = (bindparam(each.name, type_=ARRAY(each.type)) for each in columns)
    rows = func.unnest(*arrays).table_valued(*(column(each.name, each.type) for each in columns))
    return select(*rows.render_derived().c)


def _from_json(width: int) -> Select[Any]:
    """An array of arrays. WHERE, as SQLite would take the ON of ON CONFLICT for a join's."""
    row = func.json_each(bindparam("rows", type_=String)).table_valued("value").c.value
    return select(*(func.json_extract(row, literal_column(f"'$[{n}]'")) for n in range(width))).where(true())
