"""What happened in a day, by tenant."""

from sqlalchemy import BigInteger, Column, Float, Integer, String, Table

from stages.store import metadata

# `day` is YYYY-MM-DD in UTC. Of notifications each is counted once, by how far it came. Handling time is from a
# customer's message coming in until its reply is found. Without any there are no percentiles.
statistics = Table(
    "statistics",
    metadata,
    Column("tenant", String, primary_key=True),
    Column("day", String(10), primary_key=True),
    Column("messages_in", Integer, nullable=False),
    Column("messages_out", Integer, nullable=False),
    Column("audio_seconds", Float, nullable=False),
    Column("transcripts", Integer, nullable=False),
    Column("notifications_accepted", Integer, nullable=False),
    Column("notifications_delivered", Integer, nullable=False),
    Column("notifications_read", Integer, nullable=False),
    Column("notifications_failed", Integer, nullable=False),
    Column("notifications_unknown", Integer, nullable=False),
    Column("failures", Integer, nullable=False),  # jobs that were buried
    Column("handling_p50_ms", Integer),
    Column("handling_p95_ms", Integer),
    Column("computed_ms", BigInteger, nullable=False),
)
