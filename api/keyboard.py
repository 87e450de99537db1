"""Keys as they are pressed, from a terminal that is as it was afterwards."""

import asyncio
import os
import termios
import tty
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

READ_AT_ONCE = 1_024  # bytes
LONGEST_SEQUENCE = 16  # bytes after an escape; what is longer is no key
SEQUENCES = {b"\x1b[A": "up", b"\x1bOA": "up", b"\x1b[B": "down", b"\x1bOB": "down"}
ESCAPE = 0x1B


class Keys:
    """Makes keys of the bytes a terminal sends; a sequence may come in pieces."""

    def __init__(self) -> None:
        self._left = b""

    def read(self, data: bytes) -> list[str]:
        """The keys in it: 'up', 'down', or a character. Of other keys that are sequences nothing is said."""
        self._left += data
        found = []
        while self._left and (length := _length(self._left)):
            part, self._left = self._left[:length], self._left[length:]
            if key := SEQUENCES.get(part) or (part.decode("ascii", "ignore") if length == 1 else ""):
                found.append(key)
        return found


def _length(data: bytes) -> int:
    """Of the first key's bytes; 0 while more of them may come."""
    if data[0] != ESCAPE:
        return 1
    if len(data) == 1:
        return 0
    if data[1:2] == b"O":
        return 3 if len(data) > 2 else 0
    if data[1:2] != b"[":
        return 1
    for at, byte in enumerate(data[2:LONGEST_SEQUENCE], 2):
        if 0x40 <= byte <= 0x7E:
            return at + 1
    return LONGEST_SEQUENCE if len(data) >= LONGEST_SEQUENCE else 0


@contextmanager
def pressed(terminal: int, on_key: Callable[[str], None], on_end: Callable[[], None]) -> Iterator[None]:
    """Have `on_key` called with each key on this terminal, and `on_end` when it is gone. Ctrl-C stays a signal."""
    before = termios.tcgetattr(terminal)
    keys, loop = Keys(), asyncio.get_running_loop()

    def read() -> None:
        try:
            data = os.read(terminal, READ_AT_ONCE)
        except OSError:
            data = b""
        if not data:
            loop.remove_reader(terminal)
            on_end()
        for key in keys.read(data):
            on_key(key)

    tty.setcbreak(terminal)
    _without_suspending(terminal)
    loop.add_reader(terminal, read)
    try:
        yield
    finally:
        loop.remove_reader(terminal)
        with suppress(termios.error):  # it is gone
            termios.tcsetattr(terminal, termios.TCSADRAIN, before)


def _without_suspending(terminal: int) -> None:
    """Ctrl-Z would leave the shell on our screen, and so would Ctrl-\\, which ends us at once."""
    state = termios.tcgetattr(terminal)
    for key in (termios.VSUSP, termios.VQUIT):
        state[6][key] = bytes([os.fpathconf(terminal, "PC_VDISABLE")])
    termios.tcsetattr(terminal, termios.TCSADRAIN, state)
