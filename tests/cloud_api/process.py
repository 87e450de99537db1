"""The stand-in as a process of its own, for tests with several workers."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import msgspec

from tests.cloud_api.config import Config


@contextmanager
def running(config: Config, port: int = 0) -> Iterator[tuple[str, "subprocess.Popen[bytes]"]]:
    """Its address and the process, until the end of the block."""
    command = [sys.executable, "-m", "tests.cloud_api", "--port", str(port)]
    command += ["--config", msgspec.json.encode(config).decode()]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout
            yield process.stdout.readline().decode().strip(), process
        finally:
            process.terminate()
