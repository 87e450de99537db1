"""A worker's consumer name: the host's, and the lowest number that no other worker on it has.

Names that come back keep the list of consumers as short as there are workers, however often they are started. The
kernel keeps a number for as long as its process lives, and frees it however that ends. Should two workers have one
name all the same (containers that share a host name), nothing is lost: an entry is claimed by name and delivery.
"""

import fcntl
import os
import socket
import tempfile
from itertools import count
from pathlib import Path


class ConsumerName:
    """`<host>.<number>`, this worker's until released."""

    def __init__(self, folder: Path | None = None) -> None:
        folder = folder or Path(tempfile.gettempdir())
        for number in count():
            path = folder / f"riacho-{os.getuid()}-worker-{number}.lock"
            # Not followed: in a folder that everybody may write to, a link could lead anywhere.
            self._lock = os.open(path, os.O_CREAT | os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
            try:
                fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                os.close(self._lock)
                continue
            self._name = f"{socket.gethostname()}.{number}"
            break

    def __str__(self) -> str:
        return self._name

    def release(self) -> None:
        """Let another worker have it."""
        os.close(self._lock)
