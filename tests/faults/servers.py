"""Servers that a test has to itself, to be stopped, started and led elsewhere."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from redis.asyncio import Redis

from pipeline.embedded import EmbeddedServer
from tests.conftest import server_binary


class OwnServer:
    """A server of this test alone, to be stopped and started."""

    def __init__(self, folder: Path) -> None:
        self._embedded = EmbeddedServer(folder, binary=server_binary())
        self.url = self._embedded.url

    async def start(self) -> None:
        await asyncio.to_thread(self._embedded.__enter__)

    async def stop(self) -> None:
        await asyncio.to_thread(self._embedded.__exit__, None, None, None)

    async def ask(self, *command: object) -> Any:
        """One command's reply."""
        client: Redis = Redis.from_url(self.url)
        async with client:
            return await client.execute_command(*command)

    async def listen(self) -> int:
        """Have it listen on a port of loopback, too."""
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port: int = free.getsockname()[1]
        await self.ask("CONFIG", "SET", "port", port)
        return port


class Gateway:
    """An address that leads to one of several servers, as a virtual address or a DNS name does."""

    def __init__(self, port: int) -> None:
        self.target = port
        self.url = ""

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection("127.0.0.1", self.target)
        await asyncio.gather(_pump(reader, back), _pump(there, writer))

    @asynccontextmanager
    async def open(self) -> AsyncIterator[None]:
        """Lead there while it lasts."""
        server = await asyncio.start_server(self._carry, "127.0.0.1")
        self.url = f"redis://127.0.0.1:{server.sockets[0].getsockname()[1]}/0"
        try:
            yield
        finally:
            server.close()


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(ConnectionError):
        while data := await reader.read(65_536):
            writer.write(data)
            await writer.drain()
    writer.close()
