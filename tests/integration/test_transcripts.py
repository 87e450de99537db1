"""A note that comes again, or is there several times at once, is transcribed once."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest

from stages.audio.remembered import RememberingTranscriber
from stages.audio.transcripts import TranscriptStore
from stages.ports import Report, Segment, Transcript, Word
from stages.store import Database, sqlite_file
from tests.support import reached

pytestmark = pytest.mark.integration

WORDS = (Word("Olá", 0.0, 0.5, 0.9),)
HEARD = Transcript("Olá", "pt", 1.0, 2.5, (Segment("Olá", 0.0, 0.5, WORDS),), "base", 0.7)


class Counting:
    """A Transcriber that notes what it is asked, and waits or fails where the test wants it."""

    def __init__(self) -> None:
        self.signature = "base int8"
        self.asked: list[bytes] = []
        self.stopped = 0
        self.go_on = asyncio.Event()
        self.go_on.set()
        self.error: Exception | None = None
        self.report: Report | None = None

    async def prepare(self) -> None: ...

    async def transcribe(
        self, audio: bytes, language: str | None, *, vocabulary: str = "", report: Report
    ) -> Transcript:
        self.asked.append(audio)
        self.report = report
        try:
            await self.go_on.wait()
        except asyncio.CancelledError:
            self.stopped += 1
            raise
        if self.error:
            raise self.error
        return HEARD


@pytest.fixture
async def database(tmp_path: Path) -> AsyncIterator[Database]:
    async with Database(sqlite_file(tmp_path / "riacho.db")) as database:
        yield database


@pytest.fixture
def counting() -> Counting:
    return Counting()


@pytest.fixture
def remembering(database: Database, counting: Counting) -> RememberingTranscriber:
    return RememberingTranscriber(counting, TranscriptStore(database, 60))


async def unreported(percent: int, doing: str) -> None: ...


async def hear(
    transcriber: RememberingTranscriber, audio: bytes, language: str | None = None, vocabulary: str = ""
) -> Transcript:
    return await transcriber.transcribe(audio, language, vocabulary=vocabulary, report=unreported)


async def test_the_same_note_is_transcribed_once(
    remembering: RememberingTranscriber, counting: Counting, database: Database
) -> None:
    assert await hear(remembering, b"note") == HEARD
    assert await hear(remembering, b"note") == HEARD
    another_process = RememberingTranscriber(counting, TranscriptStore(database, 60))
    assert await hear(another_process, b"note") == HEARD
    assert counting.asked == [b"note"]


async def test_what_a_transcript_depends_on_tells_notes_apart(
    remembering: RememberingTranscriber, counting: Counting
) -> None:
    await hear(remembering, b"note")
    await hear(remembering, b"another")
    await hear(remembering, b"note", "en")
    await hear(remembering, b"note", vocabulary="Guaraná")
    counting.signature = "large-v3 float16"
    await hear(remembering, b"note")
    assert len(counting.asked) == 5


async def test_many_at_once_share_one_transcription(
    remembering: RememberingTranscriber, counting: Counting
) -> None:
    counting.go_on.clear()
    running = [asyncio.create_task(hear(remembering, b"note")) for _ in range(10)]
    await reached(lambda: counting.asked)
    counting.go_on.set()
    assert await asyncio.gather(*running) == [HEARD] * 10
    assert len(counting.asked) == 1


async def test_one_that_is_cancelled_takes_nothing_from_the_others(
    remembering: RememberingTranscriber, counting: Counting
) -> None:
    counting.go_on.clear()
    first, second = (asyncio.create_task(hear(remembering, b"note")) for _ in range(2))
    await reached(lambda: counting.asked)
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    counting.go_on.set()
    assert await second == HEARD
    assert counting.stopped == 0


async def test_when_all_are_cancelled_the_work_ends_and_the_next_one_begins_anew(
    remembering: RememberingTranscriber, counting: Counting
) -> None:
    counting.go_on.clear()
    running = [asyncio.create_task(hear(remembering, b"note")) for _ in range(2)]
    await reached(lambda: counting.asked)
    for task in running:
        task.cancel()
    again = asyncio.create_task(hear(remembering, b"note"))
    await reached(lambda: counting.stopped)
    counting.go_on.set()
    assert await again == HEARD
    assert (len(counting.asked), counting.stopped) == (2, 1)


async def test_a_failure_is_everybodys_and_is_not_kept(
    remembering: RememberingTranscriber, counting: Counting
) -> None:
    counting.error = RuntimeError("no model")
    failed = await asyncio.gather(*(hear(remembering, b"note") for _ in range(3)), return_exceptions=True)
    assert [str(error) for error in failed] == ["no model"] * 3
    counting.error = None
    assert await hear(remembering, b"note") == HEARD


async def test_everybody_is_told_how_far_it_is_and_who_cannot_be_told_harms_nobody(
    remembering: RememberingTranscriber, counting: Counting
) -> None:
    told: list[str] = []

    async def listening(percent: int, doing: str) -> None:
        told.append(doing)

    async def deaf(percent: int, doing: str) -> None:
        raise ConnectionError("no server")

    counting.go_on.clear()
    running = [
        asyncio.create_task(remembering.transcribe(b"note", None, report=report)) for report in (deaf, listening)
    ]
    await reached(lambda: counting.report)
    assert counting.report
    await counting.report(50, "transcribing")
    counting.go_on.set()
    assert await asyncio.gather(*running) == [HEARD] * 2
    assert told == ["transcribing"]


async def test_a_database_that_is_gone_costs_no_transcript(counting: Counting, tmp_path: Path) -> None:
    never_opened = Database(sqlite_file(tmp_path / "no" / "such" / "folder.db"))
    assert await hear(RememberingTranscriber(counting, TranscriptStore(never_opened, 60)), b"note") == HEARD


async def test_what_is_too_old_is_not_found_and_goes(database: Database) -> None:
    store, forgetful = TranscriptStore(database, 60), TranscriptStore(database, 0.001)
    await store.keep("old", HEARD)
    await asyncio.sleep(0.005)  # on the clock that is looked at
    assert await forgetful.find("old") is None
    await forgetful.keep("new", msgspec.structs.replace(HEARD, text="new"))
    assert await store.find("old") is None
    assert await store.find("new")


async def test_nothing_is_kept_where_nothing_is_to_be(database: Database) -> None:
    await TranscriptStore(database, 0).keep("key", HEARD)
    assert await TranscriptStore(database, 60).find("key") is None


async def test_two_that_keep_the_same_do_not_get_in_each_others_way(database: Database) -> None:
    store = TranscriptStore(database, 60)
    await asyncio.gather(*(store.keep("key", HEARD) for _ in range(5)))
    assert await store.find("key") == HEARD
