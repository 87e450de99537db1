"""The tables of this version, from whatever an earlier one left: alembic's migrations, run over a connection.

The steps are the files in migrations/versions, one after another. They only add, so that processes of the version
before go on working; and they name what they make themselves, as the tables of the code change.
"""

import logging
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sqlalchemy import Connection, column, inspect, select, table

if TYPE_CHECKING:  # imported when there is something to migrate: it takes longer than all else here
    from alembic.runtime.migration import MigrationContext, RevisionStep

log = logging.getLogger(__name__)

MIGRATIONS = Path(__file__).parent / "migrations"
REVISIONS = sorted(file.name[:4] for file in MIGRATIONS.glob("versions/[0-9]*.py"))
REVISION_TABLE = "riacho_revision"  # not alembic's usual one: others may have theirs in the same database


class UnknownRevision(Exception):
    """The tables are at a revision that is none of ours: a later version of Riacho made them."""


def revision_of(connection: Connection) -> str:
    """Where the tables stand; '' where nothing was migrated yet. Raises UnknownRevision."""
    if not inspect(connection).has_table(REVISION_TABLE):
        return ""
    revision = connection.scalar(select(column("version_num")).select_from(table(REVISION_TABLE))) or ""
    if revision and revision not in REVISIONS:
        raise UnknownRevision(f"its tables are at revision {revision[:20]}, this version knows {REVISIONS[-1]}")
    return revision


def is_current(connection: Connection) -> bool:
    """Whether there is nothing to do. Raises UnknownRevision."""
    return revision_of(connection) == REVISIONS[-1]


def migrate(connection: Connection) -> None:
    """Make the tables in the transaction that the connection is in; nobody else may be at it. Raises
    UnknownRevision."""
    before = revision_of(connection)
    if before == REVISIONS[-1]:
        return
    _run_migrations(connection)
    log.info("the tables of the database went from revision %s to %s", before or "none", REVISIONS[-1])


def _run_migrations(connection: Connection) -> None:
    # Not by alembic's environment, which is one for the whole process: others may open their databases meanwhile.
    from alembic.operations import Operations  # noqa: PLC0415
    from alembic.runtime.migration import MigrationContext  # noqa: PLC0415

    options: dict[str, Any] = {"fn": _steps, "version_table": REVISION_TABLE}
    context = MigrationContext.configure(connection, opts=options)
    context.run_migrations(op=Operations(context))


def _steps(heads: tuple[str, ...], _: "MigrationContext") -> Iterable["RevisionStep"]:
    """What is to be run, in its order."""
    from alembic.runtime.migration import MigrationStep  # noqa: PLC0415
    from alembic.script import ScriptDirectory  # noqa: PLC0415

    scripts = ScriptDirectory(str(MIGRATIONS))
    missing = scripts.iterate_revisions("head", heads or "base")
    return [MigrationStep.upgrade_from_script(scripts.revision_map, script) for script in reversed([*missing])]
