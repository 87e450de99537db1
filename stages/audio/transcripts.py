"""Transcripts in the database, by the content of their notes."""

import msgspec
from sqlalchemy import BigInteger, Column, LargeBinary, String, Table, delete, select

from pipeline.message import now_ms
from stages.ports import Transcript
from stages.store import Database, metadata

transcripts = Table(
    "transcripts",
    metadata,
    Column("key", String, primary_key=True),
    Column("transcript", LargeBinary, nullable=False),
    Column("kept_ms", BigInteger, nullable=False, index=True),
)


class TranscriptStore:
    """The Transcripts port. A transcript is found for `keep` seconds (0: nothing is kept); what is older goes when
    a new one comes."""

    def __init__(self, database: Database, keep: float) -> None:
        self._database = database
        self._keep_ms = int(keep * 1000)

    async def find(self, key: str) -> Transcript | None:
        """See the port."""
        query = select(transcripts.c.transcript).where(
            transcripts.c.key == key, transcripts.c.kept_ms > now_ms() - self._keep_ms
        )
        rows = await self._database.read(query)
        return msgspec.msgpack.decode(rows[0]["transcript"], type=Transcript) if rows else None

    async def keep(self, key: str, transcript: Transcript) -> None:
        """See the port."""
        if not self._keep_ms:
            return
        now = now_ms()
        await self._database.write(delete(transcripts).where(transcripts.c.kept_ms <= now - self._keep_ms))
        row = {"key": key, "transcript": msgspec.msgpack.encode(transcript), "kept_ms": now}
        await self._database.write(self._database.insert(transcripts).on_conflict_do_nothing(), [row])
