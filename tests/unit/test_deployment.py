"""What cannot be run here is at least held against the code: the compose file and the Docker image."""

import re
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import yaml
from typer.testing import CliRunner

from api.__main__ import app
from config import load

pytestmark = pytest.mark.unit

ROOT = Path(__file__).parent.parent.parent
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
SERVICES: dict[str, Any] = COMPOSE["services"]
JAEGER: dict[str, Any] = yaml.safe_load((ROOT / "deploy/jaeger.yaml").read_text())
SCRAPES: dict[str, Any] = {
    job["job_name"]: job
    for job in yaml.safe_load((ROOT / "deploy/prometheus/prometheus.yml").read_text())["scrape_configs"]
}
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


def test_every_other_image_is_of_a_fixed_version() -> None:
    others = [service["image"] for name, service in SERVICES.items() if name not in OURS]
    assert others
    assert all(re.fullmatch(r"[a-z/]+:v?\d+(\.\d+)*", image) for image in others)


def test_what_is_mounted_from_the_project_is_there_and_cannot_be_written() -> None:
    mounts = [mount for service in SERVICES.values() for mount in service.get("volumes", [])]
    from_here = [mount.split(":") for mount in mounts if mount.startswith(".")]
    assert from_here
    for source, target, mode in from_here:
        assert (ROOT / source).exists(), source
        assert target.startswith("/")
        assert mode == "ro"


def test_every_volume_secret_and_service_that_is_spoken_of_is_declared() -> None:
    for name, service in SERVICES.items():
        named = {mount.split(":")[0] for mount in service.get("volumes", []) if not mount.startswith(".")}
        assert named <= set(COMPOSE["volumes"]), name
        assert set(service.get("secrets", [])) <= set(COMPOSE["secrets"]), name
        assert set(service.get("depends_on", {})) <= set(SERVICES), name


def test_secrets_come_from_outside_and_those_that_are_needed_are_asked_for() -> None:
    assert all(set(secret) == {"environment"} for secret in COMPOSE["secrets"].values())
    given = {
        name: value
        for service in SERVICES.values()
        for name, value in service.get("environment", {}).items()
        if re.search(r"PASSWORD|SECRET|TOKEN|KEYS?$|STORE_URL", name)
    }
    assert all("${" in value for value in given.values()), given
    assert all(":?" in given[name] for name in ("POSTGRES_PASSWORD", "GF_SECURITY_ADMIN_PASSWORD"))


def test_nobody_looks_at_grafana_without_a_password() -> None:
    environment = SERVICES["grafana"]["environment"]
    assert environment["GF_AUTH_ANONYMOUS_ENABLED"] == environment["GF_USERS_ALLOW_SIGN_UP"] == "false"


@pytest.mark.parametrize("name", OURS)
def test_spans_go_where_jaeger_takes_them_and_nothing_else_does(name: str) -> None:
    environment = SERVICES[name]["environment"]
    endpoint = urlsplit(environment["OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"])
    assert (endpoint.hostname, endpoint.path) == ("jaeger", "/v1/traces")
    assert "OTEL_EXPORTER_OTLP_ENDPOINT" not in environment
    assert JAEGER["receivers"]["otlp"]["protocols"]["http"]["endpoint"].endswith(f":{endpoint.port}")


def test_jaeger_keeps_so_many_traces_and_leaves_their_times_alone() -> None:
    (storage,) = JAEGER["extensions"]["jaeger_storage"]["backends"].values()
    assert 0 < storage["memory"]["max_traces"] <= 100_000
    assert JAEGER["extensions"]["jaeger_query"]["max_clock_skew_adjust"] == "0s"


def test_the_page_leads_to_the_jaeger_that_is_published() -> None:
    trace_url = SERVICES["api"]["environment"]["RIACHO_HTTP_TRACE_URL"]
    port = SERVICES["jaeger"]["ports"][0].rpartition(":")[0]
    assert trace_url == f"http://{port}/trace/{{traceId}}"


def test_prometheus_asks_every_worker_at_the_port_at_which_it_listens() -> None:
    (workers,) = SCRAPES["riacho-worker"]["dns_sd_configs"]
    environment = SERVICES["worker"]["environment"]
    assert workers["names"] == ["worker"]
    assert str(workers["port"]) == environment["RIACHO_METRICS_PORT"]
    assert environment["RIACHO_METRICS_HOST"] == "0.0.0.0"  # noqa: S104 - inside its container


def test_prometheus_shows_the_service_the_key_that_it_is_given() -> None:
    (secret,) = SERVICES["prometheus"]["secrets"]
    assert SCRAPES["riacho-api"]["authorization"]["credentials_file"] == f"/run/secrets/{secret}"


def test_prometheus_asks_services_that_are_there() -> None:
    targets = [
        target
        for job in SCRAPES.values()
        for group in job.get("static_configs", [])
        for target in group["targets"]
    ]
    assert {target.split(":")[0] for target in targets} <= {*SERVICES, "localhost"}


def test_what_prometheus_keeps_is_bounded() -> None:
    command = " ".join(SERVICES["prometheus"]["command"])
    assert "retention.time=" in command
    assert "retention.size=" in command


def test_a_worker_has_time_to_finish_before_it_is_killed() -> None:
    assert int(SERVICES["worker"]["stop_grace_period"].rstrip("s")) > load(environ={}).worker.grace


def test_the_image_holds_every_package() -> None:
    dockerfile = (ROOT / "Dockerfile").read_text()
    project = (ROOT / "pyproject.toml").read_text()
    packages = {name.split(".")[0] for name in re.findall(r'^    "([a-z.]+)",$', project, re.MULTILINE)}
    copied = set(re.findall(r"^COPY (\w+) \1$", dockerfile, re.MULTILINE))
    assert copied == packages & {path.parent.name for path in ROOT.glob("*/__init__.py")} - {"tests"}
