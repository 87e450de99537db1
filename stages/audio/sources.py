"""Where voice notes come from: the web, WhatsApp's media store, local folders."""

import asyncio
import re
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self
from urllib.parse import quote

import aiohttp
import msgspec

from pipeline import Permanent

TIMEOUT = aiohttp.ClientTimeout(total=120, connect=10, sock_read=30)
# Worth another try although the status says the request was wrong.
PASSING = {408, 425, 429}


class GraphApi(msgspec.Struct, frozen=True):
    """Meta's Graph API, for WhatsApp media."""

    url: str
    version: str
    token: str


class _Media(msgspec.Struct):
    url: str


class AudioSources:
    """Fetches the bytes behind a source, never more than `byte_limit`. A context manager: it keeps connections."""

    def __init__(self, *, graph: GraphApi, roots: Sequence[Path], byte_limit: int) -> None:
        self._graph = graph
        self._roots = [root.resolve() for root in roots]
        self._limit = byte_limit

    async def __aenter__(self) -> Self:
        self._http = aiohttp.ClientSession(timeout=TIMEOUT)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._http.close()

    async def fetch(self, source: str) -> bytes:
        """The bytes behind `https://…`, `http://…`, `whatsapp:<media id>` or a local path.

        Raises Permanent where another try would not help; other errors are worth one.
        """
        if source.startswith(("http://", "https://")):
            audio = await self._download(source)
        elif source.startswith("whatsapp:"):
            audio = await self._whatsapp(source.removeprefix("whatsapp:"))
        else:
            audio = await asyncio.to_thread(self._read, Path(source.removeprefix("file://")))
        if not audio:
            raise Permanent(f"the audio at {_shown(source)} is empty")
        return audio

    async def _whatsapp(self, media_id: str) -> bytes:
        # The URL behind a media id lives five minutes, so every try asks for it anew.
        login = {"Authorization": f"Bearer {self._graph.token}"}
        answer = await self._download(f"{self._graph.url}/{self._graph.version}/{quote(media_id, safe='')}", login)
        try:
            media = msgspec.json.decode(answer, type=_Media)
        except ValueError as error:  # DecodeError, or UnicodeDecodeError within a string
            raise Permanent(f"WhatsApp's answer for media {media_id} cannot be read: {error}") from None
        return await self._download(media.url, login)

    async def _download(self, url: str, headers: dict[str, str] | None = None) -> bytes:
        try:
            return await self._get(url, headers or {})
        except (ValueError, aiohttp.NonHttpUrlClientError, aiohttp.TooManyRedirects):
            raise Permanent(f"{_shown(url)} is no address that audio can be had from, or leads to none") from None
        except TimeoutError:
            raise ConnectionError(f"{_shown(url)} took too long to answer") from None
        except aiohttp.ClientError as error:  # its text has the whole address in it
            raise ConnectionError(f"{_shown(url)}: {type(error).__name__}") from None

    async def _get(self, url: str, headers: dict[str, str]) -> bytes:
        shown = _shown(url)
        async with self._http.get(url, headers=headers) as answer:
            if answer.status >= 500 or answer.status in PASSING:
                raise ConnectionError(f"{shown} answered {answer.status}")
            if answer.status != 200:
                raise Permanent(f"no audio at {shown}: it answered {answer.status}")
            content = bytearray()
            async for chunk in answer.content.iter_chunked(65_536):
                content += chunk
                if len(content) > self._limit:
                    raise Permanent(f"the audio at {shown} is over the limit of {self._limit:,} bytes")
            return bytes(content)

    def _read(self, given: Path) -> bytes:
        path = self._allowed(given)
        try:
            with path.open("rb") as file:
                content = file.read(self._limit + 1)
        except PermissionError as error:
            raise Permanent(f"cannot read {path}: {error.strerror}") from None
        if len(content) > self._limit:
            raise Permanent(f"the audio file {path} is over the limit of {self._limit:,} bytes")
        return content

    def _allowed(self, given: Path) -> Path:
        """The file itself, links followed. Raises Permanent where it is none, or none of ours."""
        try:
            path = given.resolve()
            if not any(path.is_relative_to(root) for root in self._roots):
                raise Permanent(f"{path} is below no folder that audio may come from; see the setting audio.roots")
            if not path.is_file():
                raise Permanent(f"there is no audio file {path}")
        except (OSError, RuntimeError, ValueError) as error:  # a name too long, links in a circle, a null byte
            raise Permanent(f"{given} cannot be an audio file: {error}") from None
        return path


def _shown(url: str) -> str:
    """An address without what may be secret in it: a login, a signature in the query."""
    return re.sub(r"//[^/?#]*@", "//", re.sub(r"[?#].*", "", url, flags=re.DOTALL))
