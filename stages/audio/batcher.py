"""Notes that wait for the model at the same time are heard together."""

import asyncio
import logging
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import chain, islice, zip_longest
from typing import Any, Protocol

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
    """A note in line for the model: its clips, which of them are still to be heard, and which of these alone.

    `language` is None until it is detected. The model may take `allowed` seconds for the note, counted from the
    first call it is in; `took` says how long it did.
    """

    def __init__(self, clips: Sequence[Clip], language: str | None, vocabulary: str, allowed: float) -> None:
        self.clips = clips
        self.language, self.probability = language, 1.0
        self.vocabulary = vocabulary
        self.allowed, self.took = allowed, 0.0
        self.started: float | None = None  # on the loop's clock
        self.left = list(range(len(clips)))
        self.alone: set[int] = set()
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
        return self.error is not None or not self.left

    def take(self, index: int, segments: tuple[Segment, ...]) -> None:
        """A clip is heard."""
        self._heard[index] = segments
        self.left.remove(index)

    def fitting(self, first: "Note") -> list[int]:
        """Which clips may be in a call with the next clip of the note that is first in line."""
        if (self.language, self.vocabulary) != (first.language, first.vocabulary):
            return []
        window = first.clips[first.left[0]].window
        together = [index for index in self.left if index not in self.alone]
        return [index for index in together if self.clips[index].window == window]


Pick = tuple[Note, int]


class Batcher:
    """Hears up to `size` clips a model call.

    While a call runs, notes gather for the next one: a busy model always has full calls, and nobody waits for
    others to come, save `wait` seconds when the model was at rest. A note that is not through after a call goes to
    the end of the line, so that a long one does not hold up short ones. A clip that comes out doubtful is heard
    again alone, and so are all clips of a call that fails: no note fails for its neighbours.
    """

    def __init__(self, model: Model, *, size: int, wait: float) -> None:
        self._model = model
        self._size, self._wait = size, wait
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="whisper")
        self._line: list[Note] = []
        self._full = asyncio.Event()
        self._working: asyncio.Task[None] | None = None

    async def hear(self, note: Note, report: Report) -> None:
        """Have all clips of a note heard, saying how far it has come. Raises what keeps it from being heard."""
        self._line.append(note)
        if len(self._line) >= self._size:
            self._full.set()
        if self._working is None:
            self._working = asyncio.create_task(self._work())
        try:
            while not note.ended:
                await note.changed.wait()
                note.changed.clear()
                await report(note.percent, "transcribing")
        finally:
            note.stop.set()
            self._leave(note)
        if note.error:
            raise note.error

    async def _work(self) -> None:
        """Call the model until nobody is in line."""
        try:
            await self._gather()
            while self._line:
                picks = chosen(self._line, self._size)
                self._begin(picks)
                await self._call(picks)
                self._end(picks)
        finally:
            self._working = None

    async def _gather(self) -> None:
        self._full.clear()
        if len(self._line) < self._size:
            await asyncio.wait([asyncio.ensure_future(self._full.wait())], timeout=self._wait)

    def _begin(self, picks: Sequence[Pick]) -> None:
        now = asyncio.get_running_loop().time()
        for note, _ in picks:
            if note.started is None:
                note.started = now
                note.changed.set()

    async def _call(self, picks: Sequence[Pick]) -> None:
        """One call of the model for clips that go together."""
        note, index = picks[0]
        clips = [of.clips[at] for of, at in picks]
        try:
            if note.language is None:
                for (of, _), found in zip(picks, await self._blocking(self._model.detect, clips), strict=True):
                    of.language, of.probability = found
            elif index in note.alone:
                asked = clips[0], note.language, note.vocabulary, note.stop
                note.take(index, await self._blocking(self._model.hear_alone, *asked))
            else:
                heard = await self._blocking(self._model.hear, clips, note.language, note.vocabulary)
                for (of, at), one in zip(picks, heard, strict=True):
                    of.alone.add(at) if one.doubtful else of.take(at, one.segments)
        except Exception as error:  # noqa: BLE001 - whatever it is, it may be one clip's fault
            self._failed(picks, error)

    async def _blocking(self, function: Callable[..., Any], *args: Any) -> Any:
        return await asyncio.get_running_loop().run_in_executor(self._thread, function, *args)

    def _failed(self, picks: Sequence[Pick], error: Exception) -> None:
        for note, index in picks:
            if index in note.alone:
                note.error = error
            note.alone.add(index)
        log.warning("a call of the model for %d clips failed: %s", len(picks), error)

    def _end(self, picks: Sequence[Pick]) -> None:
        now = asyncio.get_running_loop().time()
        for note in dict.fromkeys(note for note, _ in picks):
            note.took = now - (note.started or now)
            if note.took > note.allowed and not note.ended:
                note.error = TimeoutError(f"the model took longer than {note.allowed:g} s for this note")
            note.changed.set()
            if self._leave(note) and not note.ended:
                self._line.append(note)

    def _leave(self, note: Note) -> bool:
        """Out of the line; False where it is not in it any more: nobody waits for it."""
        if note not in self._line:
            return False
        self._line.remove(note)
        return True


def chosen(line: Sequence[Note], size: int) -> list[Pick]:
    """The clips of the next call: the first note's next one, one of each other note that fits beside it, and where
    there is room the second ones, and so on."""
    first = line[0]
    if first.left[0] in first.alone:
        return [(first, first.left[0])]
    if first.language is None:
        return [(note, 0) for note in line if note.language is None and 0 not in note.alone][:size]
    fitting = [[(note, index) for index in note.fitting(first)] for note in line]
    return list(islice(filter(None, chain.from_iterable(zip_longest(*fitting))), size))
