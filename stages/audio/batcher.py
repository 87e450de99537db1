"""Notes that wait for the model at the same time are heard together."""

import asyncio
import logging
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from contextvars import Context
from itertools import chain, zip_longest
from typing import Any, Protocol, cast

from stages.audio.model import Clip, Heard
from stages.ports import Report, Segment

log = logging.getLogger(__name__)


class Model(Protocol):
    """What is needed of SpeechModel; its calls block."""

    def detect(self, clips: Sequence[Clip]) -> list[tuple[str, float]]: ...

    def hear(self, clips: Sequence[Clip], language: str, vocabulary: str) -> list[Heard]: ...

    def hear_alone(
        self, clip: Clip, language: str, vocabulary: str, stop: threading.Event
    ) -> tuple[Segment, ...]: ...


class Note:
    """A note in line for the model: its clips, those that still wait for a call, and those to be heard alone.

    `language` is None until it is detected. `took` is how many seconds the calls with this note took; `allowed`,
    how many they may.
    """

    def __init__(self, clips: Sequence[Clip], language: str | None, vocabulary: str, allowed: float) -> None:
        self.clips = clips
        self.language, self.probability = language, 1.0
        self.vocabulary = vocabulary
        self.allowed, self.took = allowed, 0.0
        self.waiting = list(range(len(clips)))
        self.alone: set[int] = set()
        self.detecting = False
        self.error: Exception | None = None
        self.changed = asyncio.Event()
        self.stop = threading.Event()
        self._heard: dict[int, tuple[Segment, ...]] = {}

    @property
    def segments(self) -> tuple[Segment, ...]:
        return tuple(chain.from_iterable(self._heard[index] for index in sorted(self._heard)))

    @property
    def percent(self) -> int:
        return len(self._heard) * 100 // len(self.clips)

    @property
    def ended(self) -> bool:
        return self.error is not None or len(self._heard) == len(self.clips)

    @property
    def ready(self) -> bool:
        """A call may take some of it."""
        return bool(self.waiting) and not self.detecting and self.error is None

    def take(self, index: int, heard: Heard) -> None:
        """What a call heard in a clip; where that is doubtful, the clip is to be heard alone."""
        if heard.doubtful:
            self.again(index)
        else:
            self._heard[index] = heard.segments

    def again(self, index: int) -> None:
        """Have a clip heard alone."""
        self.alone.add(index)
        self.waiting.insert(0, index)


Pick = tuple[Note, int]
Measure = Callable[[float, float], None]  # told of a call: the seconds it took, and those of what it heard


class Batcher:
    """Hears up to `size` clips a model call, in `calls` calls at a time.

    While calls run, notes gather for the next one: a busy model always has full calls, and nobody waits for others
    to come, save `wait` seconds when there was no call to wait for. A note goes to the end of the line whenever a
    call takes of it, so that a long one does not hold up short ones. A clip that comes out doubtful is heard again
    alone, and so are all clips of a call that fails: no note fails for its neighbours.
    """

    def __init__(
        self, model: Model, *, size: int, wait: float, calls: int = 1, measure: Measure = lambda *_: None
    ) -> None:
        self._model, self._measure = model, measure
        self._size, self._wait, self._calls = size, wait, calls
        self._threads = ThreadPoolExecutor(calls, thread_name_prefix="whisper")
        self._line: list[Note] = []
        self._full = asyncio.Event()
        self._callers: set[asyncio.Task[None]] = set()

    async def hear(self, note: Note, report: Report) -> None:
        """Have all clips of a note heard, saying how far it has come. Raises what keeps it from being heard."""
        self._line.append(note)
        if self._clips_waiting() >= self._size:
            self._full.set()
        self._start_caller()
        try:
            while not note.ended:
                await note.changed.wait()
                note.changed.clear()
                await report(note.percent, "transcribing")
        finally:
            note.stop.set()
            self._line.remove(note)
        if note.error:
            raise note.error

    def _ready(self) -> list[Note]:
        return [note for note in self._line if note.ready]

    def _clips_waiting(self) -> int:
        return sum(len(note.waiting) for note in self._ready())

    def _start_caller(self) -> None:
        """One more, where there may be and somebody is ready."""
        if len(self._callers) < self._calls and self._ready():
            # With no context: it works for many jobs, and is not to speak for the one that happened to start it.
            self._callers.add(asyncio.create_task(self._call_on(), context=Context()))

    async def _call_on(self) -> None:
        """Call the model for as long as somebody is ready."""
        try:
            if len(self._callers) == 1:
                await self._gather()
            while ready := self._ready():
                picks = chosen(ready, self._size)
                self._begin(picks)
                self._start_caller()  # for those who are left
                started = time.monotonic()
                heard = await self._call(picks)
                took = time.monotonic() - started
                if heard:
                    self._measure(took, heard)
                self._end(picks, took)
        finally:
            # Here, and not when the task is done: who comes in between would wait for a caller that has gone.
            self._callers.remove(cast("asyncio.Task[None]", asyncio.current_task()))

    async def _gather(self) -> None:
        """The model was at rest: whoever comes within a moment goes along."""
        self._full.clear()
        if self._clips_waiting() < self._size:
            with suppress(TimeoutError):
                await asyncio.wait_for(self._full.wait(), self._wait)

    def _begin(self, picks: Sequence[Pick]) -> None:
        for note, index in picks:
            note.waiting.remove(index)
            note.detecting = note.language is None
            note.changed.set()
        for note in _notes(picks):
            self._line.remove(note)
            self._line.append(note)

    async def _call(self, picks: Sequence[Pick]) -> float:
        """One call of the model for clips that go together; how many seconds it heard, 0 where it only detected
        their language, or failed."""
        note, index = picks[0]
        clips = [of.clips[at] for of, at in picks]
        try:
            if note.language is None:
                languages = await self._blocking(self._model.detect, clips)
                for (of, at), found in zip(picks, languages, strict=True):
                    of.language, of.probability = found
                    of.waiting.insert(0, at)
                return 0.0
            if index in note.alone:
                asked = clips[0], note.language, note.vocabulary, note.stop
                note.take(index, Heard(await self._blocking(self._model.hear_alone, *asked)))
            else:
                heard = await self._blocking(self._model.hear, clips, note.language, note.vocabulary)
                for (of, at), one in zip(picks, heard, strict=True):
                    of.take(at, one)
        except Exception as error:  # noqa: BLE001 - whatever it is, it may be one clip's fault
            self._failed(picks, error)
            return 0.0
        return sum(clip.end - clip.start for clip in clips)

    async def _blocking(self, function: Callable[..., Any], *args: Any) -> Any:
        return await asyncio.get_running_loop().run_in_executor(self._threads, function, *args)

    def _failed(self, picks: Sequence[Pick], error: Exception) -> None:
        log.warning("a call of the model for %d clips failed: %s", len(picks), error)
        for note, index in picks:
            if index in note.alone:
                note.error = error
            else:
                note.again(index)

    def _end(self, picks: Sequence[Pick], took: float) -> None:
        for note in _notes(picks):
            note.detecting = False
            note.took += took
            if note.took > note.allowed and not note.ended:
                note.error = TimeoutError(f"the model took longer than {note.allowed:g} s for this note")
            note.changed.set()


def chosen(ready: Sequence[Note], size: int) -> list[Pick]:
    """The clips of the next call: the first note's next one and, as a call takes for each what it takes for the
    longest, those of all notes that come closest to its length."""
    first = ready[0]
    index = first.waiting[0]
    if index in first.alone:
        return [(first, index)]
    if first.language is None:
        return [(note, 0) for note in ready if note.language is None and 0 not in note.alone][:size]
    clip = first.clips[index]
    beside = [
        [(note, at) for at in note.waiting if at not in note.alone and note.clips[at].goes_with(clip)]
        for note in ready
        if (note.language, note.vocabulary) == (first.language, first.vocabulary)
    ]
    # One of each note before the second of any, where they are as close.
    in_turn = filter(None, chain.from_iterable(zip_longest(*beside)))
    return sorted(in_turn, key=lambda pick: abs(pick[0].clips[pick[1]].frames - clip.frames))[:size]


def _notes(picks: Sequence[Pick]) -> Iterable[Note]:
    return dict.fromkeys(note for note, _ in picks)
