"""/metrics of the API and of workers, as Prometheus gets it: over HTTP, from the processes themselves."""

import asyncio
import contextlib
import http.client
import os
import secrets
import shutil
import socket
import subprocess
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote, urlsplit

import msgspec
import pytest
from opentelemetry.exporter.prometheus import PrometheusMetricReader
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import Metric as Family

from api.timing import HttpFigures
from config.metrics import provider_of
from pipeline import metrics
from pipeline.message import Delivery
from pipeline.outcome import Bury, Ending, Retry, Settled
from pipeline.stage import Batch
from stages.audio.whisper import Figures as AudioFigures
from stages.notification.cloud_api import CloudApi
from tests.figures import API, EVERYONE, WORKER, labels, parsed
from tests.processes import environment, riacho, run, stop
from tests.support import eventually, stage, unused

pytestmark = pytest.mark.integration

PHONE, TENANT = "5511987650000", "padaria-do-largo"


class Deployed(NamedTuple):
    """An API and two worker processes, by the addresses of their figures."""

    api: str
    workers: list[str]
    folder: Path

    @property
    def all(self) -> list[str]:
        return [self.api, *self.workers]


def free_ports(count: int) -> int:
    """The first of so many ports in a row that nobody has, nor gets by chance for a connection of its own."""
    for _ in range(50):
        first = 20_000 + secrets.randbelow(10_000)
        with contextlib.ExitStack() as taken, contextlib.suppress(OSError):
            for n in range(count):
                taken.enter_context(socket.create_server(("127.0.0.1", first + n)))
            return first
    raise AssertionError(f"no {count} free ports in a row")


class Answer(NamedTuple):
    status: int
    headers: dict[str, str]
    body: str


def ask(url: str, method: str = "GET", body: object = None) -> Answer:
    """What is answered there, whatever it is."""
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.netloc, timeout=5)
    with contextlib.closing(connection):
        target = f"{parts.path}?{parts.query}" if parts.query else parts.path
        connection.request(method, target, None if body is None else msgspec.json.encode(body))
        answer = connection.getresponse()
        return Answer(answer.status, dict(answer.headers), answer.read().decode())


def read(url: str) -> str:
    """The body at an address; empty where nobody answers (yet)."""
    with contextlib.suppress(OSError, http.client.HTTPException):
        answer = ask(url)
        return answer.body if answer.status == 200 else ""
    return ""


async def text_at(url: str, *, having: str = "") -> str:
    """What is served there, once something is, with this in it."""

    async def served() -> str:
        text = await asyncio.to_thread(read, url)
        return text if having in text else ""

    return str(await eventually(served, what=f"{url} serving {having}", deadline=40))


@pytest.fixture(scope="module")
def deployed(server: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployed]:
    """Both kinds of process, with some jobs done, one of which failed for good."""
    folder, port, own = tmp_path_factory.mktemp("deployed"), free_ports(2), free_ports(1)
    env = environment(
        REDIS_URL=server,
        RIACHO_REDIS_NAMESPACE=f"test-{secrets.token_hex(6)}",
        RIACHO_DATA_FOLDER=folder,
        RIACHO_METRICS_PORT=port,
        RIACHO_HTTP_PORT=own,
    )
    workers = ("worker", "--processes", "2", "--stages", "send-client")
    urls = [f"http://127.0.0.1:{one}/metrics" for one in (own, port, port + 1)]
    with riacho("api", env=env) as api, riacho(*workers, env=env) as supervisor:
        yield Deployed(urls[0], urls[1:], folder)
        assert [stop(supervisor), stop(api)] == [0, 0]


@pytest.fixture
async def worked(deployed: Deployed) -> Deployed:
    """With jobs that every process had something to do with."""
    await asyncio.gather(*(text_at(url) for url in deployed.all))

    async def both() -> bool:
        await asyncio.to_thread(_enqueue, deployed.api)
        texts = [await asyncio.to_thread(read, url) for url in deployed.workers]
        return all("riacho_jobs_ended_total{" in text for text in texts)

    await eventually(both, what="both workers having work", deadline=40)
    return deployed


def _enqueue(api: str) -> None:
    payload = {"to": PHONE, "text": "Olá"}
    jobs = [{"kind": "send-client", "tenant": TENANT, "key": PHONE, "payload": payload}] * 10
    assert ask(api.replace("/metrics", "/queue/notification/jobs"), "POST", jobs).status == 202


async def test_every_process_serves_what_the_dashboards_ask_for(worked: Deployed) -> None:
    api, *workers = [parsed(await text_at(url)) for url in worked.all]
    check(api, API | EVERYONE, API.keys() | EVERYONE.keys())
    expected = {"riacho_jobs_started", "riacho_jobs_ended", "riacho_job_waiting_seconds", "riacho_settle_size"}
    expected |= {"riacho_worker_slots", "riacho_worker_busy", "messaging_process_duration_seconds"}
    for worker in workers:
        check(worker, WORKER | EVERYONE, expected)
        assert {sample.labels["stage"] for sample in worker["riacho_worker_slots"].samples} == {"send-client"}
    instances = {family["target_info"].samples[0].labels["service_instance_id"] for family in (api, *workers)}
    names = [family["target_info"].samples[0].labels["service_name"] for family in (api, *workers)]
    assert len(instances) == 3
    assert names == ["riacho-api", "riacho-worker", "riacho-worker"]


def check(found: dict[str, Family], allowed: dict[str, Any], expected: Any) -> None:
    """Fails on a name or label that the contract does not have, or that is missing."""
    assert found.keys() <= allowed.keys()
    assert found.keys() >= set(expected)
    for name, family in found.items():
        assert family.documentation, name
        if allowed[name] is not None:
            assert labels(family) <= allowed[name], name


async def test_nothing_tells_of_a_tenant_or_of_a_customer(worked: Deployed) -> None:
    for url in worked.all:
        text = await text_at(url)
        assert TENANT not in text
        assert PHONE not in text


async def test_a_worker_serves_its_figures_and_nothing_else(worked: Deployed) -> None:
    url = worked.workers[0]
    answer = await asyncio.to_thread(ask, url)
    assert answer.headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
    assert (answer.headers["X-Content-Type-Options"], answer.headers["Cache-Control"]) == ("nosniff", "no-store")
    for other in (url.replace("/metrics", "/"), f"{url}/x"):
        assert (await asyncio.to_thread(ask, other)).status == 404
    assert (await asyncio.to_thread(ask, url, "POST", "x" * 5_000)).status == 405


def program(name: str) -> str:
    """Of Debian's package prometheus."""
    found = shutil.which(name)
    if not found:
        pytest.skip(f"there is no {name} on this machine (Debian's package prometheus)")
    return found


def promtool(text: str) -> "subprocess.CompletedProcess[str]":
    command = [program("promtool"), "check", "metrics"]
    return subprocess.run(command, input=text, capture_output=True, text=True, timeout=30, check=False)


async def test_promtool_has_nothing_against_what_is_served(worked: Deployed) -> None:
    for url in worked.all:
        checked = promtool(await text_at(url))
        assert (checked.returncode, checked.stdout + checked.stderr) == (0, "")


async def test_a_real_prometheus_takes_the_figures_of_every_process(worked: Deployed, tmp_path: Path) -> None:
    async with prometheus(worked, tmp_path) as query:

        async def all_up() -> list[Any]:
            found = await asyncio.to_thread(query, "up == 1")
            return found if len(found) == 3 else []

        await eventually(all_up, what="Prometheus having scraped all three", deadline=40)
        for asked in (
            "riacho_stage_jobs{queue='notification',stage='send-client',state='waiting'}",
            "sum(riacho_jobs_ended_total{outcome='completed'}) > 0",
            "histogram_quantile(0.99, sum by (le) (messaging_process_duration_seconds_bucket))",
        ):

            async def answered(asked: str = asked) -> list[Any]:
                return await asyncio.to_thread(query, asked)

            await eventually(answered, what=asked)


@contextlib.asynccontextmanager
async def prometheus(deployed: Deployed, folder: Path) -> AsyncIterator[Any]:
    """A Prometheus of this test's own; what answers its queries."""
    binary, port = program("prometheus"), free_ports(1)
    targets = [url.removeprefix("http://").removesuffix("/metrics") for url in deployed.all]
    config = {
        "global": {"scrape_interval": "1s", "scrape_timeout": "1s"},
        "scrape_configs": [{"job_name": "riacho", "static_configs": [{"targets": targets}]}],
    }
    (folder / "prometheus.yml").write_bytes(msgspec.json.encode(config))  # YAML, too
    command = [
        binary,
        f"--config.file={folder / 'prometheus.yml'}",
        f"--storage.tsdb.path={folder / 'data'}",
        f"--web.listen-address=127.0.0.1:{port}",
        "--log.level=error",
    ]

    def query(query: str) -> list[Any]:
        text = read(f"http://127.0.0.1:{port}/api/v1/query?query={quote(query)}")
        return list(msgspec.json.decode(text)["data"]["result"]) if text else []

    process = await asyncio.create_subprocess_exec(*command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        yield query
    finally:
        process.kill()
        await process.wait()


def test_a_worker_without_a_port_for_figures_has_no_provider_and_listens_nowhere(
    env: dict[str, str], tmp_path: Path
) -> None:
    with socket.create_server(("127.0.0.1", 0)):
        assert listening(os.getpid()), "that is how it would be seen"
    with worker(env, tmp_path) as (process, log):
        assert listening(process.pid) == []
        assert stop(process) == 0
    assert "figures on" not in log.read_text()


def test_a_worker_whose_port_is_taken_says_so_aloud_and_works(env: dict[str, str], tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with worker(env | {"RIACHO_METRICS_PORT": str(port)}, tmp_path) as (process, log):
            assert stop(process) == 0
    said = log.read_text()
    assert f"NOBODY CAN WATCH THIS WORKER, which works on: cannot serve /metrics on 127.0.0.1:{port}" in said
    assert "Address already in use" in said
    assert "set RIACHO_METRICS_PORT to" in said
    assert "Traceback" not in said


def test_a_port_there_is_not_is_said_to_be_none(env: dict[str, str]) -> None:
    ended = run("worker", env=env | {"RIACHO_METRICS_PORT": "65536"})
    assert ended.returncode == 3
    assert "setting metrics.port = '65536'" in ended.stderr


@contextlib.contextmanager
def worker(env: dict[str, str], folder: Path) -> Iterator[tuple["subprocess.Popen[bytes]", Path]]:
    """One that has begun to work, and its log."""
    log = folder / "worker.log"
    with log.open("wb") as stderr, riacho("worker", "--stages", "send-client", env=env, stderr=stderr) as process:
        asyncio.run(eventually(lambda: _says(log, "working notification.send-client"), what="it", deadline=40))
        yield process, log


async def _says(log: Path, words: str) -> bool:
    return words in log.read_text()


def listening(pid: int) -> list[str]:
    """The TCP ports on which a process listens (Linux)."""
    inodes = set()
    for link in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):
            inodes.add(str(link.readlink()))
    rows = [line.split() for line in Path(f"/proc/{pid}/net/tcp").read_text().splitlines()[1:]]
    return [row[1] for row in rows if row[3] == "0A" and f"socket:[{row[9]}]" in inodes]


class AnyModel:
    name, device = "base", "cpu"


async def test_every_name_is_as_dashboards_have_it(monkeypatch: pytest.MonkeyPatch) -> None:
    registry = CollectorRegistry()
    provider = provider_of("test", [PrometheusMetricReader(scope_info_enabled=False, registry=registry)])
    monkeypatch.setattr(metrics, "provider", lambda: provider)
    one = stage("one", unused, batch=Batch(size=2))
    job = Delivery("one", 0, b"1-0", b"", 1, started=1.0)
    work, sending = metrics.work(), metrics.sending()
    assert work
    assert sending

    class Lane:
        stage, busy = one, 0

    work.watch([lane := Lane()])
    work.fetched(one, 1)
    work.began(one, [job])
    work.tried(one, 1.0, [None], "OSError")
    endings: dict[str, Ending] = {
        "settled": Settled(msgspec.Raw(b"\xc0")),
        "retried": Retry(1.0),
        "buried": Bury("x"),
    }
    for what, ending in endings.items():
        work.settled(one, what, [(job, ending)], 1)
    sending.sent(one, 1)
    sending.called({"script": "add"}, 1.0)
    AudioFigures(AnyModel()).called(1.0, 2.0)  # type: ignore[arg-type]
    AudioFigures(AnyModel()).heard(2.0)  # type: ignore[arg-type]
    CloudApi()._count("accepted")
    HttpFigures(metrics.meter()).took("GET", "/metrics", 200, 1.0)
    text = generate_latest(registry).decode()
    del lane
    found = parsed(text)
    told = WORKER.keys() | EVERYONE.keys() | {"http_server_request_duration_seconds"}
    check(found, WORKER | EVERYONE | API, told)
    for name, family in found.items():
        if name in WORKER:
            assert labels(family) == WORKER[name]
    checked = promtool(text)
    assert (checked.returncode, checked.stdout + checked.stderr) == (0, "")
