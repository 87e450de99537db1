"""What the stages need from outside, as Protocols; adapters lie beside the stage that owns them."""

from collections.abc import Awaitable, Callable, Collection, Sequence
from typing import Literal, Protocol, Self

import msgspec

from stages.jobs import Incoming

REPLY = "reply:"  # before a message's id: its reply's


class Word(msgspec.Struct, frozen=True):
    """A word, when it is said (seconds into the note), and its probability from 0 to 1."""

    text: str
    start: float
    end: float
    probability: float


class Segment(msgspec.Struct, frozen=True, omit_defaults=True):
    """A phrase of a note, and when it is said (seconds). `words` where they were asked for."""

    text: str
    start: float
    end: float
    words: tuple[Word, ...] = ()


class Transcript(msgspec.Struct, frozen=True):
    """What is said in a note: its text, the language (code, and probability from 0 to 1; exactly 1 where it was
    not detected), the note's duration in seconds, and by which model. `seconds` is how long the model had it,
    others beside it included. A note in which nobody speaks has no text."""

    text: str
    language: str
    probability: float
    duration: float
    segments: tuple[Segment, ...] = ()
    model: str = ""
    seconds: float = 0.0


class Message(msgspec.Struct, frozen=True):
    """One message of a conversation. `direction` is seen from the shop; the text of a voice note that is yet to be
    transcribed is empty."""

    tenant: str
    chat: str
    id: str
    direction: Literal["in", "out"]
    text: str
    sent_ms: int
    voice: bool = False
    received_ms: int = 0

    @classmethod
    def incoming(cls, tenant: str, said: Incoming, text: str, *, voice: bool) -> Self:
        """What a customer said to this shop."""
        return cls(tenant, said.chat, said.id, "in", text, said.sent_ms, voice, said.received_ms)

    @property
    def order(self) -> tuple[int, int, str]:
        """Where it stands among the messages of its chat."""
        return self.sent_ms, self.received_ms, self.id


class AudioSource(Protocol):
    async def fetch(self, source: str, tenant: str) -> bytes:
        """The bytes behind a tenant's source. Raises Permanent where they cannot be had."""


Report = Callable[[int, str], Awaitable[None]]  # how far, in per cent, and what is being done


class Transcriber(Protocol):
    @property
    def signature(self) -> str:
        """All that a transcript depends on beside the note and its job."""

    async def prepare(self) -> None:
        """Load what transcribing needs, so that the first note does not wait for it."""

    async def transcribe(
        self, audio: bytes, language: str | None, *, vocabulary: str = "", report: Report
    ) -> Transcript:
        """The words in an audio file; `vocabulary` is a hint for the model.

        Raises Permanent where it is no audio.
        """


class Transcripts(Protocol):
    async def find(self, key: str) -> Transcript | None:
        """What was kept under a key, if it is still there."""

    async def keep(self, key: str, transcript: Transcript) -> None:
        """Keep a transcript for whoever sends the same note again."""


class MediaReference(msgspec.Struct, frozen=True, kw_only=True):
    """A voice note that was transcribed: by which job, where it lies, whose message it was (`chat` and `message`
    are empty where it was none), how long it is (seconds), for how long the model had it (ms), and when."""

    job: str
    tenant: str
    chat: str
    message: str
    source: str
    language: str
    seconds: float
    heard: int
    at_ms: int


class MediaLog(Protocol):
    async def record(self, reference: MediaReference) -> None:
        """Keep a reference; the first one of a job stays as it is."""


class Conversations(Protocol):
    async def record(self, messages: Sequence[Message]) -> None:
        """Keep messages; of one already kept under its id only an empty text is filled in.

        Raises Permanent where a tenant, chat or id has a NUL in it.
        """

    async def dismiss(self, message: Message) -> None:
        """Forget a voice note that there will be no text of; one that has a text stays."""

    async def find(self, tenant: str, chat: str, id: str) -> Message | None:  # noqa: A002
        """One message by its id."""

    async def unanswered(self, tenant: str, chat: str, since_ms: int) -> list[Message]:
        """The customer's messages sent since then that have no reply, in any order."""

    async def history(self, tenant: str, chat: str, limit: int, without: Collection[str] = ()) -> list[Message]:
        """The latest messages of a chat that have a text, oldest first; none whose id is in `without`."""


class Responder(Protocol):
    async def reply(self, history: Sequence[Message]) -> str:
        """An answer to the last message of a history that is not empty."""


class Synthesizer(Protocol):
    async def speak(self, text: str) -> str:
        """The address of an ogg/opus voice note that says a text: a file's path, or `s3://bucket/key`.

        Returns or raises within a bounded time; a reply is worth sending without it.
        """


class Outgoing(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A message to a customer or vendor: its text, and what is sent along or in its place.

    `audio` says the text (see SendClient); `media_url` is an image or document that the text goes under;
    `template` has the channel say the text by its approved template.
    """

    tenant: str
    to: str
    text: str
    audio: str | None = None
    media_url: str | None = None
    template: bool = False


class Messenger(Protocol):
    """A channel that messages go out by."""

    name: str  # for people
    knows_jobs: bool  # asked again for the same job it does not send twice

    async def send(self, job_id: str, message: Outgoing, *, again: bool) -> str:
        """Send a message; returns the channel's id for it. `again`: this job may have been sent before.

        Raises NotSent or OutcomeUnknown.
        """


class Ports(msgspec.Struct, frozen=True):
    """All of them, for `build_pipeline`."""

    source: AudioSource
    transcriber: Transcriber
    conversations: Conversations
    responder: Responder
    synthesizer: Synthesizer | None = None  # None: replies are not spoken
    media: MediaLog | None = None  # None: nothing is kept of voice notes but their words
