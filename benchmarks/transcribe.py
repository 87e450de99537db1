"""Voice notes in batches beside the same notes one by one: how much audio a second, how well, at what latency.

One by one is faster-whisper as its own documentation uses it, on the same model in the same process: the same
threads, compute type and beam. Both start from the files' bytes.
"""

import asyncio
import io
import itertools
import random
import statistics
import tempfile
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import msgspec

from api.root import Adapters, connector, speech_model, transcriber
from benchmarks.notes import FOLDER, VoiceNote, voice_notes, word_error_rate
from benchmarks.report import Report
from config import Secret, Settings, load, replaced
from pipeline import Broker, Job, Pipeline, Worker
from pipeline.embedded import EmbeddedServer
from stages.audio.model import CLIP
from stages.audio.transcribe import TranscribeHandler
from stages.audio.whisper import WhisperTranscriber
from stages.jobs import Transcribe
from stages.ports import Transcript

LATE = 600.0  # seconds after which a job is not waited for any longer
CAVEATS = [
    "The notes are synthetic voices (benchmarks/notes); those longer than a window of Whisper are left out.",
    "Arrivals are an open loop: a latency is counted from when its note was due, to the stored result.",
]


class Bench:
    """The model of these settings, heard both ways."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._speech = speech_model(settings.audio)
        self.batched = transcriber(settings.audio, self._speech)

    async def prepare(self) -> None:
        await self.batched.prepare()

    @property
    def device(self) -> str:
        return self._speech.device

    def hear_alone(self, note: VoiceNote) -> str:
        """As whoever has faster-whisper alone would."""
        segments, _ = self._speech.whisper().transcribe(
            io.BytesIO(note.audio), language=note.language, beam_size=self._settings.audio.beam_size
        )
        return " ".join(segment.text.strip() for segment in segments)

    async def hear_one_by_one(self, notes: Sequence[VoiceNote]) -> list[str]:
        return [await asyncio.to_thread(self.hear_alone, note) for note in notes]

    async def hear_together(self, notes: Sequence[VoiceNote]) -> list[str]:
        """As a worker does that has `audio.concurrency` of them in hand."""
        in_hand = asyncio.Semaphore(self._settings.audio.concurrency)

        async def hear(note: VoiceNote) -> str:
            async with in_hand:
                return (await self.hear(note)).text

        return await asyncio.gather(*map(hear, notes))

    async def hear(self, note: VoiceNote) -> Transcript:
        return await self.batched.transcribe(note.audio, note.language, report=_unreported)


async def measure(*, batch: int, rounds: int, seconds: float, model: str, device: str) -> Report:
    """All phases, one after the other, on a server and a model of our own."""
    audio = {"model": model, "device": device, "batch_size": batch, "concurrency": 2 * batch}
    with tempfile.TemporaryDirectory() as folder, EmbeddedServer(Path(folder)) as server:
        settings = replaced(
            load(environ={}),
            redis={"url": Secret(server.url)},
            data={"folder": Path(folder)},
            audio=audio | {"roots": [FOLDER]},
        )
        bench = Bench(settings)
        await bench.prepare()
        notes = [note for note in voice_notes() if note.seconds <= CLIP]
        random.Random(1).shuffle(notes)  # noqa: S311 - an order that is no language's and no length's
        figures = await _compare(bench, notes, rounds)
        figures |= await _on_an_idle_system(bench, notes)
        rate = 2 * len(notes) / figures["single_seconds"]
        figures |= await _arriving(settings, bench.batched, notes, rate, seconds)
    knobs: dict[str, float | str] = {"batch": batch, "rounds": rounds, "notes": len(notes)}
    knobs |= {"audio_seconds": sum(note.seconds for note in notes), "model": model, "device": bench.device}
    return Report("transcribe", knobs, figures, CAVEATS)


async def _compare(bench: Bench, notes: Sequence[VoiceNote], rounds: int) -> dict[str, float]:
    """Both ways in turns; medians of the rounds."""
    audio_seconds = sum(note.seconds for note in notes)
    spent: dict[str, list[float]] = {"single": [], "batched": []}
    peaks: dict[str, float] = {}
    texts: dict[str, list[str]] = {}
    for _ in range(rounds):
        for name, hear in (("single", bench.hear_one_by_one), ("batched", bench.hear_together)):
            _forget_peak()
            started = time.perf_counter()
            texts[name] = await hear(notes)
            spent[name].append(time.perf_counter() - started)
            peaks[name] = max(_peak_mb(), peaks.get(name, 0.0))
    seconds = {name: statistics.median(values) for name, values in spent.items()}
    figures = {"batched_vs_single": seconds["single"] / seconds["batched"]}
    for name in spent:
        figures[f"{name}_audio_seconds_per_second"] = audio_seconds / seconds[name]
        pairs = [(note.words, text) for note, text in zip(notes, texts[name], strict=True)]
        figures[f"{name}_word_error_rate"] = word_error_rate(pairs)
        figures[f"{name}_peak_memory_mb"] = peaks[name]
    return figures | {"single_seconds": seconds["single"], "batched_seconds": seconds["batched"]}


async def _on_an_idle_system(bench: Bench, notes: Sequence[VoiceNote]) -> dict[str, float]:
    """How long one note takes while nothing else is to do."""
    typical = sorted(notes, key=lambda note: note.seconds)[len(notes) // 4 :: 3][:6]
    single, batched = [], []
    for note in typical:
        started = time.perf_counter()
        await asyncio.to_thread(bench.hear_alone, note)
        between = time.perf_counter()
        await bench.hear(note)
        single.append(between - started)
        batched.append(time.perf_counter() - between)
    return {
        "idle_single_ms": statistics.median(single) * 1000,
        "idle_batched_ms": statistics.median(batched) * 1000,
    }


async def _arriving(
    settings: Settings, hearing: WhisperTranscriber, notes: Sequence[VoiceNote], rate: float, seconds: float
) -> dict[str, float]:
    """Notes come at `rate` a second through the whole stage: stream, worker, model, stored result."""
    async with _working(settings, hearing) as broker:
        loop = asyncio.get_running_loop()
        started, count = loop.time(), int(rate * seconds)

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


def _forget_peak() -> None:
    with suppress(OSError):  # where it may not be, the peak is the process's so far
        Path("/proc/self/clear_refs").write_text("5")


def _peak_mb() -> float:
    """Of this process's resident memory (Linux)."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1024
