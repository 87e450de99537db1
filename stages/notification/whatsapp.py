"""The Messenger that sends over WhatsApp."""

import logging
import re
import unicodedata
from collections.abc import Awaitable, Callable
from pathlib import PurePosixPath
from urllib.parse import unquote, urlsplit

from pipeline import RiachoError
from stages.notification.cloud_api import Audio, CloudApi, Content, Document, Image, Sender, Template, Text
from stages.notification.errors import Refused, SenderPaused
from stages.ports import Outgoing

log = logging.getLogger(__name__)

# Characters, as Meta documents them.
TEXT_LIMIT = 4096
CAPTION_LIMIT = PARAMETER_LIMIT = 1024
FILENAME_LIMIT = 100

VOICE_NOTE = "audio/ogg; codecs=opus"  # Meta takes no plain audio/ogg
IMAGES = {".jpg", ".jpeg", ".png"}  # webp is for stickers


class WhatsApp:
    """Sends by the Cloud API, from the number of a message's tenant.

    `sender` gives a tenant's Sender, or None where it has none; the tenant of most installations is "". `voice`
    reads what an `audio` address stands for and raises RiachoError or OSError; without it, or where that fails,
    the text goes out in its place.
    """

    name = "whatsapp"
    knows_jobs = False

    def __init__(
        self,
        api: CloudApi,
        sender: Callable[[str], Sender | None],
        voice: Callable[[str], Awaitable[bytes]] | None = None,
    ) -> None:
        self._api, self._sender, self._voice = api, sender, voice

    async def send(self, job_id: str, message: Outgoing, *, again: bool) -> str:  # noqa: ARG002
        """See the port; returns the wamid."""
        sender = self._sender_of(message.tenant)
        content = await self._content(job_id, sender, message)
        return await self._api.send(sender, message.to, content, job_id=job_id)

    def _sender_of(self, tenant: str) -> Sender:
        sender = self._sender(tenant)
        if sender and sender.token:
            return sender
        raise SenderPaused(
            f"there is no access token for tenant {tenant[:100]!r}: set whatsapp.access_token, or give the tenant "
            "one of its own in whatsapp.senders"
        )

    async def _content(self, job_id: str, sender: Sender, message: Outgoing) -> Content:
        if message.template:
            return _template(sender, message.text)
        if message.audio and (spoken := await self._spoken(job_id, sender, message.audio)):
            return spoken
        if message.media_url:
            return _media(message.media_url, cut(message.text, CAPTION_LIMIT))
        return Text(cut(message.text, TEXT_LIMIT))

    async def _spoken(self, job_id: str, sender: Sender, address: str) -> Audio | None:
        """The voice note, uploaded; None where it cannot be had or Meta does not take it."""
        if not self._voice:
            return None
        try:
            note = await self._voice(address)
        except (RiachoError, OSError) as error:
            log.warning("job %s sends its text alone, without its voice note: %s", job_id, error)
            return None
        try:
            return Audio(await self._api.upload(sender, note, VOICE_NOTE), voice=True)
        except Refused as error:
            log.warning("job %s sends its text alone, WhatsApp takes no voice note: %s", job_id, error)
            return None


def _template(sender: Sender, text: str) -> Template:
    if not sender.template:
        raise Refused("only a template reaches this customer now, and the setting whatsapp.template names none")
    return Template(sender.template, sender.template_language, (parameter(text),))


def _media(url: str, caption: str) -> Image | Document:
    try:
        path = PurePosixPath(unquote(urlsplit(url).path))
    except ValueError:
        raise Refused("media_url is no address") from None
    if path.suffix.lower() in IMAGES:
        return Image(url, caption)
    return Document(url, caption, _filename(path.name))


def _filename(name: str) -> str:
    """What the recipient's phone shows, and may keep the file as."""
    plain = re.sub(r"[^\w .()-]+", "_", unicodedata.normalize("NFC", name)).strip(" .")
    return plain[-FILENAME_LIMIT:] or "documento"


def parameter(text: str) -> str:
    """A text as a template's parameter: Meta takes no new lines, no tabs, and no row of spaces."""
    return cut(" ".join(text.split()), PARAMETER_LIMIT)


def cut(text: str, limit: int) -> str:
    """A text of no more characters than `limit`."""
    return text if len(text) <= limit else text[: limit - 1].rstrip() + "…"
