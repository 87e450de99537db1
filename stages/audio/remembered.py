"""The same note forwarded to many chats is transcribed once."""

import asyncio
import hashlib
from typing import NamedTuple

from stages.ports import Report, Transcriber, Transcript, Transcripts


class _Shared(NamedTuple):
    """A transcription under way, and who waits for it."""

    task: asyncio.Task[Transcript]
    waiting: set[object]


class RememberingTranscriber:
    """A Transcriber that looks first whether the same bytes have been transcribed before, or just are being.

    What is kept is found by the note's content and by all that a transcript depends on: the model and how it is
    used, the language asked for, the hint.
    """

    def __init__(self, transcriber: Transcriber, transcripts: Transcripts) -> None:
        self._transcriber = transcriber
        self._transcripts = transcripts
        self._under_way: dict[str, _Shared] = {}

    @property
    def signature(self) -> str:
        """See the port."""
        return self._transcriber.signature

    async def prepare(self) -> None:
        """See the port."""
        await self._transcriber.prepare()

    async def transcribe(
        self, audio: bytes, language: str | None, *, vocabulary: str = "", report: Report
    ) -> Transcript:
        """See the port. Who asked first is told how far it is; the work ends early when nobody waits any more."""
        key = await asyncio.to_thread(_key, audio, self.signature, language or "", vocabulary)
        shared = self._under_way.get(key)
        if shared is None:
            work = asyncio.create_task(self._find_or_transcribe(key, audio, language, vocabulary, report))
            shared = self._under_way[key] = _Shared(work, set())
            work.add_done_callback(lambda _: self._forget(key, work))
        me = object()
        shared.waiting.add(me)
        try:
            return await asyncio.shield(shared.task)
        finally:
            shared.waiting.remove(me)
            if not shared.waiting:
                shared.task.cancel()
                self._forget(key, shared.task)  # whoever asks now is not to share what is being ended

    def _forget(self, key: str, task: asyncio.Task[Transcript]) -> None:
        if (shared := self._under_way.get(key)) and shared.task is task:
            del self._under_way[key]

    async def _find_or_transcribe(
        self, key: str, audio: bytes, language: str | None, vocabulary: str, report: Report
    ) -> Transcript:
        found = await self._transcripts.find(key)
        if found is None:
            found = await self._transcriber.transcribe(audio, language, vocabulary=vocabulary, report=report)
            await self._transcripts.keep(key, found)
        return found


def _key(audio: bytes, *depends_on: str) -> str:
    digest = hashlib.sha256("\0".join(depends_on).encode() + b"\0")
    digest.update(audio)
    return digest.hexdigest()
