"""The tables of databases made before there were migrations; one that has them keeps what is in them."""

from alembic.operations import Operations
from sqlalchemy import BigInteger, Boolean, Column, Integer, LargeBinary, String, Text, inspect

revision = "0001"
down_revision = None


def upgrade(op: Operations) -> None:
    _messages(op)
    _transcripts(op)
    _notifications(op)
    _senders(op)
    _alerts(op)


def _messages(op: Operations) -> None:
    op.create_table(
        "messages",
        Column("tenant", String, primary_key=True),
        Column("chat", String, primary_key=True),
        Column("id", String, primary_key=True),
        Column("direction", String(3), nullable=False),
        Column("text", Text, nullable=False),
        Column("sent_ms", BigInteger, nullable=False),
        Column("voice", Boolean, nullable=False),
        if_not_exists=True,
    )
    # The first ones were made without it.
    if "received_ms" not in {column["name"] for column in inspect(op.get_bind()).get_columns("messages")}:
        op.add_column("messages", Column("received_ms", BigInteger, nullable=False, server_default="0"))
    op.create_index("messages_by_time", "messages", ["tenant", "chat", "sent_ms"], if_not_exists=True)


def _transcripts(op: Operations) -> None:
    op.create_table(
        "transcripts",
        Column("key", String, primary_key=True),
        Column("transcript", LargeBinary, nullable=False),
        Column("kept_ms", BigInteger, nullable=False),
        if_not_exists=True,
    )
    op.create_index("ix_transcripts_kept_ms", "transcripts", ["kept_ms"], if_not_exists=True)


def _notifications(op: Operations) -> None:
    op.create_table(
        "notifications",
        Column("job", String, primary_key=True),
        Column("tenant", String, nullable=False),
        Column("kind", String, nullable=False),
        Column("recipient", String, nullable=False),
        Column("channel", String, nullable=False),
        Column("payload", Text, nullable=False),
        Column("created_ms", BigInteger, nullable=False),
        Column("called_ms", BigInteger, nullable=False),
        Column("state", String, nullable=False),
        Column("calls", Integer, nullable=False),
        Column("template", Boolean, nullable=False),
        Column("message_id", String, nullable=False),
        Column("status", String, nullable=False),
        Column("status_rank", Integer, nullable=False),
        Column("status_ms", BigInteger, nullable=False),
        Column("code", Integer),
        Column("error", Text, nullable=False),
        if_not_exists=True,
    )
    op.create_index("notifications_by_time", "notifications", ["created_ms"], if_not_exists=True)


def _senders(op: Operations) -> None:
    op.create_table(
        "senders",
        Column("tenant", String, primary_key=True),
        Column("paused", Boolean, nullable=False),
        Column("until_ms", BigInteger, nullable=False),
        Column("strikes", Integer, nullable=False),
        Column("code", Integer),
        Column("reason", Text, nullable=False),
        Column("since_ms", BigInteger, nullable=False),
        if_not_exists=True,
    )


def _alerts(op: Operations) -> None:
    op.create_table(
        "alerts",
        Column("tenant", String, primary_key=True),
        Column("cause", String, primary_key=True),
        Column("carrier", String, nullable=False),
        Column("seen_ms", BigInteger, nullable=False),
        Column("told_ms", BigInteger, nullable=False),
        Column("count", Integer, nullable=False),
        Column("since_ms", BigInteger, nullable=False),
        Column("text", Text, nullable=False),
        Column("job", String, nullable=False),
        if_not_exists=True,
    )
