"""The Messenger that needs no credentials: messages go to a local file, one JSON object a line."""

import asyncio
import fcntl
import os
from pathlib import Path
from typing import BinaryIO

import msgspec

from pipeline.message import now_ms
from stages.ports import Outgoing


class Sent(msgspec.Struct, rename="camel", omit_defaults=True):
    """A line of the outbox."""

    job_id: str
    tenant: str
    to: str
    text: str
    sent_ms: int
    audio: str | None = None
    media_url: str | None = None


class Outbox:
    """Appends to a file that several processes may share.

    For a job that was delivered before it looks first whether that try had already written it.
    """

    name = "outbox"
    knows_jobs = True

    def __init__(self, path: Path) -> None:
        self._path = path

    async def send(self, job_id: str, message: Outgoing, *, again: bool) -> str:
        """See the port."""
        sent = Sent(
            job_id,
            message.tenant,
            message.to,
            message.text,
            now_ms(),
            message.audio,
            message.media_url,
        )
        await asyncio.to_thread(self._append, sent, again)
        return f"outbox:{job_id}"

    def _append(self, sent: Sent, again: bool) -> None:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with self._path.open("a+b") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            if again and self._has(sent.job_id):
                return
            file.write(_line_break_due(file) + msgspec.json.encode(sent) + b"\n")

    def _has(self, job_id: str) -> bool:
        with self._path.open("rb") as file:
            return any(_job_id(line) == job_id for line in file)


def _line_break_due(file: BinaryIO) -> bytes:
    """What has to come before the next line: a crash may have left the last one torn."""
    if file.seek(0, os.SEEK_END) == 0:
        return b""
    file.seek(-1, os.SEEK_END)
    return b"" if file.read(1) == b"\n" else b"\n"


def _job_id(line: bytes) -> str:
    try:
        return msgspec.json.decode(line, type=Sent).job_id
    except ValueError:  # DecodeError, or UnicodeDecodeError within a string
        return ""  # a line cut short by a crash was never reported as sent
