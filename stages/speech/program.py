"""Programs that speak: text on stdin, WAV on stdout."""

import asyncio
import contextlib
import os
import signal
import tempfile
from asyncio.subprocess import PIPE, Process

from pipeline import RiachoError

ARGUMENTS = {  # the voice comes after them
    "espeak-ng": ("--stdin", "--stdout", "-b", "1", "-v"),  # -b 1: the text is UTF-8, whatever the locale
    "piper": ("--output_file", "-", "--model"),
}
REMEDIES = {
    "espeak-ng": "install espeak-ng (apt-get install espeak-ng), have RIACHO_SPEECH_VOICE name one of its voices",
    "piper": "install piper (pip install piper-tts), have RIACHO_SPEECH_VOICE name the .onnx file of a voice",
}

START_TIMEOUT = 30.0  # seconds
AUDIO_LIMIT = 16 * 2**20  # bytes: six minutes at 22,050 Hz
LOG_LIMIT = 2**20


class SpeechUnavailable(RiachoError):
    """A text cannot be spoken, or none can."""


class SpeechProgram:
    """espeak-ng or piper, started for each text; no more at a time than there are cores."""

    def __init__(self, name: str, voice: str) -> None:
        self.name, self.voice = name, voice
        self._turns = asyncio.Semaphore(os.cpu_count() or 1)

    async def prepare(self) -> None:
        """Say a word. Raises SpeechUnavailable naming what to install."""
        try:
            async with asyncio.timeout(START_TIMEOUT):
                await self.say("1")
        except (OSError, SpeechUnavailable) as error:
            reason = str(error) or f"it said nothing within {START_TIMEOUT:g} s"
            raise SpeechUnavailable(
                f"cannot speak with RIACHO_SPEECH_ENGINE={self.name} ({reason}): {REMEDIES[self.name]}, "
                "or set RIACHO_SPEECH_ENGINE=off"
            ) from error

    async def say(self, line: str) -> bytes:
        """A WAV file. Raises SpeechUnavailable where the program fails or writes too much, OSError where it cannot
        be started. Cancelled, it kills the program.
        """
        async with self._turns:
            process = await self._started(line)
            try:
                audio, log = await _output(process)
            except BaseException:
                _kill(process)
                await process.communicate()
                raise
        if len(audio) > AUDIO_LIMIT or len(log) > LOG_LIMIT:
            raise SpeechUnavailable(f"{self.name} wrote over {AUDIO_LIMIT:,} bytes, or {LOG_LIMIT:,} of errors")
        if process.returncode:
            reason = log.decode(errors="replace").strip()[-200:] or "it does not say why"
            raise SpeechUnavailable(f"{self.name} ended with {process.returncode}: {reason}")
        return audio

    async def _started(self, line: str) -> Process:
        with tempfile.TemporaryFile() as text:  # a pipe that is closed unread would be an error of its own
            text.write(line.encode())
            text.seek(0)
            return await asyncio.create_subprocess_exec(
                self.name,
                *ARGUMENTS[self.name],
                self.voice,
                stdin=text,
                stdout=PIPE,
                stderr=PIPE,
                start_new_session=True,  # so that whatever it starts is killed with it
            )


async def _output(process: Process) -> tuple[bytes, bytes]:
    """All it writes on stdout and stderr, or a little more than the limits; it has ended then."""
    assert process.stdout and process.stderr  # noqa: PT018, S101 - pipes, as asked for
    audio, log, _ = await asyncio.gather(
        _read(process, process.stdout, AUDIO_LIMIT), _read(process, process.stderr, LOG_LIMIT), process.wait()
    )
    return audio, log


async def _read(process: Process, stream: asyncio.StreamReader, limit: int) -> bytes:
    output = bytearray()
    while chunk := await stream.read(65_536):
        if len(output) > limit:
            _kill(process)  # and read on: a pipe that is not empty stays open
        else:
            output += chunk
    return bytes(output)


def _kill(process: Process) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
