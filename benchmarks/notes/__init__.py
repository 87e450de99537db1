"""The voice notes of this folder, what is said in them, and how a transcript is compared with it."""

import re
from collections.abc import Iterable
from pathlib import Path

import msgspec

from stages.words import folded

FOLDER = Path(__file__).parent


class VoiceNote(msgspec.Struct, frozen=True):
    """A file of the folder: its language, the words said in it, its length in seconds."""

    file: str
    language: str
    words: str
    seconds: float

    @property
    def path(self) -> Path:
        return FOLDER / self.file

    @property
    def audio(self) -> bytes:
        return self.path.read_bytes()


def voice_notes(language: str | None = None) -> list[VoiceNote]:
    """All of them, or those in one language."""
    notes = msgspec.json.decode((FOLDER / "notes.json").read_bytes(), type=list[VoiceNote])
    return [note for note in notes if language in (None, note.language)]


def word_error_rate(pairs: Iterable[tuple[str, str]]) -> float:
    """The share of words to change, add and take away (Levenshtein) over pairs of reference and transcript."""
    wrong, said = (sum(counts) for counts in zip(*(_wrong(*pair) for pair in pairs), strict=True))
    return float(wrong / said)


def _wrong(reference: str, heard: str) -> tuple[int, int]:
    expected = _words(reference)
    row = list(range(len(expected) + 1))
    for word in _words(heard):
        last, row = row, [row[0] + 1]
        for n, wanted in enumerate(expected, 1):
            row.append(min(last[n] + 1, row[-1] + 1, last[n - 1] + (word != wanted)))
    return row[-1], len(expected)


def _words(text: str) -> list[str]:
    """In lower case, without accents and punctuation."""
    return re.findall(r"\w+", folded(text))
