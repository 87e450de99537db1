"""What is kept of a voice note once it is transcribed: where it lies, and whose it was."""

import asyncio
import logging
from pathlib import Path
from typing import Any
from unittest.mock import AsyncMock

import msgspec
import pytest
from sqlalchemy import select, text

from api.adapters import Adapters
from config import load
from pipeline import Done, Permanent
from pipeline.message import now_ms
from stages.audio import referenced
from stages.audio.media import MediaStore, media
from stages.audio.referenced import Referenced
from stages.jobs import Incoming, Transcribe
from stages.ports import MediaReference, Transcript
from stages.store import Database
from tests.support import context_of

pytestmark = pytest.mark.integration

HEARD = Transcript("olá", "pt", 1.0, 2.5, model="base", seconds=0.7)
NOTE = Transcribe(source="whatsapp:42", message=Incoming("ana", "wamid.1", 1))


class Silent:
    async def record(self, _: MediaReference) -> None:
        await asyncio.Event().wait()


async def handle(media: Any, note: Transcribe = NOTE, outcome: object = None) -> object:
    return await Referenced(AsyncMock(return_value=outcome or Done(HEARD)), media)(
        context_of("transcribe", note), note
    )


async def kept(database: Database) -> list[MediaReference]:
    return [MediaReference(**row) for row in await database.read(select(media).order_by(media.c.job))]


async def test_a_note_that_was_transcribed_is_referred_to(database: Database) -> None:
    before = now_ms()
    assert await handle(MediaStore(database)) == Done(HEARD)
    (reference,) = await kept(database)
    assert before <= reference.at_ms <= now_ms()
    assert msgspec.structs.replace(reference, at_ms=0) == MediaReference(
        job="transcribe.0.1-0",
        tenant="shop",
        chat="ana",
        message="wamid.1",
        source="whatsapp:42",
        language="pt",
        seconds=2.5,
        heard=700,
        at_ms=0,
    )


async def test_a_job_that_comes_again_changes_nothing(database: Database) -> None:
    await handle(MediaStore(database))
    first = await kept(database)
    await handle(MediaStore(database), outcome=Done(msgspec.structs.replace(HEARD, duration=9.0)))
    assert await kept(database) == first


async def test_a_note_of_no_chat_has_its_source_without_what_may_be_secret(database: Database) -> None:
    await handle(MediaStore(database), Transcribe(source="https://me:word@shop.example/a\0.ogg?signature=x"))
    (reference,) = await kept(database)
    assert (reference.chat, reference.message, reference.source) == ("", "", "https://shop.example/a.ogg")


async def test_of_a_note_that_is_none_nothing_is_kept(database: Database) -> None:
    with pytest.raises(Permanent):
        await Referenced(AsyncMock(side_effect=Permanent("no audio")), MediaStore(database))(AsyncMock(), NOTE)
    assert await kept(database) == []


async def test_a_transcription_is_not_lost_with_its_reference(
    database: Database, caplog: pytest.LogCaptureFixture
) -> None:
    await database.write(text("DROP TABLE media"))
    with caplog.at_level(logging.WARNING):
        assert await handle(MediaStore(database)) == Done(HEARD)
    assert "no reference of the voice note of transcribe.0.1-0 is kept: the database: " in caplog.text


async def test_a_transcription_does_not_wait_for_a_store_that_does_not_answer(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(referenced, "LONGEST", 0.01)
    with caplog.at_level(logging.WARNING):
        assert await handle(Silent()) == Done(HEARD)
    assert "no answer within 0.01 s" in caplog.text


async def test_the_transcribe_stage_of_the_real_parts_refers_to_its_notes(tmp_path: Path) -> None:
    adapters: Any = Adapters(load(environ={"RIACHO_DATA_FOLDER": str(tmp_path)}))
    adapters.source, adapters.transcriber = AsyncMock(), AsyncMock()
    adapters.transcriber.transcribe.return_value = HEARD
    async with adapters.database:
        await adapters.pipeline().stage("transcribe").handler(context_of("transcribe", NOTE), NOTE)
        assert [reference.message for reference in await kept(adapters.database)] == ["wamid.1"]
        assert await adapters.conversations.find("shop", "ana", "wamid.1")
