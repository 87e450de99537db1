"""Media references: the voice notes that were transcribed, in a database."""

from sqlalchemy import BigInteger, Column, Float, Index, String, Table, Text

from stages.store import metadata

media = Table(
    "media",
    metadata,
    Column("job", String, primary_key=True),
    Column("tenant", String, nullable=False),
    Column("chat", String, nullable=False),  # empty where the note belongs to none
    Column("message", String, nullable=False),
    Column("source", Text, nullable=False),
    Column("language", String, nullable=False),
    Column("seconds", Float, nullable=False),
    Column("heard", BigInteger, nullable=False),  # ms the model had it
    Column("at_ms", BigInteger, nullable=False),  # when it was transcribed
)
Index("media_by_chat", media.c.tenant, media.c.chat)
Index("media_by_time", media.c.at_ms)
