"""Riacho's settings in a run."""

from pathlib import Path

from api.demo import free_port
from benchmarks.parts.messages import SECRET
from config import Secret, Settings, load, replaced


def of_a_run(folder: Path, url: str) -> Settings:
    """The defaults, with a folder and a server of its own; replies go into the outbox."""
    return replaced(
        load(environ={}),
        redis={"url": Secret(url)},
        data={"folder": folder},
        http={"port": free_port()},
        whatsapp={"app_secret": Secret(SECRET)},
        notification={"channel": "outbox"},
        log={"level": "warning"},
    )
