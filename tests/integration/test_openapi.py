"""/openapi.json: it is valid, it has all that there is and nothing else, and the service keeps to it."""

import asyncio
import re
import sys
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer, make_mocked_request
from yarl import URL

from api import access, probes
from api.access import new_key
from api.adapters import Adapters
from api.app import build_app
from api.description import DOCUMENT
from api.openapi import Undescribed, document
from api.operations import Answer, Operation
from api.root import connector
from tests.desk import Client, service, settings_of
from tests.document import KEPT, Document, Part, invalid, read

pytestmark = pytest.mark.integration

KEY, HASH = new_key()
KEYS = {"http": {"keys": {"admin": {"hash": HASH, "scopes": ["admin"]}}}}
EXAMPLES = {"name": "send-client", "jobId": "send-client.0.1795363715263-0", "queue": "notification"}
EXAMPLES |= {"file": "page.css", "tenant": "padaria"}
CONFIG = Path(__file__).with_name("schemathesis.toml")


@pytest.fixture
async def app(server: str, namespace: str, tmp_path: Path) -> AsyncIterator[web.Application]:
    settings = settings_of(server, namespace, tmp_path, **KEYS)
    adapters = Adapters(settings)
    async with connector(settings, adapters.pipeline())() as broker:
        yield build_app(broker, settings, adapters.notifications.log)
    await adapters.database.aclose()


@pytest.fixture
def told(app: web.Application) -> Document:
    return read(app[DOCUMENT])


async def test_it_is_served_to_whoever_asks(app: web.Application) -> None:
    async with TestClient(TestServer(app)) as client:
        answer = await client.get("/openapi.json")
        assert (answer.status, answer.content_type, await answer.read()) == (
            200,
            "application/json",
            app[DOCUMENT],
        )


async def test_it_is_valid(told: Document) -> None:
    assert invalid(told.body) == []
    names = [operation["operationId"] for operation in told.operations.values()]
    assert [name for name, count in Counter(names).items() if count > 1] == []


async def test_every_route_is_in_it_and_nothing_else(app: web.Application, told: Document) -> None:
    routes = {route for route in app.router.routes() if route.method != "HEAD"}
    found = set()
    for method, path in told.operations:
        request = make_mocked_request(method, str(URL(path.format_map(EXAMPLES))))
        match = await app.router.resolve(request)
        assert match.http_exception is None, f"{method} {path} leads nowhere"
        found.add(match.route)
    assert found == routes


async def test_other_methods_are_refused_and_those_there_are_named(app: web.Application, told: Document) -> None:
    async with TestClient(TestServer(app)) as client:
        for path in told.body["paths"]:
            answer = await client.put(URL(path.format_map(EXAMPLES)))
            assert answer.status == 405, path
            named = {method for method, known in told.operations if known == path}
            assert named <= set(answer.headers["Allow"].split(",")), path


def schemas_with_examples(told: Document) -> Iterator[tuple[str, Part, Any]]:
    for (method, path), operation in told.operations.items():
        contents = [operation.get("requestBody", {}), *map(told.resolved, operation["responses"].values())]
        for content in [kind for part in contents for kind in part.get("content", {}).values()]:
            given = [each["value"] for each in content.get("examples", {}).values()]
            for example in given + ([content["example"]] if "example" in content else []):
                yield f"{method} {path}", content["schema"], example
        for parameter in operation.get("parameters", []):
            if "example" in parameter:
                yield f"{method} {path}", parameter["schema"], parameter["example"]


async def test_its_examples_are_what_it_describes(told: Document) -> None:
    examples = list(schemas_with_examples(told))
    assert len(examples) > 20
    assert [(where, wrong) for where, schema, value in examples if (wrong := told.errors(schema, value))] == []


async def test_its_examples_of_jobs_are_taken(server: str, namespace: str, tmp_path: Path) -> None:
    async with service(settings_of(server, namespace, tmp_path, **KEYS)) as client:
        assert client.app
        told = read(client.app[DOCUMENT])
        for queue in ("audio", "notification", "cleanup"):
            operation = told.operations["POST", f"/queue/{queue}/jobs"]
            examples = operation["requestBody"]["content"]["application/json"]["examples"]
            jobs = [example["value"] for example in examples.values()]
            answer = await post(client, f"/queue/{queue}/jobs", jobs)
            assert [set(each) for each in answer] == [{"jobId"}] * len(jobs)


async def post(client: Client, path: str, body: Any) -> Any:
    answer = await client.post(path, json=body, headers={"Authorization": f"Bearer {KEY}"})
    assert answer.status == 202
    return await answer.json()


async def test_a_job_is_described_by_its_kind(told: Document) -> None:
    body = told.operations["POST", "/queue/notification/jobs"]["requestBody"]
    schema = body["content"]["application/json"]["schema"]
    good = {"kind": "send-client", "payload": {"to": "5511987654321", "text": "Olá"}}
    assert told.errors(schema, good) == told.errors(schema, [good]) == []
    wrong: list[Any] = [
        good | {"kind": "transcribe"},
        good | {"payload": {"to": "5511987654321"}},
        good | {"payload": {"source": "whatsapp:1"}},
        good | {"priority": 1},
        good | {"delay": -1},
        {"payload": good["payload"]},
        [],
    ]
    assert [each for each in wrong if not told.errors(schema, each)] == []


async def test_what_a_key_needs_is_said(told: Document) -> None:
    needs = {where: operation["security"] for where, operation in told.operations.items()}
    assert needs["GET", "/queue/status"] == [{"key": ["read"]}]
    assert needs["POST", "/queue/audio/jobs"] == [{"key": ["enqueue"]}]
    assert needs["POST", "/queue/cleanup/jobs"] == needs["POST", "/queue/cleanup/stats"] == [{"key": ["admin"]}]
    assert needs["GET", "/healthz"] == needs["POST", "/webhooks/whatsapp"] == []


async def unused(_: web.Request) -> web.Response:
    raise AssertionError("nobody asks")


@pytest.mark.parametrize(
    "about",
    [
        {"path": "/secret/{name}"},
        {"summary": ""},
        {"group": "no such group"},
        {"answers": {}},
    ],
)
def test_an_operation_that_is_not_described_is_refused_at_the_start(about: dict[str, Any]) -> None:
    whole: dict[str, Any] = {
        "method": "GET",
        "path": "/secret",
        "handler": unused,
        "scope": "admin",
        "group": "look",
        "name": "secret",
        "summary": "What nobody knows",
        "answers": {200: Answer(description="It.")},
    }
    assert "/secret" in document([Operation(**whole)])["paths"]
    with pytest.raises(Undescribed, match=r"GET /secret"):
        document([Operation(**whole | about)])


async def schemathesis(client: Client, folder: Path, *options: str) -> tuple[int, str]:
    """Its exit code, and what it says of a running service."""
    command = [sys.executable, "-m", "schemathesis.cli", "--config-file", str(CONFIG), "run"]
    process = await asyncio.create_subprocess_exec(
        *command,
        str(client.make_url("/openapi.json")),
        f"--header=Authorization: Bearer {KEY}",
        "--no-color",
        *options,
        cwd=folder,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    said, _ = await process.communicate()
    return process.returncode or 0, said.decode()


@pytest.mark.timeout(240)  # where others keep the machine busy
async def test_the_service_keeps_to_it_whatever_is_asked(
    server: str, namespace: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(probes, "TIMEOUT", 0.05)  # nobody works here, and seconds each are too many
    monkeypatch.setattr(access, "WRONG_KEYS_A_MINUTE", 10_000)  # a quick machine tries more wrong keys than 20
    async with service(settings_of(server, namespace, tmp_path, **KEYS)) as client:
        code, said = await schemathesis(client, tmp_path, "--seed=7")
        assert client.app
        failed = client.app[KEPT].failed
    assert code == 0, said
    found = re.search(r"([0-9]+) generated", said)
    assert found, said
    assert int(found[1]) > 300, said
    # It drains stages, too, which take nothing in from then on. Nothing else may have failed.
    assert [each for each in failed if "is being drained" not in each["detail"]] == []
