"""A terminal for a command of ours: what it shows, and what is typed on it."""

import asyncio
import contextlib
import fcntl
import os
import pty
import re
import struct
import subprocess
import sys
import termios
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, Any

from tests.support import eventually

HOME = "\x1b[H"  # begins each picture
# Ctrl-C and a new size reach only who has the terminal as its own.
CLAIM = "import fcntl, os, sys, termios as t; fcntl.ioctl(0, t.TIOCSCTTY, 0); os.execv(sys.argv[1], sys.argv[1:])"
SEQUENCE = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


class Terminal:
    """`process` is what runs on it."""

    def __init__(self, ours: int, theirs: int, process: "subprocess.Popen[bytes]") -> None:
        self._ours, self._theirs, self.process = ours, theirs, process
        self.output = ""
        self.closed = False

    @property
    def picture(self) -> str:
        """What is on the screen now, or is being drawn."""
        return SEQUENCE.sub("", self.output.rpartition(HOME)[2])

    @property
    def modes(self) -> list[Any]:
        return termios.tcgetattr(self._theirs)

    def type(self, keys: str) -> None:
        os.write(self._ours, keys.encode())

    def resize(self, width: int, height: int) -> None:
        fcntl.ioctl(self._ours, termios.TIOCSWINSZ, struct.pack("HHHH", height, width, 0, 0))

    def take(self) -> None:
        """What there is to read."""
        with contextlib.suppress(OSError):
            self.output += os.read(self._ours, 65_536).decode(errors="replace")

    async def shows(self, *parts: str) -> None:
        """Wait for a picture with all these parts."""

        async def found() -> bool:
            return all(part in self.picture for part in parts)

        await eventually(found, what=f"a screen with {parts}")

    def close(self) -> None:
        """As a window is closed."""
        asyncio.get_running_loop().remove_reader(self._ours)
        os.close(self._theirs)
        os.close(self._ours)
        self.closed = True

    async def end(self) -> int:
        """Wait for the command to end; its exit code."""
        return await asyncio.to_thread(self.process.wait, 20)


@contextmanager
def on_terminal(
    *arguments: str, env: dict[str, str], width: int = 110, height: int = 30, stderr: IO[bytes] | None = None
) -> Iterator[Terminal]:
    """`riacho …` on a terminal of its own while it lasts; its errors go there, too, or into `stderr`."""
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "api", *arguments]
    env = {name: value for name, value in env.items() if name not in ("COLUMNS", "LINES")} | {"TERM": "xterm"}
    fcntl.ioctl(ours, termios.TIOCSWINSZ, struct.pack("HHHH", height, width, 0, 0))
    with subprocess.Popen(
        [sys.executable, "-c", CLAIM, *command],
        env=env,
        stdin=theirs,
        stdout=theirs,
        stderr=stderr or theirs,
        start_new_session=True,
    ) as process:
        terminal, loop = Terminal(ours, theirs, process), asyncio.get_running_loop()
        loop.add_reader(ours, terminal.take)
        try:
            yield terminal
        finally:
            process.kill()
            if not terminal.closed:
                terminal.close()
