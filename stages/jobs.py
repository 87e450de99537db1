"""The payloads of the stages: what a job of each kind says. JSON over HTTP, MessagePack in the stream."""

from decimal import Decimal
from typing import Annotated, Literal

import msgspec

Text = Annotated[str, msgspec.Meta(min_length=1, max_length=100_000)]
ShortText = Annotated[str, msgspec.Meta(min_length=1, max_length=2_000)]
Milliseconds = Annotated[int, msgspec.Meta(ge=0, lt=2**53)]  # since the epoch
EmailAddress = Annotated[str, msgspec.Meta(pattern=r"^[^@\s<>,;]{1,64}@[^@\s<>,;]{1,250}$")]
HttpUrl = Annotated[str, msgspec.Meta(pattern=r"^https?://[^\s/]+\S*$", max_length=2_000)]
JobName = Annotated[str, msgspec.Meta(max_length=300)]
Reason = Annotated[str, msgspec.Meta(max_length=2_000)]
NoNul = msgspec.Meta(pattern=r"^[^\x00]*$")  # PostgreSQL takes none in a text
ErrorCode = Annotated[int, msgspec.Meta(ge=-(2**31), lt=2**31)]
ORDER_STATUS = r"^[a-z0-9_-]{0,40}$"
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


class Attachment(msgspec.Struct, frozen=True):
    """What came with a message: where it lies, as in `Transcribe.source`, and what was written below it."""

    source: ShortText
    kind: Literal["image", "document"]
    caption: Annotated[str, msgspec.Meta(max_length=2_000)] = ""


class ProcessConversation(msgspec.Struct, frozen=True, omit_defaults=True):
    """Work a customer's words into the conversation and answer them; an attachment's are its caption and name."""

    message: Incoming
    text: Text
    voice: bool = False
    attachment: Attachment | None = None


class SendClient(msgspec.Struct, frozen=True, omit_defaults=True):
    """Send a text to a customer. WhatsApp takes 4096 characters.

    `to` is a phone number, or what WhatsApp calls the customer (a chat's id). `audio` is the address of a voice
    note that says it, as a Synthesizer gives it. Jobs come over HTTP as well, so a sender opens nothing that does
    not lie below the cache of speech, and sends the text alone where it is gone. `email` is for a fallback;
    `template` sends the text by the approved template at once.
    """

    to: ShortText
    text: Annotated[str, msgspec.Meta(min_length=1, max_length=4096)]
    audio: ShortText | None = None
    email: EmailAddress | None = None
    template: bool = False


class OrderItem(msgspec.Struct, frozen=True, omit_defaults=True):
    """What was ordered; `price` is of one."""

    name: Annotated[str, msgspec.Meta(min_length=1, max_length=200)]
    quantity: Annotated[int, msgspec.Meta(ge=1, le=1_000_000)] = 1
    price: Decimal | None = None


class SendVendor(msgspec.Struct, frozen=True, omit_defaults=True):
    """Tell a vendor of a paid order. `proof_url` is the payment proof: an image or document that WhatsApp fetches.

    `to` is the vendor's phone number where it is not the one in the settings; the rest is as in SendClient.
    """

    order_id: Annotated[str, msgspec.Meta(min_length=1, max_length=100)]
    client_phone: ShortText
    total: Decimal
    items: Annotated[list[OrderItem], msgspec.Meta(max_length=500)] = []
    proof_url: HttpUrl | None = None
    currency: Annotated[str, msgspec.Meta(pattern="^[A-Z]{3}$")] = "BRL"
    to: ShortText | None = None
    email: EmailAddress | None = None
    template: bool = False


class Fallback(msgspec.Struct, frozen=True, omit_defaults=True):
    """Say by another channel what could not be said over WhatsApp: to whom, the text, and why not.

    `job` is the job that was to say it; `media_url` what came with the text; `email` as in SendClient.
    """

    to: ShortText
    text: Text
    subject: Annotated[str, msgspec.Meta(max_length=200)] = ""
    media_url: HttpUrl | None = None
    email: EmailAddress | None = None
    job: JobName = ""
    reason: Reason = ""


class Alert(msgspec.Struct, frozen=True, omit_defaults=True):
    """Tell the administrators. What has the same `cause` (short, the same words each time) is told together.

    `job` is the job that failed, if one did; `text` says what happened to this one.
    """

    cause: Annotated[str, msgspec.Meta(min_length=1, max_length=200)]
    text: Annotated[str, msgspec.Meta(max_length=2_000)] = ""
    job: JobName = ""


class Receipt(msgspec.Struct, frozen=True, omit_defaults=True):
    """What WhatsApp tells of a message it took: its id there (wamid), what became of it, and when.

    `job` is the job that sent it, which WhatsApp repeats (`biz_opaque_callback_data`); `code` and `error` say why
    it failed.
    """

    message_id: Annotated[ShortText, NoNul]
    status: Literal["sent", "delivered", "read", "played", "failed"]
    at_ms: Milliseconds
    job: Annotated[JobName, NoNul] = ""
    code: ErrorCode | None = None
    error: Annotated[Reason, NoNul] = ""


class Prune(msgspec.Struct, frozen=True, omit_defaults=True):
    """Delete what is older than the settings say, or than `days`; of one tenant or all. `dry_run`: only count."""

    tenant: Annotated[ShortText, NoNul] | None = None
    days: Annotated[float, msgspec.Meta(gt=0, le=36_500)] | None = None
    dry_run: bool = False


class CollectStatistics(msgspec.Struct, frozen=True, omit_defaults=True):
    """Compute the statistics of a day (YYYY-MM-DD, UTC) anew: of yesterday, where none is named."""

    day: Annotated[str, msgspec.Meta(pattern=r"^\d{4}-\d{2}-\d{2}$")] | None = None


class Pull(msgspec.Struct, frozen=True, omit_defaults=True):
    """Pull what changed in the tenant's shop; with `full` all there is, as now and then is done anyway."""

    full: bool = False


class Changed(msgspec.Struct, frozen=True, omit_defaults=True):
    """One product or order of the tenant's shop changed, or is gone: it is looked at there anew."""

    kind: Literal["products", "orders"]
    id: Annotated[int, msgspec.Meta(ge=1, lt=2**53)]


class PushOrder(msgspec.Struct, frozen=True, omit_defaults=True):
    """Say something of an order in the tenant's shop: a note for its staff, a status, or both.

    `id` is the shop's, not the number that its customer sees. `only`: a status that is none of these stays
    as it is; empty: whichever it is, it changes.
    """

    id: Annotated[int, msgspec.Meta(ge=1, lt=2**53)]
    note: Annotated[str, msgspec.Meta(max_length=2_000)] = ""
    status: Annotated[str, msgspec.Meta(pattern=ORDER_STATUS)] = ""
    only: Annotated[list[str], msgspec.Meta(max_length=50)] = []


class Proof(msgspec.Struct, frozen=True, omit_defaults=True):
    """A customer (`chat`) sent the payment proof of an order, by its id in the tenant's shop. `others` are the
    numbers of the orders that it may be for as well."""

    order: Annotated[int, msgspec.Meta(ge=1, lt=2**53)]
    chat: ShortText
    attachment: Attachment
    others: Annotated[list[str], msgspec.Meta(max_length=50)] = []


class CheckHealth(msgspec.Struct, frozen=True):
    """Look at everything the pipeline stands on."""
