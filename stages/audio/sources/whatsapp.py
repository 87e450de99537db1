"""WhatsApp's media store, in two steps as Meta documents it: a media id has an address, which has the note."""

import base64
import hashlib
import re

import msgspec
from yarl import URL

from pipeline import Permanent
from stages.audio.sources.web import Web

ANSWER_LIMIT = 65_536  # bytes of the answer that has a note's address in it


class GraphApi(msgspec.Struct, frozen=True):
    """Meta's Graph API, for WhatsApp media."""

    url: str
    version: str
    token: str


class _Media(msgspec.Struct):
    url: str
    sha256: str | None = None
    file_size: int | None = None


class WhatsApp:
    """Fetches notes by media id. The operator names the Graph API, so its origin is trusted to be where it is."""

    def __init__(self, graph: GraphApi, web: Web) -> None:
        self._graph, self._web = graph, web

    async def download(self, media_id: str, *, limit: int) -> bytes:
        """A note's bytes. Raises Permanent where another try would not help, and ConnectionError where it may."""
        if not re.fullmatch(r"[\w-]+", media_id, re.ASCII):  # our token goes to the address it becomes part of
            raise Permanent(f"{media_id!r} is no media id of WhatsApp's")
        # The address behind a media id lives five minutes, so every try asks for it anew.
        answer = await self._get(f"{self._graph.url}/{self._graph.version}/{media_id}", ANSWER_LIMIT)
        media = self._read(media_id, answer)
        if media.file_size and media.file_size > limit:
            raise Permanent(f"media {media_id} has {media.file_size:,} bytes, over the limit of {limit:,}")
        audio = await self._get(media.url, limit)
        if media.sha256 and media.sha256 not in _digests(audio):
            raise ConnectionError(f"media {media_id} came with other content than WhatsApp's sha256 of it says")
        return audio

    async def _get(self, url: str, limit: int) -> bytes:
        login, trusted = f"Bearer {self._graph.token}", URL(self._graph.url).origin()
        return await self._web.download(url, limit=limit, login=login, trusted=trusted)

    def _read(self, media_id: str, answer: bytes) -> _Media:
        try:
            media = msgspec.json.decode(answer, type=_Media, strict=False)  # file_size comes as text, too
        except ValueError as error:  # DecodeError, or UnicodeDecodeError within a string
            raise Permanent(f"WhatsApp's answer for media {media_id} cannot be read: {error}") from None
        if self._graph.url.startswith("https://") and not media.url.startswith("https://"):
            raise Permanent(f"WhatsApp's address of media {media_id} is not https, so our token does not go there")
        return media


def _digests(audio: bytes) -> set[str]:
    """Both ways Meta writes a SHA-256: in hexadecimal (media), in Base64 (webhooks)."""
    digest = hashlib.sha256(audio)
    return {digest.hexdigest(), base64.b64encode(digest.digest()).decode()}
