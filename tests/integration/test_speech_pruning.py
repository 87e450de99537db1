"""Pruning spoken replies: those that are old, in a folder and in a bucket, and nothing that lies beside them."""

import os
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import obstore
import pytest

from pipeline.message import now_ms
from stages.cleanup.run import Pruned
from stages.cleanup.speech import OFF, SpeechCacheHandler
from stages.jobs import Prune
from stages.speech import cache as speech_cache
from stages.speech.cache import CachedSynthesizer
from tests.cleaning import Told, context
from tests.integration.test_speech import Cache, cache, folder, in_folder, s3_endpoint

pytestmark = pytest.mark.integration

__all__ = ["cache", "folder", "s3_endpoint"]

HOUR = 3_600_000  # ms
STRANGERS = ["menu.ogg", "ab/readme.txt", "ab/cd/short.ogg", f"ab/cd/{'AB' * 32}.ogg", f"x/ab/cd/{'ab' * 32}.ogg"]


class Silent:
    """A program that has nothing to say."""

    name = voice = "silent"

    async def prepare(self) -> None: ...


def key(n: int) -> str:
    digest = f"{n:02x}cd{n:060x}"
    return f"{digest[:2]}/{digest[2:4]}/{digest}.ogg"


@pytest.fixture
async def synthesizer(cache: Cache) -> AsyncIterator[CachedSynthesizer]:
    async with opened(cache) as made:
        yield made


def opened(cache: Cache) -> CachedSynthesizer:
    program: Any = Silent()
    return CachedSynthesizer(program, cache.place, endpoint=cache.endpoint)


def pruning(synthesizer: CachedSynthesizer | None, *, hours: int = 0) -> SpeechCacheHandler:
    """A handler of 1 day whose clock is so many hours ahead."""
    return SpeechCacheHandler(synthesizer, 1, lambda: now_ms() + hours * HOUR)


async def test_old_notes_go_and_nothing_beside_them(
    synthesizer: CachedSynthesizer, cache: Cache, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(speech_cache, "CHUNK", 2)
    monkeypatch.setattr(speech_cache, "SHELVES", 6)  # a bucket is asked for each
    notes = [key(0), key(1), *(f"05/cd/05cd{n:060x}.ogg" for n in range(5))]
    for name in [*notes, *STRANGERS]:
        await obstore.put_async(synthesizer._store, name, b"note")
    assert await pruning(synthesizer, hours=23)(context(), Prune()) == Pruned()
    counted = await pruning(synthesizer, hours=25)(context(), Prune(dry_run=True))
    assert counted == Pruned(files=len(notes), bytes=4 * len(notes), dry_run=True)
    assert sorted(cache.keys()) == sorted([*notes, *STRANGERS])
    told: Told = []
    done = await pruning(synthesizer, hours=25)(context(told=told), Prune())
    assert (done.files, done.bytes) == (len(notes), 4 * len(notes))
    assert done.batches > 4
    assert sorted(cache.keys()) == sorted(STRANGERS)
    assert told[-1][0] == 100


async def test_a_note_that_was_made_again_stays(folder: Cache) -> None:
    async with opened(folder) as synthesizer:
        for n in (1, 2, 255):
            await obstore.put_async(synthesizer._store, key(n), b"note")
        long_ago = time.time() - 2 * 86_400
        for n in (1, 255):
            os.utime(Path(folder.place, key(n)), (long_ago, long_ago))
        assert (await pruning(synthesizer)(context(), Prune(days=3))).files == 0
        assert (await pruning(synthesizer)(context(), Prune())).files == 2
        assert folder.keys() == [key(2)]


async def test_what_a_killed_writer_left_goes_when_it_is_old(folder: Cache) -> None:
    async with opened(folder) as synthesizer:
        await obstore.put_async(synthesizer._store, key(1), b"note")
        left = [Path(folder.place, f"{key(1)}#{n}") for n in (1, 2, "x")]
        for path in left:
            path.write_bytes(b"half")
        for path in (left[0], left[2]):
            os.utime(path, (1, 1))
        assert await pruning(synthesizer)(context(), Prune(dry_run=True)) == Pruned(files=1, bytes=4, dry_run=True)
        assert await pruning(synthesizer)(context(), Prune()) == Pruned(files=1, bytes=4, batches=1)
        assert [path.exists() for path in left] == [False, True, True]


async def test_odd_things_in_the_folder_keep_no_note_from_going(folder: Cache, tmp_path: Path) -> None:
    async with opened(folder) as synthesizer:
        await obstore.put_async(synthesizer._store, key(255), b"note")
        shelf = Path(folder.place, key(1)).parent
        Path(folder.place, f"{key(1)}#1").mkdir(parents=True)
        Path(folder.place, key(1)).symlink_to(tmp_path)
        (shelf / "loop").symlink_to(shelf)
        (shelf / "line\nfeed.ogg").touch()
        Path(os.fsdecode(bytes(shelf) + b"/\xff.ogg")).touch()
        before = sorted(shelf.iterdir())
        done = await pruning(synthesizer, hours=25)(context(), Prune())
        assert done == Pruned(files=1, bytes=4, batches=1)
        assert sorted(shelf.iterdir()) == before


async def test_a_note_that_somebody_else_deletes_first_is_no_error(
    folder: Cache,
) -> None:
    async with opened(folder) as synthesizer:
        notes = [f"05/cd/05cd{n:060x}.ogg" for n in range(5)]
        for name in notes:
            await obstore.put_async(synthesizer._store, name, b"note")
        await synthesizer._delete([notes[0], "05/cd/gone.ogg", *notes[1:]])
        assert folder.keys() == []


async def test_without_speech_and_for_one_tenant_it_says_why_it_does_nothing(tmp_path: Path) -> None:
    assert await pruning(None)(context(), Prune()) == Pruned(skipped=OFF)
    async with opened(in_folder(tmp_path / "tts")) as synthesizer:
        for_one = await pruning(synthesizer)(context(), Prune(tenant="shop", dry_run=True))
    assert for_one.dry_run
    assert "one tenant" in for_one.skipped
