"""Consumer names come back, and no two workers have one at a time."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.errors import RiachoError
from pipeline.name import ConsumerName

pytestmark = pytest.mark.unit


def test_the_lowest_free_number_is_taken_and_comes_back(tmp_path: Path) -> None:
    first, second = ConsumerName(tmp_path), ConsumerName(tmp_path)
    assert [str(name).rpartition(".")[2] for name in (first, second)] == ["0", "1"]
    first.release()
    again = ConsumerName(tmp_path)
    assert str(again).endswith(".0")
    again.release()
    second.release()


def test_a_killed_process_gives_its_name_back(tmp_path: Path) -> None:
    script = (
        "import sys, pathlib; from pipeline.name import ConsumerName\n"
        "name = ConsumerName(pathlib.Path(sys.argv[1])); print(name, flush=True); sys.stdin.read()"
    )
    command = [sys.executable, "-c", script, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        theirs = process.stdout.readline().strip()
        ours = ConsumerName(tmp_path)
        assert str(ours) != theirs
        ours.release()
        process.send_signal(signal.SIGKILL)
    again = ConsumerName(tmp_path)
    assert str(again) == theirs
    again.release()


def test_a_link_laid_in_the_way_is_not_followed(tmp_path: Path) -> None:
    target = tmp_path / "precious"
    (tmp_path / f"riacho-{os.getuid()}-worker-0.lock").symlink_to(target)
    name = ConsumerName(tmp_path)
    assert str(name).endswith(".1")
    name.release()
    assert not target.exists()


def test_a_folder_that_cannot_be_written_to_is_a_clear_error(tmp_path: Path) -> None:
    with pytest.raises(RiachoError, match=r"no number for a worker's name to be had in .*missing"):
        ConsumerName(tmp_path / "missing")
