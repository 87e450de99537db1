"""Where voice notes come from: the web, WhatsApp's media store, S3-compatible stores, local folders."""

import asyncio
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from pipeline import Permanent
from stages.audio.sources.files import Files
from stages.audio.sources.s3 import S3, ObjectStore
from stages.audio.sources.web import Timeouts, Web, shown
from stages.audio.sources.whatsapp import GraphApi, WhatsApp

__all__ = ["AudioSources", "GraphApi", "ObjectStore", "Timeouts"]

AWS = ObjectStore()
TIMEOUTS = Timeouts()


class AudioSources:
    """Fetches the bytes behind a source, never more than `byte_limit`. A context manager: it keeps connections.

    `graphs` are by tenant, in place of `graph`. `roots` are the folders below which files are read, `networks` the
    networks besides the public ones that http(s) may lead to, as in "10.1.0.0/16".
    """

    def __init__(
        self,
        *,
        graph: GraphApi,
        graphs: Mapping[str, GraphApi] | None = None,
        roots: Sequence[Path],
        byte_limit: int,
        networks: Sequence[str] = (),
        store: ObjectStore = AWS,
        timeouts: Timeouts = TIMEOUTS,
    ) -> None:
        self._limit, self._timeouts = byte_limit, timeouts
        self._web = Web(networks, timeouts)
        self._whatsapp = WhatsApp(graph, self._web)
        self._of_tenant = {tenant: WhatsApp(own, self._web) for tenant, own in (graphs or {}).items()}
        self._s3 = S3(store, timeouts)
        self._files = Files(roots)

    async def __aenter__(self) -> Self:
        await self._web.open()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._web.close()

    async def fetch(self, source: str, tenant: str = "") -> bytes:
        """The bytes behind `https://…`, `http://…`, `whatsapp:<media id>`, `s3://bucket/key` or a local path.

        Raises Permanent where another try would not help; other errors are worth one.
        """
        try:
            async with asyncio.timeout(self._timeouts.total):
                audio = await self._fetch(source, tenant)
        except TimeoutError:
            raise ConnectionError(f"{shown(source)} took too long: over {self._timeouts.total:g} s") from None
        if not audio:
            raise Permanent(f"the audio at {shown(source)} is empty")
        return audio

    async def _fetch(self, source: str, tenant: str) -> bytes:
        scheme, _, rest = source.partition(":")
        match scheme.lower():
            case "http" | "https":
                return await self._web.download(source, limit=self._limit)
            case "whatsapp":
                whatsapp = self._of_tenant.get(tenant, self._whatsapp)
                return await whatsapp.download(rest, limit=self._limit)
            case "s3":
                return await self._s3.download(rest.removeprefix("//"), limit=self._limit)
            case "file":
                return await asyncio.to_thread(self._files.read, rest.removeprefix("//"), self._limit)
            case _ if rest.startswith("//"):
                raise Permanent(f"audio cannot be had by {scheme}; expected https, http, s3, whatsapp or a file")
            case _:
                return await asyncio.to_thread(self._files.read, source, self._limit)
