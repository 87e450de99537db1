"""Our side of a contestant's process: a command a line in, an answer a line out."""

import contextlib
import json
import os
import select
import signal
import subprocess
import tempfile
import threading
from collections.abc import Mapping
from types import TracebackType
from typing import IO, Any, Self, cast

from benchmarks.peers.environments import Command, Unavailable

LONGEST_ANSWER = 120.0  # seconds; a process that is silent for longer is ended


class Process:
    """Context manager: a contestant's process while it lasts. Raises Unavailable where it ends too early."""

    def __init__(self, command: Command, url: str, variables: Mapping[str, str] | None = None) -> None:
        self._command = command
        self._url = url
        self._variables = variables or {}

    def __enter__(self) -> Self:
        self._errors = tempfile.TemporaryFile()
        self._process = subprocess.Popen(  # noqa: S603 - a contestant's own program
            [*self._command.arguments, self._url],
            cwd=self._command.folder,
            env={**os.environ, **self._variables},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
            bufsize=1,
        )
        try:
            self.versions: dict[str, str] = self.answer()
        except Unavailable:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.kill()
        self._process.communicate()
        self._errors.close()

    @property
    def pid(self) -> int:
        return self._process.pid

    def ask(self, command: str, *numbers: int) -> Any:
        self.send(command, *numbers)
        return self.answer()

    def send(self, command: str, *numbers: int) -> None:
        with contextlib.suppress(BrokenPipeError):  # its answer will be missing
            print(command, *numbers, file=cast("IO[str]", self._process.stdin))

    def must_be_busy(self) -> None:
        """Raises Unavailable where it is no longer at its last command."""
        if select.select([cast("IO[str]", self._process.stdout)], [], [], 0)[0]:
            raise Unavailable(f"it should still be working, and answered {self.answer()}")

    def answer(self) -> Any:
        alarm = threading.Timer(LONGEST_ANSWER, self._process.kill)
        alarm.daemon = True  # Ctrl-C does not wait for it
        alarm.start()
        line = cast("IO[str]", self._process.stdout).readline()
        alarm.cancel()
        if not line:
            raise Unavailable(f"its process ended: {self._last_words()}")
        answer = json.loads(line)
        if isinstance(answer, dict) and "cannot" in answer:
            raise Unavailable(answer["cannot"])
        return answer

    def _last_words(self) -> str:
        if self._process.wait() == -signal.SIGKILL:
            return f"killed, at the latest after {LONGEST_ANSWER:.0f} s of silence"
        self._errors.seek(0)
        return (self._errors.read().decode(errors="replace").strip().splitlines() or ["without a word"])[-1]
