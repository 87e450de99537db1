"""Which notes share a call of the model, in what order, and what becomes of a note whose call does not go well."""

import asyncio
import threading
import time
from collections.abc import Callable, Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stages.audio.batcher import Batcher, Note, chosen
from stages.audio.decode import RATE
from stages.audio.model import Clip, Heard, _judged, packed
from stages.ports import Segment
from tests.support import reached

pytestmark = pytest.mark.unit


def clip(name: str, seconds: float) -> Clip:
    """A clip that can be told from others by what is heard in it: its start."""
    features = np.zeros((1, int(seconds * 100)), np.float32)
    return Clip(float(sum(name.encode())), np.zeros(int(seconds * RATE), np.float32), features)


def note(
    name: str, *seconds: float, language: str | None = "pt", vocabulary: str = "", allowed: float = 60
) -> Note:
    return Note([clip(f"{name}{n}", length) for n, length in enumerate(seconds)], language, vocabulary, allowed)


def said(of: Clip) -> tuple[Segment, ...]:
    return (Segment(str(of.start), of.start, of.end),)


def all_said(of: Note) -> tuple[Segment, ...]:
    return tuple(segment for one in of.clips for segment in said(one))


class Model:
    """Hears each clip's start; calls wait for the test where it holds them, and fail or doubt as it says."""

    def __init__(self) -> None:
        self.calls: list[list[float]] = []
        self.alone: list[float] = []
        self.detected: list[list[float]] = []
        self.go_on = threading.Event()
        self.go_on.set()
        self.at_once = self.most_at_once = 0
        self.takes = 0.0  # seconds
        self.fails: Callable[[Clip], bool] = lambda _: False
        self.doubts: Callable[[Clip], bool] = lambda _: False
        self._lock = threading.Lock()

    def _work(self, clips: Sequence[Clip]) -> None:
        with self._lock:
            self.at_once += 1
            self.most_at_once = max(self.most_at_once, self.at_once)
        self.go_on.wait(10)
        time.sleep(self.takes)
        with self._lock:
            self.at_once -= 1
        if any(map(self.fails, clips)):
            raise RuntimeError("the model does not like this")

    def detect(self, clips: Sequence[Clip]) -> list[tuple[str, float]]:
        self.detected.append([one.start for one in clips])
        self._work(clips)
        return [("en", 0.9)] * len(clips)

    def hear(self, clips: Sequence[Clip], language: str, vocabulary: str) -> list[Heard]:
        self.calls.append([one.start for one in clips])
        self._work(clips)
        return [Heard(said(one), self.doubts(one)) for one in clips]

    def hear_alone(self, one: Clip, language: str, vocabulary: str, stop: threading.Event) -> tuple[Segment, ...]:
        self.alone.append(one.start)
        self._work([one])
        return said(one)


async def unreported(percent: int, doing: str) -> None: ...


async def hear_all(batcher: Batcher, notes: Sequence[Note]) -> list[BaseException | None]:
    async with asyncio.timeout(20):
        return await asyncio.gather(*(batcher.hear(one, unreported) for one in notes), return_exceptions=True)


# ── what goes into a call ────────────────────────────────────────────────────────────────────────


def test_a_call_has_the_notes_closest_in_length_to_the_first_in_line() -> None:
    notes = [note("a", 6), note("b", 20), note("c", 3), note("d", 6), note("e", 11), note("f", 7)]
    assert chosen(notes, 3) == [(notes[0], 0), (notes[3], 0), (notes[5], 0)]
    assert {one for one, _ in chosen(notes, 8)} == {notes[n] for n in (0, 2, 3, 4, 5)}, "20 s is too long for 6 s"


def test_other_languages_and_vocabularies_stay_out() -> None:
    notes = [note("a", 5), note("b", 5, language="en"), note("c", 5, vocabulary="Guaraná"), note("d", 5)]
    assert chosen(notes, 8) == [(notes[0], 0), (notes[3], 0)]


def test_every_note_has_one_clip_in_a_call_before_any_has_two() -> None:
    notes = [note("long", 30, 30, 30, 30), note("other", 30, 30)]
    assert chosen(notes, 3) == [(notes[0], 0), (notes[1], 0), (notes[0], 1)]


def test_languages_are_detected_together_and_first() -> None:
    notes = [note("a", 5, language=None), note("b", 5), note("c", 25, language=None)]
    assert chosen(notes, 8) == [(notes[0], 0), (notes[2], 0)]


def test_a_clip_that_is_to_be_heard_alone_is() -> None:
    notes = [note("a", 5, 5), note("b", 5)]
    notes[0].waiting.remove(0)
    notes[0].again(0)
    assert chosen(notes, 8) == [(notes[0], 0)]
    assert chosen(notes[::-1], 8) == [(notes[1], 0), (notes[0], 1)]


@given(st.lists(st.tuples(st.floats(0, 3), st.floats(0.1, 29.9)), max_size=30))
def test_packed_clips_hold_all_speech_in_order_and_none_is_too_long(parts: list[tuple[float, float]]) -> None:
    spans, at = [], 0
    for pause, length in parts:
        start = at + int(pause * RATE)
        at = start + int(length * RATE)
        spans.append((start, at))
    clips = packed(spans)
    assert all(end - start <= 30 * RATE for start, end in clips)
    assert all(any(start <= begin and end <= stop for start, stop in clips) for begin, end in spans)
    assert clips == sorted(clips)


@pytest.mark.parametrize(
    ("text", "end", "logprob", "silence", "whole", "doubtful"),
    [
        ("Duas pizzas, não, obrigado.", 6.0, -0.3, 0.1, True, False),
        ("Duas pizzas,", 6.0, -0.3, 0.1, False, True),  # its end got lost
        ("Duas pizzas,", 3.5, -0.3, 0.1, True, True),  # 2.5 s without a word
        ("Duas pizzas.", 6.0, -0.8, 0.1, True, True),  # unsure
        ("la la la la " * 20, 6.0, -0.3, 0.1, True, True),  # repeats itself
        ("", 6.0, -0.3, 0.1, True, True),  # speech, and not a word
        ("", 6.0, -0.3, 0.9, True, False),  # silence
        ("Obrigado por assistir.", 6.0, -1.2, 0.9, True, False),  # what is guessed into silence is left out
    ],
)
def test_what_comes_out_doubtful_is_seen(
    text: str, end: float, logprob: float, silence: float, whole: bool, doubtful: bool
) -> None:
    found = [{"text": text, "start": 0.0, "end": end, "avg_logprob": logprob, "no_speech_prob": silence}]
    heard = _judged(found, Clip(0.0, np.zeros(6 * RATE, np.float32), np.zeros((1, 600), np.float32)), whole)
    assert heard.doubtful == doubtful
    assert [segment.text for segment in heard.segments] == ([] if silence > 0.5 or not text else [text.strip()])


# ── calls ────────────────────────────────────────────────────────────────────────────────────────


async def test_notes_that_come_while_a_call_runs_share_the_next_one() -> None:
    model = Model()
    model.go_on.clear()
    batcher = Batcher(model, size=8, wait=0)
    first = asyncio.create_task(batcher.hear(note("first", 5), unreported))
    await reached(lambda: model.calls)
    others = [note(name, 5) for name in "abcde"]
    running = asyncio.create_task(hear_all(batcher, others))
    await asyncio.sleep(0)
    model.go_on.set()
    await first
    assert await running == [None] * 5
    assert [len(call) for call in model.calls] == [1, 5]
    assert [one.segments for one in others] == [all_said(one) for one in others]


@pytest.mark.parametrize("size", [1, 2])
async def test_a_full_call_does_not_wait_for_more(size: int) -> None:
    batcher = Batcher(Model(), size=size, wait=3600)
    assert await hear_all(batcher, [note("a", 5), note("b", 5)][:size]) == [None] * size


async def test_a_call_that_becomes_full_while_it_waits_for_more_is_made() -> None:
    batcher = Batcher(Model(), size=2, wait=3600)
    first = asyncio.create_task(batcher.hear(note("a", 5), unreported))
    await reached(lambda: batcher._callers)
    await asyncio.sleep(0.01)
    assert await hear_all(batcher, [note("b", 5)]) == [None]
    await first


async def test_who_comes_just_when_the_last_call_is_over_is_heard() -> None:
    """Some of these come between the caller's last look and its end."""
    batcher = Batcher(Model(), size=1, wait=0)
    for _ in range(1000):
        await hear_all(batcher, [note("a", 1), note("b", 1)])
        for _ in range(3):
            later = asyncio.create_task(batcher.hear(note("c", 1), unreported))
            await batcher.hear(note("d", 1), unreported)
            await asyncio.wait_for(later, 10)


@pytest.mark.parametrize("language", ["pt", None])
async def test_one_long_note_may_have_every_call(language: str | None) -> None:
    model = Model()
    model.takes = 0.05
    batcher = Batcher(model, size=2, wait=0, calls=3)
    assert await hear_all(batcher, [note("long", *[30] * 12, language=language)]) == [None]
    assert model.most_at_once == 3


async def test_there_are_as_many_calls_at_a_time_as_may_be() -> None:
    model = Model()
    model.go_on.clear()
    batcher = Batcher(model, size=1, wait=0, calls=2)
    running = asyncio.create_task(hear_all(batcher, [note(name, 5) for name in "abcd"]))
    await reached(lambda: model.at_once == 2)
    model.go_on.set()
    assert await running == [None] * 4
    assert model.most_at_once == 2


async def test_a_long_note_does_not_hold_up_a_short_one() -> None:
    model = Model()
    long, short = note("long", *[30] * 20), note("short", 4)
    ended: list[Note] = []

    async def hear(one: Note) -> None:
        await batcher.hear(one, unreported)
        ended.append(one)

    batcher = Batcher(model, size=2, wait=0)
    await asyncio.gather(hear(long), hear(short))
    assert ended == [short, long]
    assert long.segments == all_said(long)


async def test_how_far_a_note_has_come_is_said() -> None:
    reports: list[tuple[int, str]] = []

    async def report(percent: int, doing: str) -> None:
        reports.append((percent, doing))

    await Batcher(Model(), size=1, wait=0).hear(note("a", 30, 30, 30, 30), report)
    assert reports[-1] == (100, "transcribing")
    assert [percent for percent, _ in reports] == sorted(percent for percent, _ in reports)


async def test_languages_are_detected_before_a_note_is_heard() -> None:
    model = Model()
    notes = [note("a", 5, 5, language=None), note("b", 5, language=None)]
    assert await hear_all(Batcher(model, size=8, wait=0.05), notes) == [None, None]
    assert model.detected == [[one.clips[0].start for one in notes]]
    assert [(one.language, one.probability) for one in notes] == [("en", 0.9)] * 2
    assert [one.segments for one in notes] == [all_said(one) for one in notes]


# ── what goes wrong ──────────────────────────────────────────────────────────────────────────────


async def test_one_bad_note_fails_alone() -> None:
    model = Model()
    good, bad, fine = note("good", 5), note("bad", 5), note("fine", 5)
    model.fails = lambda one: one is bad.clips[0]
    ended = await hear_all(Batcher(model, size=8, wait=0.05), [good, bad, fine])
    assert [str(error) if error else None for error in ended] == [None, "the model does not like this", None]
    assert len(model.calls) == 1
    assert len(model.alone) == 3
    assert (good.segments, fine.segments) == (all_said(good), all_said(fine))


async def test_a_doubtful_clip_is_heard_again_alone() -> None:
    model = Model()
    sure, doubtful = note("sure", 5), note("doubtful", 5, 5)
    model.doubts = lambda one: one is doubtful.clips[1]
    assert await hear_all(Batcher(model, size=8, wait=0.05), [sure, doubtful]) == [None, None]
    assert model.alone == [doubtful.clips[1].start]
    assert doubtful.segments == all_said(doubtful)


async def test_a_language_that_cannot_be_detected_fails_its_note_alone() -> None:
    model = Model()
    good, bad = note("good", 5, language=None), note("bad", 5, language=None)
    model.fails = lambda one: one is bad.clips[0]
    ended = await hear_all(Batcher(model, size=8, wait=0.05), [good, bad])
    assert [bool(error) for error in ended] == [False, True]
    assert good.segments == all_said(good)


async def test_a_note_that_is_cancelled_leaves_the_line_and_its_neighbours_alone() -> None:
    model = Model()
    model.go_on.clear()
    batcher = Batcher(model, size=1, wait=0)
    gone, stays = note("gone", 30, 30, 30), note("stays", 5)
    going = asyncio.create_task(batcher.hear(gone, unreported))
    staying = asyncio.create_task(batcher.hear(stays, unreported))
    await reached(lambda: model.calls)
    going.cancel()
    with pytest.raises(asyncio.CancelledError):
        await going
    assert gone.stop.is_set()
    model.go_on.set()
    await staying
    assert stays.segments == all_said(stays)
    assert len(model.calls) == 2, "one for each: the rest of the cancelled note is not heard"


async def test_a_note_the_model_takes_too_long_for_is_given_up() -> None:
    slow = note("slow", 30, 30, 30, allowed=0)
    (error,) = await hear_all(Batcher(Model(), size=1, wait=0), [slow])
    assert isinstance(error, TimeoutError)
    assert "longer than 0 s" in str(error)


async def test_calls_with_others_take_none_of_a_notes_time() -> None:
    """Each has two clips that are heard alone, so there are three calls with it, and many with others."""
    model = Model()
    model.doubts = lambda _: True
    model.takes = 0.02
    notes = [note(f"{n}", 5, 5, allowed=0.5) for n in range(8)]
    assert await hear_all(Batcher(model, size=16, wait=0.05), notes) == [None] * 8
    assert len(model.alone) == 16
    assert all(0.06 <= one.took < 0.4 for one in notes)


async def test_a_note_that_has_failed_gets_no_further_calls() -> None:
    model = Model()
    bad = note("bad", 5, 5, 5)
    model.fails = lambda _: True
    (error,) = await hear_all(Batcher(model, size=8, wait=0.05), [bad])
    assert isinstance(error, RuntimeError)
    assert (len(model.calls), len(model.alone)) == (1, 1)


@given(
    st.lists(
        st.tuples(
            st.lists(st.floats(0.2, 30), min_size=1, max_size=4),
            st.sampled_from(["pt", "en", None]),
            st.booleans(),
        ),
        max_size=12,
    ),
    st.integers(1, 5),
    st.integers(1, 3),
)
def test_whatever_comes_every_note_gets_its_own_words_and_none_waits_for_ever(
    wanted: list[tuple[list[float], str | None, bool]], size: int, calls: int
) -> None:
    model = Model()
    notes = [note(f"{n} ", *lengths, language=language) for n, (lengths, language, _) in enumerate(wanted)]
    bad = {id(one.clips[-1]) for one, (_, _, fails) in zip(notes, wanted, strict=True) if fails}
    model.fails = lambda one: id(one) in bad
    model.doubts = lambda one: len(one.samples) % 3 == 0
    ended = asyncio.run(hear_all(Batcher(model, size=size, wait=0, calls=calls), notes))
    for one, error, (_, _, fails) in zip(notes, ended, wanted, strict=True):
        assert bool(error) == fails
        assert fails or one.segments == all_said(one)
    assert all(len(call) <= size for call in model.calls)


async def test_a_call_is_measured_by_all_the_audio_that_it_heard_and_detecting_is_not() -> None:
    model = Model()
    model.takes = 0.05
    told: list[tuple[float, int]] = []
    batcher = Batcher(model, size=8, wait=0.2, measure=lambda took, heard: told.append((took, round(heard))))
    assert await hear_all(batcher, [note("a", 5), note("b", 6, language=None)]) == [None, None]
    assert sum(heard for _, heard in told) == 11
    assert all(0.04 < took < 20 for took, _ in told)
