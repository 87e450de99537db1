"""Several workers: how many are taken, and how they share the cores."""

import os
from pathlib import Path

import pytest
from typer.testing import CliRunner

from api.__main__ import app
from api.adapters import Adapters
from api.processes import UP, _environments, sharing_cores
from config import SettingsError, load, replaced

pytestmark = pytest.mark.unit


@pytest.mark.parametrize(("count", "said"), [(0, "than or equal to 1 "), (65, "than or equal to 64 ")])
def test_a_number_of_processes_out_of_bounds_is_said_so(count: int, said: str) -> None:
    result = CliRunner().invoke(app, ["worker", "--processes", str(count)], env={"COLUMNS": "120"})
    assert result.exit_code == 2
    assert said in result.output


@pytest.mark.parametrize(("threads", "count", "given"), [(0, 2, 8), (0, 4, 4), (0, 64, 1), (3, 4, 3)])
def test_workers_share_the_cores_unless_told_otherwise(
    monkeypatch: pytest.MonkeyPatch, threads: int, count: int, given: int
) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: 16)
    settings = replaced(load(environ={}), audio={"threads": threads})
    assert sharing_cores(settings, count).audio.threads == given


@pytest.mark.parametrize(("port", "given"), [(9464, ["9464", "9465"]), (0, ["0", "0"])])
def test_each_worker_has_a_port_of_its_own_for_its_figures(port: int, given: list[str]) -> None:
    settings = replaced(load(environ={}), metrics={"port": port})
    environments = _environments(settings, UP, {})
    assert [environments[name]["RIACHO_METRICS_PORT"] for name in ("worker", "transcriber")] == given
    assert environments.keys() == UP.keys()


def test_every_stage_has_a_worker_where_all_run(tmp_path: Path) -> None:
    worked = [name for kind, *options in UP.values() if kind == "worker" for name in options[1].split(",")]
    settings = replaced(load(environ={}), data={"folder": tmp_path})
    assert sorted(worked) == sorted(stage.name for stage in Adapters(settings).pipeline())


def test_more_workers_than_ports_are_refused_before_any_starts() -> None:
    settings = replaced(load(environ={}), metrics={"port": 65_535})
    with pytest.raises(SettingsError, match="RIACHO_METRICS_PORT = 65535: 2 workers need 65534 or less, or 0"):
        _environments(settings, UP, {})
