"""A message as Meta takes it: every field known, every length within its limit, one part and the right one."""

import re
from typing import Annotated, Any, Literal

import msgspec
from msgspec import UNSET, UnsetType

from tests.cloud_api.config import BSUID
from tests.cloud_api.errors import MetaError

Link = Annotated[str, msgspec.Meta(pattern=r"^https?://[^\s/]+\S*\Z", max_length=2_048)]
MediaId = Annotated[str, msgspec.Meta(pattern=r"^[0-9]{1,30}\Z")]
Caption = Annotated[str, msgspec.Meta(max_length=1024)]
BodyText = Annotated[str, msgspec.Meta(min_length=1, max_length=4096)]

_UNFIT = re.compile(r"[\n\r\t]| {5}")  # "new-line/tab characters or more than 4 consecutive spaces"


class _Strict(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    pass


class Text(_Strict, frozen=True):
    body: BodyText
    preview_url: bool = False


class _Media(_Strict, frozen=True):
    id: MediaId | UnsetType = UNSET
    link: Link | UnsetType = UNSET


class Image(_Media, frozen=True):
    caption: Caption = ""


class Document(_Media, frozen=True):
    caption: Caption = ""
    filename: Annotated[str, msgspec.Meta(min_length=1, max_length=240)] | UnsetType = UNSET


class Audio(_Media, frozen=True):
    voice: bool = False


class Language(_Strict, frozen=True):
    code: Annotated[str, msgspec.Meta(pattern=r"^[a-z]{2,3}(_[A-Z]{2,3})?\Z")]
    policy: Literal["deterministic"] = "deterministic"


class Parameter(_Strict, frozen=True):
    type: Literal["text"]
    text: Annotated[str, msgspec.Meta(min_length=1, max_length=1024)]
    parameter_name: Annotated[str, msgspec.Meta(pattern=r"^[a-z0-9_]+\Z")] | UnsetType = UNSET


class Component(_Strict, frozen=True):
    type: Literal["body"]
    parameters: tuple[Parameter, ...] = ()


class Template(_Strict, frozen=True):
    name: Annotated[str, msgspec.Meta(pattern=r"^[a-z0-9_]{1,512}\Z")]
    language: Language
    components: Annotated[tuple[Component, ...], msgspec.Meta(max_length=1)] = ()

    @property
    def values(self) -> list[str]:
        """The body's parameters."""
        return [parameter.text for component in self.components for parameter in component.parameters]


class Message(_Strict, frozen=True, kw_only=True):
    """The body of a call; the part that `type` names is there, and no other."""

    messaging_product: Literal["whatsapp"]
    type: Literal["text", "template", "image", "document", "audio"]
    recipient_type: Literal["individual"] = "individual"
    to: Annotated[str, msgspec.Meta(pattern=r"^\+?[1-9][0-9]{6,14}\Z")] | UnsetType = UNSET
    recipient: Annotated[str, msgspec.Meta(pattern=BSUID)] | UnsetType = UNSET
    text: Text | UnsetType = UNSET
    template: Template | UnsetType = UNSET
    image: Image | UnsetType = UNSET
    document: Document | UnsetType = UNSET
    audio: Audio | UnsetType = UNSET
    biz_opaque_callback_data: Annotated[str, msgspec.Meta(max_length=512)] = ""

    @property
    def input(self) -> str:
        """The recipient as the caller wrote it; a phone number goes over a user id."""
        return self.to or self.recipient or ""

    @property
    def address(self) -> str:
        """The recipient in one way of writing: digits, or a user id."""
        return self.input.removeprefix("+")

    @property
    def words(self) -> str:
        """What the recipient reads."""
        if self.text:
            return self.text.body
        if self.template:
            return "\n".join(self.template.values)
        captioned = self.image or self.document
        return captioned.caption if captioned else ""

    @property
    def media(self) -> Image | Document | Audio | None:
        """The part that is a file."""
        return self.image or self.document or self.audio or None


_PARTS = ("text", "template", "image", "document", "audio")
_decoder = msgspec.json.Decoder(Message)


def parse(body: bytes) -> Message:
    """A message that is well formed. Raises MetaError."""
    try:
        message = _decoder.decode(body)
    except (ValueError, RecursionError) as error:
        raise _malformed(100, str(error)) from None
    _check_parts(message)
    if message.media:
        _check_source(message.media)
    if message.template:
        _check_values(message.template)
    return message


def _check_parts(message: Message) -> None:
    if not message.input:
        raise _malformed(131008, "one of to and recipient is required")
    there = [part for part in _PARTS if getattr(message, part) is not UNSET]
    if message.type not in there:
        raise _malformed(131008, f"{message.type} is required for type {message.type}")
    if len(there) > 1:
        raise _malformed(100, f"type is {message.type}, and there is {' and '.join(there)}")


def _check_source(media: Any) -> None:
    if (media.id is UNSET) == (media.link is UNSET):
        raise _malformed(131009, "media needs one of id and link")


def _check_values(template: Template) -> None:
    if any(_UNFIT.search(value) for value in template.values):
        what = "Param text cannot have new-line/tab characters or more than 4 consecutive spaces"
        raise _malformed(132018, what)


def _malformed(code: int, what: str) -> MetaError:
    return MetaError(code, what, violation=f"malformed message: {what}")
