"""A PostgreSQL of a run's own, where it is installed."""

import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks.peers.environments import Unavailable


class NotInstalled(Unavailable):
    """There are no programs of PostgreSQL's here."""


def programs() -> Path | None:
    """The folder of initdb and pg_ctl: of a version below /usr/lib, or on the PATH."""
    folders = sorted(
        Path("/usr/lib/postgresql").glob("*/bin"), key=lambda bin_: int(bin_.parent.name), reverse=True
    )
    if on_path := shutil.which("pg_ctl"):
        folders.append(Path(on_path).resolve().parent)
    return next((bin_ for bin_ in folders if (bin_ / "pg_ctl").exists() and (bin_ / "initdb").exists()), None)


@contextmanager
def cluster(*, fsync: bool = False) -> Iterator[str]:
    """A cluster on a socket in a folder of its own, while it lasts; the folder. Raises NotInstalled."""
    bin_ = programs()
    if not bin_:
        raise NotInstalled(
            "PostgreSQL is not installed: no initdb and pg_ctl on PATH or below /usr/lib/postgresql"
        )
    user = _someone_else()
    with tempfile.TemporaryDirectory(prefix="riacho-pg-") as folder:
        if user:
            os.chown(folder, user["user"], user["group"])
            parent = Path(folder).parent  # of a run's own, nobody else could go through
            parent.chmod(parent.stat().st_mode | 0o011)
        quiet: dict[str, Any] = {"cwd": folder, "stdout": subprocess.DEVNULL, "timeout": 60} | user
        data = f"{folder}/data"
        make = ["-D", data, "-U", "riacho", "-A", "trust", "--no-sync"]
        subprocess.run([bin_ / "initdb", *make], check=True, **quiet)  # noqa: S603 - of an installed version
        options = f"-k {folder} -c listen_addresses='' -c fsync={'on' if fsync else 'off'}"
        start = ["-D", data, "-o", options, "-l", f"{folder}/log", "-w", "start"]
        subprocess.run([bin_ / "pg_ctl", *start], check=True, **quiet)  # noqa: S603
        try:
            yield folder
        finally:
            stop = ["-D", data, "-m", "immediate", "stop"]
            subprocess.run([bin_ / "pg_ctl", *stop], check=True, **quiet)  # noqa: S603


def address(folder: str, name: str = "postgres") -> str:
    """Of a database in a cluster."""
    return f"postgresql+asyncpg://riacho@/{name}?host={folder}"


def _someone_else() -> dict[str, Any]:
    """PostgreSQL refuses to run as root; these arguments have a subprocess run as its own user, or nobody."""
    if os.geteuid():
        return {}
    names = {user.pw_name for user in pwd.getpwall()}
    user = pwd.getpwnam("postgres" if "postgres" in names else "nobody")
    return {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}
