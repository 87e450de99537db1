"""API keys on a real socket: which scope opens which route, and what happens without any key."""

import logging
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer

from api.access import WRONG_KEYS_A_MINUTE, Access, Undeclared, new_key
from api.adapters import Adapters
from api.app import build_app
from api.root import connector
from config import Secret, Settings, load, replaced
from tests.desk import Client, Serve, service, settings_of, to_client

pytestmark = pytest.mark.integration


SCOPES = ("read", "enqueue", "admin")
KEYS = {scope: new_key() for scope in SCOPES}
HASHES = {scope: {"hash": hashed, "scopes": [scope]} for scope, (_, hashed) in KEYS.items()}
SEND = to_client("5511987654321")
OPEN = ("/healthz", "/readyz", "/", "/page/{file}", "/docs", "/openapi.json")
FREE = {("GET", "/webhooks/whatsapp"), ("POST", "/webhooks/whatsapp")} | {
    (method, path) for method in ("GET", "HEAD") for path in OPEN
}


def bearer(scope: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {KEYS[scope][0]}"}


async def problem(answer: aiohttp.ClientResponse) -> tuple[int, str]:
    assert answer.content_type == "application/problem+json"
    body = await answer.json(content_type=None)
    assert body["status"] == answer.status
    return answer.status, body["detail"]


async def statuses(client: Client, headers: dict[str, str]) -> tuple[int, int]:
    """Of a question and of a job."""
    asked = await client.get("/queue/status", headers=headers)
    put = await client.post("/queue/notification/jobs", json=SEND, headers=headers)
    return asked.status, put.status


@pytest.mark.parametrize(
    ("scope", "expected"), [("read", (200, 403)), ("enqueue", (403, 202)), ("admin", (200, 202))]
)
async def test_a_key_opens_what_its_scopes_say(serve: Serve, scope: str, expected: tuple[int, int]) -> None:
    async with serve(keys=HASHES) as client:
        assert await statuses(client, bearer(scope)) == expected


@pytest.mark.parametrize("path", ["/queue/cleanup/jobs", "/queue/cleanup/%6Aobs", "/queue/cl%65anup/jobs"])
async def test_what_deletes_takes_an_admin_however_it_is_asked_for(serve: Serve, path: str) -> None:
    job = {"kind": "conversations", "payload": {"days": 0.1}}
    async with serve(keys=HASHES) as client:
        url = client.make_url("/").with_path(path, encoded=True)
        assert (await client.session.post(url, json=job, headers=bearer("enqueue"))).status == 403
        assert (await client.session.post(url, json=job, headers=bearer("admin"))).status == 202
        task = await client.post("/queue/cleanup/conversations", headers=bearer("enqueue"))
        assert task.status == 403


async def test_too_small_a_scope_is_told_with_the_one_it_takes(serve: Serve) -> None:
    async with serve(keys=HASHES) as client:
        answer = await client.post("/queue/notification/jobs", json=SEND, headers=bearer("read"))
        assert 'error="insufficient_scope", scope="enqueue"' in answer.headers["WWW-Authenticate"]
        assert await problem(answer) == (403, "This takes a key with the scope enqueue.")


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Authorization": ""},
        {"Authorization": "Bearer"},
        {"Authorization": f"Bearer {new_key()[0]}"},
        {"Authorization": f"Bearer {KEYS['admin'][1]}"},
        {"Authorization": f"Bearer {KEYS['admin'][0]}x"},
        {"Authorization": f"Basic {KEYS['admin'][0]}"},
        {"Authorization": KEYS["admin"][0]},
        {"Authorization": "Bearer ü"},
        {"X-Api-Key": KEYS["admin"][0]},
    ],
)
async def test_without_a_known_key_nobody_gets_in(serve: Serve, headers: dict[str, str]) -> None:
    async with serve(keys=HASHES) as client:
        answer = await client.get("/queue/status", headers=headers)
        assert answer.headers["WWW-Authenticate"].startswith('Bearer realm="riacho"')
        assert (await problem(answer))[0] == 401
        query = await client.get("/queue/status", params={"access_token": KEYS["admin"][0]})
        assert query.status == 401


async def test_two_keys_in_one_request_are_none(serve: Serve) -> None:
    async with serve(keys=HASHES) as client:
        headers = [("Authorization", bearer(scope)["Authorization"]) for scope in ("read", "admin")]
        assert (await client.get("/queue/status", headers=headers)).status == 401


async def test_old_and_new_keys_hold_side_by_side_until_the_old_one_is_taken_out(serve: Serve) -> None:
    old, new = ({"hash": KEYS[which][1], "scopes": ["read", "enqueue"]} for which in ("read", "enqueue"))
    async with serve(keys={"shop-2025": old, "shop-2026": new}) as client:
        assert await statuses(client, bearer("read")) == (200, 202)
        assert await statuses(client, bearer("enqueue")) == (200, 202)
    async with serve(keys={"shop-2026": new}) as client:
        assert await statuses(client, bearer("read")) == (401, 401)
        assert await statuses(client, bearer("enqueue")) == (200, 202)


async def test_webhooks_and_probes_take_no_key(serve: Serve) -> None:
    async with serve(keys=HASHES) as client:
        assert (await client.get("/healthz")).status == (await client.get("/readyz")).status == 200
        assert "X-Hub-Signature-256" in (await problem(await client.post("/webhooks/whatsapp", data=b"{}")))[1]
        assert (await client.get("/nothing/here")).status == 404


async def test_who_tries_wrong_keys_is_told_to_wait_and_a_right_one_still_opens(serve: Serve) -> None:
    wrong = {"Authorization": f"Bearer {new_key()[0]}"}
    async with serve(keys=HASHES) as client:
        for _ in range(WRONG_KEYS_A_MINUTE // 2):  # of both ways in
            assert await statuses(client, wrong) == (401, 401)
        answer = await client.post("/queue/notification/jobs", json=SEND, headers=wrong)
        assert await problem(answer) == (
            429,
            "Too many keys that are not known here came from there; try again in 3 s.",
        )
        assert answer.headers["Retry-After"] == "3"
        assert (await client.get("/queue/status")).status == 401, "no key is no wrong one"
        assert await statuses(client, bearer("admin")) == (200, 202)


@pytest.fixture
async def app(server: str, namespace: str, tmp_path: Path) -> AsyncIterator[web.Application]:
    settings = settings_of(server, namespace, tmp_path, http={"keys": HASHES})
    adapters = Adapters(settings)
    async with connector(settings, adapters.pipeline())() as broker:
        yield build_app(broker, settings, adapters.notifications.log)
    await adapters.database.aclose()


async def test_every_route_but_webhooks_probes_and_the_page_takes_a_key(app: web.Application) -> None:
    routes = {(route.method, route.resource.canonical) for route in app.router.routes() if route.resource}
    assert routes > FREE
    async with TestClient(TestServer(app)) as client:
        for method, path in routes - FREE:
            answer = await client.request(method, path.replace("{", "").replace("}", ""))
            assert answer.status == 401, f"{method} {path}"


async def anybody(_: web.Request) -> web.Response:
    return web.Response(text="come in")


def test_a_route_that_says_neither_scope_nor_purpose_is_refused_at_the_start() -> None:
    access, app = Access(load(environ={}).http), web.Application()
    app.add_routes([web.get("/secret", anybody)])
    with pytest.raises(Undeclared, match=r"/secret.* was added without its Operation"):
        access.check(app)


async def test_a_route_that_was_slipped_in_later_lets_nobody_through(app: web.Application) -> None:
    app.add_routes([web.get("/secret", anybody)])
    async with TestClient(TestServer(app)) as client:
        assert (await client.get("/secret", headers=bearer("admin"))).status == 500


# ── without keys ─────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("host", ["127.0.0.1:8080", "LOCALHOST:1", "[::1]:8080", "box.lan", "Box.lan:80"])
async def test_without_keys_this_machine_is_served_under_its_names(serve: Serve, host: str) -> None:
    async with serve(hosts=["box.lan"]) as client:
        assert await statuses(client, {"Host": host}) == (200, 202)
        assert await statuses(client, {"Host": host, "Origin": f"http://{host}"}) == (200, 202)


@pytest.mark.parametrize(
    "host",
    ["rebound.example:8080", "127.0.0.1.example", "192.0.2.7", "", "[::1", "localhost@x.y"],
)
async def test_without_keys_a_name_that_was_made_to_resolve_to_us_is_refused(serve: Serve, host: str) -> None:
    async with serve() as client:
        for path in ("/queue/status", "/queue/scheduled-jobs"):
            answer = await client.get(path, headers={"Host": host, "Origin": f"http://{host}"})
            assert (await problem(answer))[0] == 403
        assert (await client.get("/healthz", headers={"Host": host})).status == 200
    async with serve(keys=HASHES) as client:
        assert await statuses(client, bearer("admin") | {"Host": "api.example"}) == (200, 202), "a key is enough"


@pytest.mark.parametrize("origin", ["https://evil.example", "null", "", "http://127.0.0.1:1", "http://localhost"])
async def test_without_keys_pages_of_other_origins_cannot_post(serve: Serve, origin: str) -> None:
    async with serve() as client:
        assert await statuses(client, {"Origin": origin}) == (403, 403)
    async with serve(open=True) as client:
        assert await statuses(client, {"Origin": origin}) == (403, 403)


async def test_a_service_that_is_open_answers_under_any_name(serve: Serve) -> None:
    async with serve(open=True) as client:
        assert await statuses(client, {"Host": "api.example"}) == (200, 202)


# ── a key shows itself nowhere ───────────────────────────────────────────────────────────────────


@pytest.fixture
def gone(tmp_path: Path) -> Settings:
    settings = load({"http": {"keys": HASHES}, "data": {"folder": str(tmp_path)}}, environ={})
    return replaced(settings, redis={"url": Secret(f"unix://{tmp_path}/gone.sock")})


async def test_a_key_shows_itself_in_no_log_and_no_answer(
    serve: Serve, gone: Settings, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level(logging.DEBUG)
    said = []
    async with serve(keys=HASHES) as client:
        for scope in SCOPES:
            for path in ("/queue/status", "/queue/job/audio/nonsense", "/nothing"):
                answer = await client.get(path, headers=bearer(scope))
                said.append(f"{answer.headers} {await answer.text()}")

        def fail(_: object) -> None:
            raise ValueError("no")

        with monkeypatch.context() as broken:
            broken.setattr("api.watching.Watch.seen", fail)
            assert (await client.get("/queue/status", headers=bearer("read"))).status == 500
    async with service(gone) as client:
        assert (await client.get("/queue/status", headers=bearer("read"))).status == 503
    ours = [str(record.__dict__) for record in caplog.records if record.name != "aiohttp.client"]
    shown = "\n".join([*said, *ours, caplog.text, repr(gone)])
    assert "failed" in caplog.text
    assert [scope for scope in SCOPES if KEYS[scope][0] in shown] == []
