"""What the stages need from outside, as Protocols; adapters lie beside the stage that owns them."""

from collections.abc import Sequence
from typing import Literal, Protocol

import msgspec


class Transcript(msgspec.Struct, frozen=True):
    """Text, its language (code and probability from 0 to 1), the note's duration in seconds."""

    text: str
    language: str
    probability: float
    duration: float


class Message(msgspec.Struct, frozen=True):
    """One message of a conversation. `direction` is seen from the shop."""

    tenant: str
    chat: str
    id: str
    direction: Literal["in", "out"]
    text: str
    sent_ms: int
    voice: bool = False


class AudioSource(Protocol):
    async def fetch(self, source: str) -> bytes:
        """The bytes behind a source. Raises Permanent where they cannot be had."""


class Transcriber(Protocol):
    async def prepare(self) -> None:
        """Load what transcribing needs, so that the first note does not wait for it."""

    async def transcribe(self, audio: bytes, language: str | None) -> Transcript:
        """The words in an audio file. Raises Permanent where it is no audio."""


class Conversations(Protocol):
    async def record(self, messages: Sequence[Message]) -> None:
        """Keep messages; one already kept under its id stays as it is."""

    async def find(self, tenant: str, chat: str, id: str) -> Message | None:  # noqa: A002
        """One message by its id."""

    async def history(self, tenant: str, chat: str, limit: int) -> list[Message]:
        """The latest messages of a chat, oldest first."""


class Responder(Protocol):
    async def reply(self, history: Sequence[Message]) -> str:
        """An answer to the last message of a history that is not empty."""


class Synthesizer(Protocol):
    async def speak(self, text: str) -> str:
        """The address of an ogg/opus voice note that says a text: a file's path, or `s3://bucket/key`.

        Returns or raises within a bounded time; a reply is worth sending without it.
        """


class Messenger(Protocol):
    async def send(
        self, *, job_id: str, tenant: str, to: str, text: str, redelivered: bool, audio: str | None = None
    ) -> str:
        """Send a text, spoken where there is `audio` (see SendClient); returns the channel's id for it.

        The same job may come again (`redelivered`) after a crash between sending and settling.
        """


class Ports(msgspec.Struct, frozen=True):
    """All of them, for `build_pipeline`."""

    source: AudioSource
    transcriber: Transcriber
    conversations: Conversations
    responder: Responder
    messenger: Messenger
    synthesizer: Synthesizer | None = None  # None: replies are not spoken
