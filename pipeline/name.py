"""A worker's consumer name: the host's, and the lowest number that no other worker on it has.

Names that come back keep the list of consumers as short as there are workers, however often they are started. The
kernel keeps a number for as long as its process lives, and frees it however that ends. Should two workers have one
name all the same (containers that share a host name), nothing is lost: an entry is claimed by name and delivery.
"""

import fcntl
import os
import socket
import tempfile
from pathlib import Path

from pipeline.errors import RiachoError

MOST_WORKERS = 1000  # on one machine, of one user


class ConsumerName:
    """`<host>.<number>`, this worker's until released."""

    def __init__(self, folder: Path | None = None) -> None:
        folder = folder or Path(tempfile.gettempdir())
        for number in range(MOST_WORKERS):
            lock = _lock(folder / f"riacho-{os.getuid()}-worker-{number}.lock")
            if lock is not None:
                self._lock, self._name = lock, f"{socket.gethostname()}.{number}"
                return
        raise RiachoError(f"no number for a worker's name to be had in {folder}; can it be written to?")

    def __str__(self) -> str:
        return self._name

    def release(self) -> None:
        """Let another worker have it."""
        os.close(self._lock)


def _lock(path: Path) -> int | None:
    """The file's descriptor, locked; None where somebody else has it."""
    try:
        # Not followed: in a folder that everybody may write to, a link could lead anywhere.
        file = os.open(path, os.O_CREAT | os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    except OSError:
        return None
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(file)
        return None
    os.truncate(file, 0)
    os.write(file, b"%d\n" % os.getpid())  # for whoever wants to know who it is
    return file
