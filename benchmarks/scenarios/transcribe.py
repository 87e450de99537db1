"""Voice notes in batches beside the same notes one by one: how much audio a second, how well, at what latency.

One by one is faster-whisper as its own documentation uses it, in a process of its own on every core: the same
weights, compute type and beam. Both start from the files' bytes.
"""

import asyncio
import functools
import io
import itertools
import multiprocessing
import os
import random
import statistics
import tempfile
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated, Any, Self

import msgspec
import typer

from api.adapters import Adapters, speech_model, transcriber
from api.root import connector
from benchmarks.notes import FOLDER, VoiceNote, voice_notes, word_error_rate
from benchmarks.parts.contest import Rounds
from benchmarks.parts.settings import of_a_run
from benchmarks.parts.usage import MILLION, peak_of
from benchmarks.peers.environments import must_be_linux
from benchmarks.reports.report import Report
from config import Settings, replaced
from config.settings import Audio
from pipeline import Broker, Job, Pipeline, Worker
from pipeline.embedded import EmbeddedServer
from stages.audio.model import CLIP
from stages.audio.transcribe import TranscribeHandler
from stages.audio.weights import locate
from stages.audio.whisper import WhisperTranscriber
from stages.jobs import Transcribe

QUICK = {"rounds": 1, "seconds": 10}
LATE = 600.0  # seconds after which a job is not waited for any longer
CAVEATS = [
    "The notes are synthetic voices (benchmarks/notes); those longer than a window of Whisper are left out.",
    "Arrivals are an open loop: a latency is counted from when its note was due, to the stored result.",
]


class OneByOne:
    """faster-whisper in a process of its own, on every core. A context manager."""

    def __init__(self, like: "Together", settings: Audio) -> None:
        model = like.model.whisper().model
        folder = locate(settings.model, settings.cache)
        made_of = folder, model.device, model.compute_type, settings.beam_size
        self._pool = ProcessPoolExecutor(1, multiprocessing.get_context("spawn"), _load, made_of)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown()

    async def hear_all(self, notes: Sequence[VoiceNote]) -> list[str]:
        return [await self.hear(note) for note in notes]

    async def hear(self, note: VoiceNote) -> str:
        return await asyncio.get_running_loop().run_in_executor(self._pool, _hear, note)

    def peak_mb(self) -> float:
        return peak_of(self._pool.submit(os.getpid).result()) / MILLION


_transcribe: Any = None  # in the process of OneByOne


def _load(folder: str, device: str, compute_type: str, beam_size: int) -> None:
    from faster_whisper import WhisperModel  # noqa: PLC0415 - this process alone needs it

    global _transcribe  # noqa: PLW0603
    model = WhisperModel(folder, device=device, compute_type=compute_type, cpu_threads=os.cpu_count() or 1)
    _transcribe = functools.partial(model.transcribe, beam_size=beam_size)


def _hear(note: VoiceNote) -> str:
    segments, _ = _transcribe(io.BytesIO(note.audio), language=note.language)
    return " ".join(segment.text.strip() for segment in segments)


class Together:
    """Riacho's transcriber, as a worker has it."""

    def __init__(self, settings: Audio) -> None:
        self.model = speech_model(settings)
        self._in_hand = asyncio.Semaphore(settings.concurrency)
        self.transcriber = transcriber(settings, self.model)

    async def prepare(self) -> None:
        await self.transcriber.prepare()

    @property
    def device(self) -> str:
        return self.model.device

    async def hear_all(self, notes: Sequence[VoiceNote]) -> list[str]:
        return await asyncio.gather(*map(self.hear, notes))

    async def hear(self, note: VoiceNote) -> str:
        async with self._in_hand:
            heard = await self.transcriber.transcribe(note.audio, note.language, report=_unreported)
            return heard.text

    def peak_mb(self) -> float:
        return peak_of(os.getpid()) / MILLION


async def measure(
    *,
    batch: Annotated[int, typer.Option(help="Notes in a model call.", min=1)] = 8,
    rounds: Annotated[int, typer.Option(help="Rounds of which the median counts.", min=1)] = 3,
    seconds: Annotated[
        float, typer.Option(help="How long notes arrive, at twice what one by one can do.", min=1)
    ] = 60,
    model: Annotated[str, typer.Option(help="A Whisper model's name, or its folder.")] = "base",
    device: Annotated[str, typer.Option(help="cpu, cuda or auto.")] = "auto",
) -> Report:
    """Voice notes in batches beside one by one: audio seconds a second, word errors, memory, latency."""
    must_be_linux()  # which alone knows the most memory that a process had
    audio = {"model": model, "device": device, "batch_size": batch, "concurrency": 4 * batch}
    with tempfile.TemporaryDirectory() as folder, EmbeddedServer(Path(folder)) as server:
        settings = replaced(of_a_run(Path(folder), server.url), audio=audio | {"roots": [FOLDER]})
        together = Together(settings.audio)
        await together.prepare()
        notes = [note for note in voice_notes() if note.seconds <= CLIP]
        random.Random(1).shuffle(notes)  # noqa: S311 - an order that is no language's and no length's
        with OneByOne(together, settings.audio) as single:
            await single.hear(notes[0])  # loads the model
            found = await _compare(single, together, notes, rounds)
            figures = {"single_peak_memory_mb": single.peak_mb(), "batched_peak_memory_mb": together.peak_mb()}
            figures |= await _on_an_idle_system(single, together, notes)
        rate = 2 * len(notes) / statistics.median(found["single_seconds"])
        figures |= await _arriving(settings, together.transcriber, notes, rate, seconds)
    knobs: dict[str, float | str] = {"batch": batch, "rounds": rounds, "seconds": seconds, "notes": len(notes)}
    knobs |= {"audio_seconds": sum(note.seconds for note in notes), "model": model, "device": together.device}
    return Report.of("transcribe", knobs, found, CAVEATS, figures)


async def _compare(single: OneByOne, together: Together, notes: Sequence[VoiceNote], rounds: int) -> Rounds:
    """Both in turns."""
    entrants: dict[str, OneByOne | Together] = {"single": single, "batched": together}
    found: Rounds = defaultdict(list)
    for _ in range(rounds):
        for name, entrant in entrants.items():
            started = time.perf_counter()
            texts = await entrant.hear_all(notes)
            seconds = time.perf_counter() - started
            found[f"{name}_seconds"].append(seconds)
            found[f"{name}_audio_seconds_per_second"].append(sum(note.seconds for note in notes) / seconds)
            pairs = [(note.words, text) for note, text in zip(notes, texts, strict=True)]
            found[f"{name}_word_error_rate"].append(word_error_rate(pairs))
        found["batched_vs_single"].append(found["single_seconds"][-1] / found["batched_seconds"][-1])
    return found


async def _on_an_idle_system(single: OneByOne, together: Together, notes: Sequence[VoiceNote]) -> dict[str, float]:
    """How long one note takes while nothing else is to do; medians over notes of middling length."""
    spent: dict[str, list[float]] = {"idle_single_ms": [], "idle_batched_ms": []}
    for note in sorted(notes, key=lambda note: note.seconds)[len(notes) // 3 : len(notes) * 2 // 3]:
        for name, hear in zip(spent, (single.hear, together.hear), strict=True):
            started = time.perf_counter()
            await hear(note)
            spent[name].append((time.perf_counter() - started) * 1000)
    return {name: statistics.median(values) for name, values in spent.items()}


async def _arriving(
    settings: Settings, hearing: WhisperTranscriber, notes: Sequence[VoiceNote], rate: float, seconds: float
) -> dict[str, float]:
    """Notes come at `rate` a second through the whole stage: stream, worker, model, stored result."""
    async with _working(settings, hearing) as broker:
        loop = asyncio.get_running_loop()
        started, count = loop.time(), max(3, int(rate * seconds))

        async def follow(note: VoiceNote, due: float) -> float:
            await asyncio.sleep(due - loop.time())
            payload = Transcribe(source=str(note.path), language=note.language)
            job = await broker.enqueue(Job(stage="transcribe", payload=payload))
            view = await broker.result(job, timeout=LATE)
            assert view.state == "completed", view  # noqa: S101 - else there is nothing to measure
            return loop.time() - due

        coming = zip(itertools.cycle(notes), (started + number / rate for number in range(count)), strict=False)
        latencies = await asyncio.gather(*(follow(note, due) for note, due in coming))
        over = loop.time() - started - seconds
    third = len(latencies) // 3
    return {
        "arriving_notes_per_second": rate,
        "arriving_p50_ms": statistics.median(latencies) * 1000,
        "arriving_p95_ms": statistics.quantiles(latencies, n=20)[18] * 1000,
        "arriving_first_third_p50_ms": statistics.median(latencies[:third]) * 1000,
        "arriving_last_third_p50_ms": statistics.median(latencies[-third:]) * 1000,
        "seconds_to_drain_after_the_last": max(0.0, over),
    }


@asynccontextmanager
async def _working(settings: Settings, hearing: WhisperTranscriber) -> AsyncIterator[Broker]:
    """A worker of the transcribe stage in this process. Nothing is remembered: every note is transcribed."""
    adapters = Adapters(settings)
    stage = adapters.pipeline().stage("transcribe")
    handler = TranscribeHandler(adapters.source, hearing, {})
    pipeline = Pipeline([msgspec.structs.replace(stage, handler=handler, prepare=None)])
    connect, stop = connector(settings, pipeline), asyncio.Event()
    async with adapters.opened(), connect() as broker:
        running = asyncio.create_task(Worker(connect, list(pipeline)).run(stop))
        try:
            yield broker
        finally:
            stop.set()
            await running


async def _unreported(percent: int, doing: str) -> None:
    """Nobody wants to know."""
