"""The same note forwarded to many chats is transcribed once."""

import asyncio
import hashlib
import logging
from collections.abc import Iterator
from contextlib import contextmanager

from stages.ports import Report, Transcriber, Transcript, Transcripts

log = logging.getLogger(__name__)


class _Shared:
    """A transcription under way, and who waits for it and is told how far it is."""

    def __init__(self) -> None:
        self.task: asyncio.Task[Transcript]
        self.waiting: dict[object, Report] = {}

    async def report(self, percent: int, doing: str) -> None:
        for report in list(self.waiting.values()):
            try:
                await report(percent, doing)
            except Exception as error:  # noqa: BLE001 - whatever it is, it is not worth the transcription
                log.debug("nobody can be told of the progress: %s", error)


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
        """See the port. The work ends early when nobody waits for it any more."""
        key = await asyncio.to_thread(_key, audio, self.signature, language or "", vocabulary)
        shared = self._under_way.get(key)
        if shared is None:
            shared = self._under_way[key] = _Shared()
            work = self._find_or_transcribe(key, audio, language, vocabulary, shared.report)
            shared.task = asyncio.create_task(work)
        me = object()
        shared.waiting[me] = report
        try:
            return await asyncio.shield(shared.task)
        finally:
            del shared.waiting[me]
            if self._under_way.get(key) is shared and (shared.task.done() or not shared.waiting):
                del self._under_way[key]  # whoever asks now is not to share what has ended, or is being ended
            if not shared.waiting:
                shared.task.cancel()
                await asyncio.wait([shared.task])

    async def _find_or_transcribe(
        self, key: str, audio: bytes, language: str | None, vocabulary: str, report: Report
    ) -> Transcript:
        with _best_effort():
            if found := await self._transcripts.find(key):
                return found
        transcript = await self._transcriber.transcribe(audio, language, vocabulary=vocabulary, report=report)
        with _best_effort():
            await self._transcripts.keep(key, transcript)
        return transcript


@contextmanager
def _best_effort() -> Iterator[None]:
    try:
        yield
    except Exception as error:  # noqa: BLE001 - minutes of transcribing are not to be lost over a cache
        log.warning("transcripts cannot be kept or looked up: %s", error)


def _key(audio: bytes, *depends_on: str) -> str:
    digest = hashlib.sha256("\0".join(depends_on).encode() + b"\0")
    digest.update(audio)
    return digest.hexdigest()
