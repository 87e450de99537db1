"""The embedded server: its data outlives it, and one folder has one server."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from redis import Redis

from pipeline.embedded import EmbeddedServer
from pipeline.errors import DataFolderInUse, EmbeddedServerFailed
from tests.conftest import server_binary

pytestmark = pytest.mark.integration

# Says where its server is, and waits to be killed.
KILLED = """
import sys, time
from pathlib import Path
from pipeline.embedded import EmbeddedServer
with EmbeddedServer(Path(sys.argv[1]), binary=Path(sys.argv[2]) if len(sys.argv) > 2 else None) as server:
    print(server.url, flush=True)
    time.sleep(60)
"""


def embedded(folder: Path) -> EmbeddedServer:
    return EmbeddedServer(folder, binary=server_binary())


def test_data_is_kept_between_runs(tmp_path: Path) -> None:
    with embedded(tmp_path / "new" / "folder") as server, Redis.from_url(server.url) as client:
        client.set("note", "kept")
    with embedded(tmp_path / "new" / "folder") as server, Redis.from_url(server.url) as client:
        assert client.get("note") == b"kept"
        assert client.config_get("appendonly", "appendfsync", "maxmemory-policy") == {
            "appendonly": "yes",
            "appendfsync": "everysec",
            "maxmemory-policy": "noeviction",
        }
        assert client.config_get("port") == {"port": "0"}, "nothing listens on the network"


def test_a_second_server_on_the_same_folder_is_refused_and_says_whose_it_is(tmp_path: Path) -> None:
    with embedded(tmp_path) as server:
        with pytest.raises(DataFolderInUse, match=rf"process {os.getpid()}\).* --data"), embedded(tmp_path):
            pass
        with Redis.from_url(server.url) as client:
            assert client.ping()


def test_a_server_that_outlived_its_process_is_stopped_and_its_data_kept(tmp_path: Path) -> None:
    binary = server_binary()
    command = [sys.executable, "-c", KILLED, str(tmp_path), *([str(binary)] if binary else [])]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        url = process.stdout.readline().strip()
        with Redis.from_url(url) as client:
            client.set("note", "kept")
            orphan = int(client.info("server")["process_id"])
            assert os.getsid(orphan) != os.getsid(process.pid), "a terminal's Ctrl-C does not reach it"
            process.send_signal(signal.SIGKILL)
            process.wait()
            assert client.ping(), "the server has outlived its process"
    with embedded(tmp_path) as server, Redis.from_url(server.url) as client:
        assert client.get("note") == b"kept"
        assert client.info("server")["process_id"] != orphan


def test_a_server_that_ended_by_itself_is_started_again_on_its_data(tmp_path: Path) -> None:
    with embedded(tmp_path) as server, Redis.from_url(server.url) as client:
        client.config_set("appendfsync", "always")
        client.set("note", "kept")
        assert server.exit_code() is None
        os.kill(server._process.pid, signal.SIGKILL)
        server._process.wait()
        assert server.exit_code() == -signal.SIGKILL
        server.start()
        assert client.get("note") == b"kept"


@pytest.mark.parametrize("name", ["long-" * 40, "with space", "a#b?c%20d", "ação", "quo\"te's", "-dash"])
def test_a_folder_may_have_any_name(tmp_path: Path, name: str) -> None:
    with embedded(tmp_path / name) as server, Redis.from_url(server.url) as client:
        client.set("note", "kept")
    with embedded(tmp_path / name) as server, Redis.from_url(server.url) as client:
        assert client.get("note") == b"kept"


def test_a_folder_that_cannot_be_made_is_said_so(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(EmbeddedServerFailed, match=r"cannot keep data in .*/file: "), embedded(tmp_path / "file"):
        pass


def test_a_server_that_does_not_start_is_said_so(tmp_path: Path) -> None:
    with (
        pytest.raises(EmbeddedServerFailed, match=r"did not start; .*valkey\.log says why"),
        EmbeddedServer(tmp_path, binary=Path("/bin/false")),
    ):
        pass
    with embedded(tmp_path):
        pass
