"""How each check of the last health check came out, in a database."""

from collections.abc import Sequence
from typing import Any

import msgspec
from sqlalchemy import BigInteger, Column, Integer, String, Table, Text, and_, case, delete, or_, select

from stages.health.finding import Finding
from stages.store import Database, metadata, storable

health = Table(
    "health",
    metadata,
    Column("name", String, primary_key=True),
    Column("state", String, nullable=False),  # ok, warning or failed
    Column("detail", Text, nullable=False),
    Column("figure", Integer, nullable=False),  # what the next check compares with, as the number of dead letters
    Column("since_ms", BigInteger, nullable=False),  # when it changed to this state; 0: it never was in another
    Column("checked_ms", BigInteger, nullable=False),  # when the check was asked for, as is since_ms
)


class Kept(msgspec.Struct, frozen=True):
    """What is kept of a check: its findings, and which of them it changed, by name."""

    findings: list[Finding]
    changed: frozenset[str]


class HealthLog:
    """On a database that has the table `health`. A check is known by its time, in ms: the same whenever its job is
    run again. Raises StoreUnavailable."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def keep(self, findings: Sequence[Finding], at: int) -> Kept:
        """Keep what a check found, in one step, and forget what there is no more; returns `kept` of it. Of two
        findings of one name the last is kept."""
        await self._database.write(delete(health).where(_gone(findings), health.c.checked_ms < at))
        # PostgreSQL changes no row twice in one statement.
        rows = list({finding.name: _row(finding, at) for finding in findings}.values())
        insert = self._database.insert(health).values(rows)
        new = insert.excluded
        values = {
            "state": new.state,
            "detail": new.detail,
            "figure": case((new.state == "failed", health.c.figure), else_=new.figure),  # it could not be counted
            "since_ms": case((health.c.state == new.state, health.c.since_ms), else_=at),
            "checked_ms": new.checked_ms,
        }
        upsert = insert.on_conflict_do_update(index_elements=["name"], set_=values)
        return _kept(await self._database.change(upsert, _of(at)), at)

    async def kept(self, at: int) -> Kept:
        """What a check has kept; nothing, where it has not come so far."""
        return _kept(await self._database.read(_of(at)), at)

    async def figure(self, name: str) -> int | None:
        """The figure of a finding at the last check, if there was one."""
        rows = await self._database.read(select(health.c.figure).where(health.c.name == name))
        return rows[0]["figure"] if rows else None


def _row(finding: Finding, at: int) -> dict[str, Any]:
    return {
        "name": finding.name,
        "state": finding.state,
        "detail": storable(finding.detail),
        "figure": finding.figure,
        "since_ms": 0 if finding.state == "ok" else at,  # what is well from the start is no change
        "checked_ms": at,
    }


def _gone(findings: Sequence[Finding]) -> Any:
    """What was not found; but nothing of a check that failed as a whole, which is not known."""
    missing = health.c.name.not_in([finding.name for finding in findings])
    failed = [finding.name for finding in findings if finding.state == "failed"]
    unknown = [health.c.name.startswith(f"{name}.", autoescape=True) for name in failed]
    return and_(missing, ~or_(*unknown)) if unknown else missing


def _of(at: int) -> Any:
    return select(health).where(health.c.checked_ms == at).order_by(health.c.name)


def _kept(rows: Sequence[Any], at: int) -> Kept:
    findings = [Finding(row["name"], row["state"], row["detail"], figure=row["figure"]) for row in rows]
    return Kept(findings, frozenset(row["name"] for row in rows if row["since_ms"] == at))
