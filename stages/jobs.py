"""The payloads of the stages: what a job of each kind says. JSON over HTTP, MessagePack in the stream."""

from typing import Annotated

import msgspec

Text = Annotated[str, msgspec.Meta(min_length=1, max_length=100_000)]
ShortText = Annotated[str, msgspec.Meta(min_length=1, max_length=2_000)]
Milliseconds = Annotated[int, msgspec.Meta(ge=0, lt=2**53)]  # since the epoch
LanguageCode = Annotated[str, msgspec.Meta(pattern="^(auto|[a-z]{2,3})$")]


class Incoming(msgspec.Struct, frozen=True):
    """A message as a customer sent it: whose chat, the sender's id for it, when; and when it came to us, which
    orders what was sent at the same time (WhatsApp tells it in whole seconds)."""

    chat: ShortText
    id: ShortText
    sent_ms: Milliseconds
    received_ms: Milliseconds = 0


class Transcribe(msgspec.Struct, frozen=True):
    """Turn a voice note into text. With `message` the text goes on to that chat's conversation.

    `source`: https:// or http://, `whatsapp:<media id>`, or a file below a configured folder.
    """

    source: ShortText
    language: LanguageCode | None = None
    message: Incoming | None = None


class ProcessConversation(msgspec.Struct, frozen=True):
    """Work a customer's words into the conversation and answer them."""

    message: Incoming
    text: Text
    voice: bool = False


class SendClient(msgspec.Struct, frozen=True, omit_defaults=True):
    """Send a text to a customer. WhatsApp takes 4096 characters.

    `audio` is the address of a voice note that says it, as a Synthesizer gives it. Jobs come over HTTP as well, so
    a sender opens nothing that does not lie below the cache of speech, and sends the text alone where it is gone.
    """

    to: ShortText
    text: Annotated[str, msgspec.Meta(min_length=1, max_length=4096)]
    audio: ShortText | None = None
