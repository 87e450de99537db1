"""A real WordPress on a MariaDB of its own, where Debian's packages of both (and php-cli) are installed."""

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from api.demo import free_port

DEADLINE = 30  # seconds
HERE = Path(__file__).parent
FILES = Path("/usr/share/wordpress")
PROGRAMS = ("php", "mariadbd", "mariadb-install-db", "mariadb")
CONFIGURATION = """<?php
define('DB_NAME', 'wordpress');
define('DB_USER', '{user}');
define('DB_PASSWORD', '');
define('DB_HOST', 'localhost:{socket}');
define('WP_HOME', '{url}');
define('WP_SITEURL', '{url}');
define('WP_ENVIRONMENT_TYPE', 'local'); // application passwords without HTTPS
define('DISABLE_WP_CRON', true);
define('WP_HTTP_BLOCK_EXTERNAL', true);
$table_prefix = 'wp_';
if (!defined('ABSPATH')) define('ABSPATH', __DIR__ . '/');
require ABSPATH . 'wp-settings.php';
"""


class Site(NamedTuple):
    """Where it is, and who may do what an author may."""

    url: str
    user: str
    password: str


class NotInstalled(Exception):
    """What there is not."""


class _Login(msgspec.Struct):
    user: str
    password: str


@contextmanager
def running(folder: Path) -> Iterator[Site]:
    """It, with its files in an empty folder. Raises NotInstalled."""
    missing = [name for name in PROGRAMS if not shutil.which(name)] + ([] if FILES.exists() else [str(FILES)])
    if missing:
        raise NotInstalled(f"a real WordPress needs {', '.join(missing)}")
    with _database(folder) as place:
        files, url = folder / "site", f"http://127.0.0.1:{free_port()}"
        shutil.copytree(FILES, files, ignore=shutil.ignore_patterns("wp-config.php", "themes", "plugins"))
        (files / "wp-content" / "uploads").mkdir(parents=True, exist_ok=True)
        user = "root" if os.geteuid() == 0 else os.environ.get("USER", "root")
        (files / "wp-config.php").write_text(CONFIGURATION.format(socket=place, url=url, user=user))
        made = subprocess.run(
            ["php", HERE / "install.php", "author"],
            cwd=files,
            capture_output=True,
            text=True,
            check=True,
            timeout=60,
        )
        login = msgspec.json.decode(made.stdout, type=_Login)
        with _served(files, url):
            yield Site(url, login.user, login.password)


@contextmanager
def _database(folder: Path) -> Iterator[Path]:
    """A server that asks nobody for a password; its socket."""
    data, place = folder / "data", folder / "db.sock"
    base = ["--no-defaults", f"--datadir={data}"]
    root = ["--user=root"] if os.geteuid() == 0 else []
    with (folder / "db.log").open("wb") as log:
        subprocess.run(
            ["mariadb-install-db", *base, *root, "--skip-test-db"], stdout=log, stderr=log, check=True, timeout=60
        )
        options = [
            f"--socket={place}",
            "--skip-networking",
            "--skip-grant-tables",
            "--innodb-flush-log-at-trx-commit=0",
        ]
        server = subprocess.Popen(["mariadbd", *base, *root, *options], stdout=log, stderr=log)
        try:
            _until_listening(socket.AF_UNIX, str(place))
            make = ["mariadb", "--no-defaults", f"--socket={place}", "-e", "CREATE DATABASE wordpress"]
            subprocess.run(make, check=True, timeout=30)
            yield place
        finally:
            server.kill()
            server.wait()


@contextmanager
def _served(files: Path, url: str) -> Iterator[None]:
    address = url.removeprefix("http://")
    options = ["-d", "display_errors=stderr", "-d", "memory_limit=256M"]
    with (files.parent / "php.log").open("wb") as log:
        server = subprocess.Popen(
            ["php", *options, "-S", address, "-t", files, HERE / "router.php"], stdout=log, stderr=log, cwd=files
        )
        try:
            host, _, port = address.partition(":")
            _until_listening(socket.AF_INET, (host, int(port)))
            yield
        finally:
            server.kill()
            server.wait()


def _until_listening(family: socket.AddressFamily, address: Any) -> None:
    end = time.monotonic() + DEADLINE
    while True:
        with socket.socket(family) as client:
            try:
                client.connect(address)
            except OSError:
                assert time.monotonic() < end, f"nobody listens at {address} after {DEADLINE} s"
                time.sleep(0.05)
            else:
                return
