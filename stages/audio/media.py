"""Media references: the voice notes that were transcribed, in a database."""

import msgspec
from sqlalchemy import BigInteger, Column, Float, Index, String, Table, Text

from stages.ports import MediaReference
from stages.store import Database, metadata, storable

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


class MediaStore:
    """The MediaLog port, on a database."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def record(self, reference: MediaReference) -> None:
        """See the port."""
        values = msgspec.structs.asdict(reference).items()
        row = {name: storable(value) if isinstance(value, str) else value for name, value in values}
        await self._database.write(self._database.insert(media).on_conflict_do_nothing(), row)
