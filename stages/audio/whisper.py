"""The Transcriber on faster-whisper: decode, cut into clips, wait for the model, put the words together."""

import asyncio
import functools
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from pipeline import metrics
from stages.audio.batcher import Batcher, Note
from stages.audio.decode import RATE, decode
from stages.audio.model import Clip, SpeechModel
from stages.ports import Report, Transcript

T = TypeVar("T")

PREPARING = 2  # notes being decoded at a time: the model keeps the cores busy
# Decoded audio and its features take 0.1 MB a second.
MOST_DECODED = 3600.0  # seconds at a time; those that are being decoded may come on top
# Upper bounds of buckets of the real-time factor.
FACTORS = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)


class Figures:
    """What is told of a model's work. The real-time factor is a call's, for all clips that share it: what
    counts is the machine's work, not how long a note waited for others."""

    def __init__(self, model: SpeechModel) -> None:
        self._model = model
        meter = metrics.meter()
        self._factor = meter.create_histogram(
            "riacho.transcription.real_time_factor",
            unit="1",
            description="Seconds that a call of the model took for each second of audio that it heard.",
            explicit_bucket_boundaries_advisory=FACTORS,
        )
        self._audio = meter.create_counter(
            "riacho.transcription.audio", unit="s", description="Seconds of voice notes that were transcribed."
        )

    def called(self, took: float, heard: float) -> None:
        """A call of the model took so many seconds, for so many of audio."""
        self._factor.record(took / heard, self._about)

    def heard(self, seconds: float) -> None:
        """A note of so many seconds is transcribed."""
        self._audio.add(seconds, self._about)

    @functools.cached_property
    def _about(self) -> dict[str, str]:
        return {"model": self._model.name, "device": self._model.device}


class WhisperTranscriber:
    """Many notes at a time, up to `batch_size` of them in a call of the model.

    `language` is that of notes whose job names none; "auto" detects it. `duration_limit` is in seconds; the model
    may take `timeout` seconds for a note, and `timeout_factor` seconds more for each of its seconds.
    """

    def __init__(
        self,
        model: SpeechModel,
        *,
        language: str,
        batch_size: int,
        batch_wait: float,
        timeout: float,
        timeout_factor: float,
        duration_limit: float,
    ) -> None:
        self._model = model
        self._language = language
        self._figures = Figures(model)
        self._batcher = Batcher(
            model, size=batch_size, wait=batch_wait, calls=model.calls, measure=self._figures.called
        )
        self._timeout, self._timeout_factor = timeout, timeout_factor
        self._duration_limit = duration_limit
        self._preparing = asyncio.Semaphore(PREPARING)
        self._decoded, self._room = 0.0, asyncio.Event()
        self._room.set()
        self._threads = ThreadPoolExecutor(PREPARING, thread_name_prefix="decode")

    @property
    def signature(self) -> str:
        """See the port."""
        return f"{self._model.signature} {self._language}"

    async def prepare(self) -> None:
        """Load the model."""
        await self._in_thread(lambda _: self._model.prepare())

    async def transcribe(
        self, audio: bytes, language: str | None, *, vocabulary: str = "", report: Report
    ) -> Transcript:
        """See the port. A call that is cancelled while it decodes returns when its thread does; one that waits for
        the model returns at once, and its clips are not heard."""
        wanted = language or self._language
        await report(0, "decoding")
        async with self._preparing:
            await self._room.wait()
            clips, duration = await self._in_thread(lambda stop: self._clips(audio, wanted, stop))
            self._hold(duration)
        allowed = self._timeout + self._timeout_factor * duration
        note = Note(clips, None if wanted == "auto" else wanted, vocabulary, allowed)
        try:
            if clips:
                await report(0, "queued")
                await self._batcher.hear(note, report)
        finally:
            self._hold(-duration)
        self._figures.heard(duration)
        return Transcript(
            text=" ".join(filter(None, (segment.text for segment in note.segments))),
            language=note.language or "",
            probability=round(note.probability, 3) if note.language else 0.0,
            duration=round(duration, 2),
            segments=note.segments,
            model=self._model.name,
            seconds=round(note.took, 2),
        )

    def _hold(self, seconds: float) -> None:
        self._decoded += seconds
        if self._decoded < MOST_DECODED:
            self._room.set()
        else:
            self._room.clear()

    def _clips(self, audio: bytes, language: str, stop: threading.Event) -> tuple[list[Clip], float]:
        if language != "auto":
            self._model.check_language(language)
        samples = decode(audio, self._duration_limit, stop)
        return self._model.clips(samples), len(samples) / RATE

    async def _in_thread(self, work: Callable[[threading.Event], T]) -> T:
        """Run in a thread; when cancelled, ask it to stop and wait: its slot is in use until it returns."""
        stop = threading.Event()
        running = asyncio.get_running_loop().run_in_executor(self._threads, work, stop)
        cancelled: asyncio.CancelledError | None = None
        while not running.done():
            try:
                await asyncio.wait([running])  # cancelled, this leaves the thread alone
            except asyncio.CancelledError as error:
                stop.set()
                cancelled = error
        if cancelled:
            running.exception()  # looked at, so that asyncio does not report it
            raise cancelled
        return running.result()
