"""Many rows in one statement that is the same for any number of them: VALUES would be compiled anew for each."""

from collections.abc import Sequence
from typing import Any

import msgspec
from sqlalchemy import Column, Select, String, Table, bindparam, column, func, literal_column, select, true
from sqlalchemy.dialects.postgresql import ARRAY

from stages.store.database import Database


class Bulk:
    """An insert into some columns of a table. `insert` is the statement, to be completed by what it does on a
    conflict; it is run with `parameters`. Text must be without NUL: neither database takes it this way."""

    def __init__(self, database: Database, table: Table, names: Sequence[str]) -> None:
        self._columns = [table.c[name] for name in names]
        self._in_arrays = database.dialect == "postgresql"
        rows = _from_arrays(self._columns) if self._in_arrays else _from_json(len(names))
        self.insert = database.insert(table).from_select(list(names), rows)

    def parameters(self, rows: Sequence[Sequence[Any]]) -> dict[str, Any]:
        """Rows, at least one and each with its values in the order of the columns."""
        if not self._in_arrays:
            return {"rows": msgspec.json.encode(rows).decode()}
        values = zip(*rows, strict=True)
        return {column.name: list(of_rows) for column, of_rows in zip(self._columns, values, strict=True)}


def _from_arrays(columns: Sequence[Column[Any]]) -> Select[Any]:
    """One array for each column."""
    arrays = (bindparam(each.name, type_=ARRAY(each.type)) for each in columns)
    rows = func.unnest(*arrays).table_valued(*(column(each.name, each.type) for each in columns))
    return select(*rows.render_derived().c)


def _from_json(width: int) -> Select[Any]:
    """An array of arrays. WHERE, as SQLite would take the ON of ON CONFLICT for a join's."""
    row = func.json_each(bindparam("rows", type_=String)).table_valued("value").c.value
    return select(*(func.json_extract(row, literal_column(f"'$[{n}]'")) for n in range(width))).where(true())
