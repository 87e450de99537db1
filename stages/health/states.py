"""How each check of the last health check came out, in a database."""

from sqlalchemy import BigInteger, Column, Integer, String, Table, Text

from stages.store import metadata

health = Table(
    "health",
    metadata,
    Column("name", String, primary_key=True),
    Column("state", String, nullable=False),  # ok, warning or failed
    Column("detail", Text, nullable=False),
    Column("figure", Integer, nullable=False),  # what the next check compares with, as the number of dead letters
    Column("since_ms", BigInteger, nullable=False),  # in this state
    Column("checked_ms", BigInteger, nullable=False),
)
