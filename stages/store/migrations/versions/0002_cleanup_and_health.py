"""What cleanup, statistics and health checks need. Conversations are made of the messages that are there."""

from alembic.operations import Operations
from sqlalchemy import BigInteger, Boolean, Column, Float, Integer, String, Text, false

revision = "0002"
down_revision = "0001"

# A chat began, and was last spoken in, when its first and last messages came; those from before `received_ms` was
# kept have only the time they were sent at. (CASE: SQLite has no GREATEST.)
CONVERSATIONS_OF_MESSAGES = """
INSERT INTO conversations (tenant, chat, started_ms, last_ms)
SELECT tenant, chat, MIN(came_ms), MAX(came_ms)
FROM (
    SELECT tenant, chat, CASE WHEN received_ms > sent_ms THEN received_ms ELSE sent_ms END AS came_ms
    FROM messages
) AS known
GROUP BY tenant, chat
"""


def upgrade(op: Operations) -> None:
    op.create_index("messages_by_day", "messages", ["sent_ms"], if_not_exists=True)
    _conversations(op)
    _media(op)
    _statistics(op)
    _health(op)


def _conversations(op: Operations) -> None:
    op.create_table(
        "conversations",
        Column("tenant", String, primary_key=True),
        Column("chat", String, primary_key=True),
        Column("started_ms", BigInteger, nullable=False),
        Column("last_ms", BigInteger, nullable=False),
        Column("held", Boolean, nullable=False, server_default=false()),
    )
    op.execute(CONVERSATIONS_OF_MESSAGES)
    op.create_index("conversations_by_time", "conversations", ["last_ms"])


def _media(op: Operations) -> None:
    op.create_table(
        "media",
        Column("job", String, primary_key=True),
        Column("tenant", String, nullable=False),
        Column("chat", String, nullable=False),
        Column("message", String, nullable=False),
        Column("source", Text, nullable=False),
        Column("language", String, nullable=False),
        Column("seconds", Float, nullable=False),
        Column("heard", BigInteger, nullable=False),
        Column("at_ms", BigInteger, nullable=False),
    )
    op.create_index("media_by_chat", "media", ["tenant", "chat"])
    op.create_index("media_by_time", "media", ["at_ms"])


def _statistics(op: Operations) -> None:
    op.create_table(
        "statistics",
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
        Column("failures", Integer, nullable=False),
        Column("handling_p50_ms", Integer),
        Column("handling_p95_ms", Integer),
        Column("computed_ms", BigInteger, nullable=False),
    )


def _health(op: Operations) -> None:
    op.create_table(
        "health",
        Column("name", String, primary_key=True),
        Column("state", String, nullable=False),
        Column("detail", Text, nullable=False),
        Column("figure", Integer, nullable=False),
        Column("since_ms", BigInteger, nullable=False),
        Column("checked_ms", BigInteger, nullable=False),
    )
