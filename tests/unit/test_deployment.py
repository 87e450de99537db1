"""What cannot be run here is at least held against the code: the compose file and the Docker image."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from api.__main__ import app
from config import load

pytestmark = pytest.mark.unit

ROOT = Path(__file__).parent.parent.parent
SERVICES: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]
KEYS = '{"admin": {"hash": "%s", "scopes": ["admin"]}}' % ("0" * 64)
OURS = [name for name, service in SERVICES.items() if service.get("build")]


@pytest.mark.parametrize("name", OURS)
def test_the_environment_of_our_services_is_made_of_known_settings(name: str) -> None:
    filled_in = {
        variable: re.sub(r"\$\{\w+:[-?][^}]*\}", KEYS if variable == "RIACHO_HTTP_KEYS" else "secret", value)
        for variable, value in SERVICES[name]["environment"].items()
    }
    settings = load(environ=filled_in)
    assert settings.redis.url.reveal() == "redis://redis:6379/0"
    assert settings.store.url.reveal() == "postgresql+asyncpg://riacho:secret@postgres/riacho"


@pytest.mark.parametrize("name", OURS)
def test_the_commands_of_our_services_exist_with_their_options(name: str) -> None:
    result = CliRunner().invoke(app, [*SERVICES[name]["command"], "--help"])
    assert result.exit_code == 0, result.output


def test_the_service_of_the_compose_file_takes_a_key() -> None:
    command = SERVICES["api"]["command"]
    assert command[command.index("--host") + 1] == "0.0.0.0"  # noqa: S104 - inside its container
    assert ":?" in SERVICES["api"]["environment"]["RIACHO_HTTP_KEYS"]


def test_redis_keeps_what_it_is_given() -> None:
    command = " ".join(SERVICES["redis"]["command"])
    assert "--appendonly yes" in command
    assert "--maxmemory-policy noeviction" in command


def test_nothing_is_published_beyond_loopback() -> None:
    ports = [port for service in SERVICES.values() for port in service.get("ports", [])]
    assert ports
    assert all(port.startswith("127.0.0.1:") for port in ports)


def test_a_worker_has_time_to_finish_before_it_is_killed() -> None:
    assert int(SERVICES["worker"]["stop_grace_period"].rstrip("s")) > load(environ={}).worker.grace


def test_the_image_holds_every_package() -> None:
    dockerfile = (ROOT / "Dockerfile").read_text()
    project = (ROOT / "pyproject.toml").read_text()
    packages = {name.split(".")[0] for name in re.findall(r'^    "([a-z.]+)",$', project, re.MULTILINE)}
    copied = set(re.findall(r"^COPY (\w+) \1$", dockerfile, re.MULTILINE))
    assert copied == packages & {path.parent.name for path in ROOT.glob("*/__init__.py")} - {"tests"}
