"""The Synthesizer: what was spoken once is kept, in a folder or an object store."""

import asyncio
import hashlib
import math
import re
import stat
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Self

import msgspec
import obstore
from obstore.exceptions import BaseError
from obstore.store import LocalStore, S3Store

from stages.object_store import bucket_at
from stages.speech.opus import voice_note
from stages.speech.program import SpeechProgram, SpeechUnavailable
from stages.speech.text import speakable

TEXT_LIMIT = 1_000  # characters: a good minute
DURATION_LIMIT = 300.0  # seconds
SIZE_LIMIT = 16 * 2**20  # bytes of a note that is read: WhatsApp takes no more
KEY = re.compile(r"[0-9a-f]{2}/[0-9a-f]{2}/[0-9a-f]{64}\.ogg")
SHELVES = 256  # what keys begin with: 00/ to ff/
UNFINISHED = re.compile(r"[0-9a-f]{64}\.ogg#\d+")  # a file that obstore was writing, and has not named yet
CHUNK = 1_000  # keys that are listed and deleted at a time, as S3 does it


class Shelf(msgspec.Struct, frozen=True):
    """A part of the cache that was pruned: files that went, their bytes, the calls it took, and how far through
    the whole cache that is, in per cent."""

    files: int
    bytes: int
    batches: int
    percent: int


class CachedSynthesizer:
    """The Synthesizer port. A context manager: entering raises SpeechUnavailable where nothing can be spoken.

    A voice note is kept as ab/cd/abcd….ogg in a folder or below `s3://bucket/prefix`, named by the SHA-256 of
    program, voice and text. It was last modified when it was made: using it refreshes nothing, so pruning by age
    takes what is said every day, too, and it is made again. `endpoint` is that of an S3-compatible server that is
    not AWS; the credentials have to allow listing, or a note that is missing reads as forbidden. `timeout` is in
    seconds, for all of it.
    """

    def __init__(self, program: SpeechProgram, cache: str, *, endpoint: str = "", timeout: float = 10.0) -> None:
        self._program, self._endpoint, self._timeout = program, endpoint, timeout
        self._in_s3 = cache.startswith("s3://")
        self._place = cache.rstrip("/") if self._in_s3 else str(Path(cache).expanduser().resolve())
        self._under_way: dict[str, asyncio.Task[None]] = {}

    async def __aenter__(self) -> Self:
        with self._place_named():
            self._store = self._opened()
        await self._program.prepare()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        left = list(self._under_way.values())
        for making in left:
            making.cancel()
        await asyncio.gather(*left, return_exceptions=True)

    async def speak(self, text: str) -> str:
        """See the port. A text asked for while it is being spoken is spoken once, whoever stops waiting for it."""
        line = speakable(text)
        if not 0 < len(line) <= TEXT_LIMIT:
            raise SpeechUnavailable(
                f"{len(line):,} characters of this text could be spoken, not 1 to {TEXT_LIMIT:,}"
            )
        key = self._key(line)
        if key not in self._under_way:
            self._under_way[key] = asyncio.create_task(self._make(key, line))
            self._under_way[key].add_done_callback(lambda _: self._under_way.pop(key))
        await asyncio.shield(self._under_way[key])
        return f"{self._place}/{key}"

    async def read(self, address: str) -> bytes:
        """The voice note behind an address that `speak` gave. Raises SpeechUnavailable.

        Addresses come with jobs, so whatever is not a note in this cache is not looked at.
        """
        key = address.removeprefix(f"{self._place}/")
        if key == address or not KEY.fullmatch(key):
            raise SpeechUnavailable(
                f"{address[:200]!r} is no voice note in {self._place}; see the setting speech.cache"
            )
        try:
            async with asyncio.timeout(self._timeout):
                with self._place_named():
                    return await self._bytes(key)
        except TimeoutError:
            raise SpeechUnavailable(f"reading {address} took longer than {self._timeout:g} s") from None

    async def prune(self, before_ms: int, *, dry_run: bool) -> AsyncIterator[Shelf]:
        """Delete the voice notes made before then (ms since the epoch), and what was left half-written; with
        `dry_run` only count them. Nothing else in the folder or bucket is touched. Raises SpeechUnavailable.

        It goes through the cache in 256 shelves, and through each in chunks, whatever lies there.
        """
        before = datetime.fromtimestamp(before_ms / 1000, UTC)
        for number in range(SHELVES):
            with self._place_named():
                files, size, batches = await self._prune_shelf(f"{number:02x}", before, dry_run=dry_run)
            yield Shelf(files, size, batches, 100 * (number + 1) // SHELVES)

    async def _prune_shelf(self, shelf: str, before: datetime, *, dry_run: bool) -> tuple[int, int, int]:
        """How many files went, their bytes, and how many calls deleted them."""
        if not self._in_s3:
            return await asyncio.to_thread(_prune_folder, Path(self._place, shelf), before, dry_run)
        files = size = batches = 0
        async for chunk in obstore.list(self._store, prefix=shelf, chunk_size=CHUNK):
            old = [one for one in chunk if KEY.fullmatch(one["path"]) and one["last_modified"] < before]
            if old and not dry_run:
                await self._delete([one["path"] for one in old])
                batches += 1
            files, size = files + len(old), size + sum(one["size"] for one in old)
        return files, size, batches

    async def _delete(self, keys: Sequence[str]) -> None:
        try:
            await obstore.delete_async(self._store, keys)
        except FileNotFoundError:  # somebody else deletes them, too
            for key in keys:
                with suppress(FileNotFoundError):
                    await obstore.delete_async(self._store, key)

    async def _bytes(self, key: str) -> bytes:
        try:
            found = await obstore.get_async(self._store, key)
        except FileNotFoundError:
            raise SpeechUnavailable(f"there is no voice note {self._place}/{key} any more") from None
        size = found.meta["size"]
        if not 0 < size <= SIZE_LIMIT:
            raise SpeechUnavailable(f"the voice note {self._place}/{key} has {size:,} bytes")
        return bytes(await found.bytes_async())

    def _key(self, line: str) -> str:
        named = msgspec.json.encode((self._program.name, self._program.voice, line))
        digest = hashlib.sha256(named).hexdigest()
        return f"{digest[:2]}/{digest[2:4]}/{digest}.ogg"

    async def _make(self, key: str, line: str) -> None:
        try:
            async with asyncio.timeout(self._timeout):
                if not await self._has(key):
                    audio = await self._program.say(line)
                    note = await asyncio.to_thread(voice_note, audio, DURATION_LIMIT)
                    with self._place_named():
                        await obstore.put_async(self._store, key, note)  # whole or not at all
        except TimeoutError:
            raise SpeechUnavailable(f"speaking took longer than {self._timeout:g} s") from None

    async def _has(self, key: str) -> bool:
        with self._place_named():
            try:
                found = await obstore.head_async(self._store, key)
            except FileNotFoundError:
                return False
        return found["size"] > 0  # a machine that loses its power may leave an empty file

    def _opened(self) -> LocalStore | S3Store:
        """Nothing is asked of an object store yet."""
        if not self._in_s3:
            return LocalStore(self._place, mkdir=True)
        bucket, _, prefix = self._place.removeprefix("s3://").partition("/")
        return bucket_at(self._endpoint, bucket, prefix=prefix or None, retries=2)

    @contextmanager
    def _place_named(self) -> Iterator[None]:
        try:
            yield
        except (OSError, BaseError) as error:  # its first line says what, the others how it came about
            reason = str(error).partition("\n")[0]
            raise SpeechUnavailable(
                f"cannot keep speech in {self._place} ({reason}); see the settings speech.cache and s3.endpoint"
            ) from error


def _prune_folder(shelf: Path, before: datetime, dry_run: bool) -> tuple[int, int, int]:
    """As in a bucket; and what a writer that was killed left. obstore does not list that, and gives up a whole
    folder for a name in it that it cannot read."""
    files = size = 0
    for path in shelf.glob("[0-9a-f][0-9a-f]/*.ogg*"):
        with suppress(FileNotFoundError):
            found = path.lstat()
            if _is_ours(path) and stat.S_ISREG(found.st_mode) and found.st_mtime < before.timestamp():
                if not dry_run:
                    path.unlink()
                files, size = files + 1, size + found.st_size
    return files, size, 0 if dry_run else math.ceil(files / CHUNK)


def _is_ours(path: Path) -> bool:
    return bool(KEY.fullmatch("/".join(path.parts[-3:])) or UNFINISHED.fullmatch(path.name))
