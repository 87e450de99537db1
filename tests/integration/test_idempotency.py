"""Idempotency-Key over HTTP: asking twice for the same is asking once."""

import asyncio
from typing import Any

import aiohttp
import msgspec
import pytest
from aiohttp.test_utils import TestClient
from redis.asyncio import Redis

from api.access import new_key
from api.adapters import Adapters
from api.app import build_app
from api.root import connector
from pipeline import Broker, Pipeline
from tests.desk import Client, Serve, Served, WithSettings, to_client

pytestmark = pytest.mark.integration

PATH = "/queue/notification/jobs"
JOB, OTHER = to_client("5511987654321"), to_client("5511987654322")
KEYS = {name: new_key() for name in ("shop", "till", "boss")}
SCOPES = {"shop": "enqueue", "till": "enqueue", "boss": "admin"}
HASHES = {name: {"hash": hashed, "scopes": [SCOPES[name]]} for name, (_, hashed) in KEYS.items()}


async def post(
    client: Client, body: Any, key: str = "k-1", *, path: str = PATH, caller: str = "shop"
) -> tuple[int, Any, str | None]:
    """Status, body and Idempotency-Replayed of the answer."""
    headers = {"Authorization": f"Bearer {KEYS[caller][0]}", "Idempotency-Key": key}
    answer: aiohttp.ClientResponse = await client.post(path, json=body, headers=headers)
    return answer.status, await answer.json(content_type=None), answer.headers.get("Idempotency-Replayed")


async def waiting(client: Client) -> int:
    headers = {"Authorization": f"Bearer {KEYS['boss'][0]}"}
    queues = (await (await client.get("/queue/status", headers=headers)).json())["queues"]
    return sum(queue["waiting"] for queue in queues)


async def test_the_same_key_and_body_give_the_same_job(serve: Serve) -> None:
    async with serve(keys=HASHES) as client:
        status, first, replayed = await post(client, JOB)
        assert (status, first.keys(), replayed) == (202, {"jobId"}, None)
        assert await post(client, JOB) == (202, first, "true")
        assert await post(client, JOB, '"k-1"') == (202, first, "true"), "in quotes, as the draft has it"
        assert (await post(client, JOB, "k-2"))[1] != first
        assert await waiting(client) == 2


async def test_each_of_a_list_is_added_once_though_two_are_alike(serve: Serve) -> None:
    wrong = {"kind": "send-client", "payload": {"to": 5}}
    async with serve(keys=HASHES) as client:
        status, first, replayed = await post(client, [JOB, wrong, JOB, OTHER])
        assert (status, replayed) == (202, None)
        assert len({each["jobId"] for each in (first[0], first[2], first[3])}) == 3
        assert first[1]["status"] == 400
        assert await post(client, [JOB, wrong, JOB, OTHER]) == (202, first, "true")
        assert await waiting(client) == 3


async def test_another_body_or_path_under_the_same_key_is_refused(serve: Serve) -> None:
    async with serve(keys=HASHES) as client:
        await post(client, {}, "k-3", path="/queue/cleanup/logs", caller="boss")
        await post(client, JOB)
        for answer in (
            await post(client, OTHER),
            await post(client, [JOB]),
            await post(client, {}, "k-3", path="/queue/cleanup/conversations", caller="boss"),
        ):
            assert (answer[0], answer[1]["title"]) == (422, "Unprocessable content")
            assert "take a new one for each" in answer[1]["detail"]
        assert await waiting(client) == 2


async def test_a_chore_is_asked_for_once(serve: Serve) -> None:
    async with serve(keys=HASHES) as client:
        asked = {"path": "/queue/cleanup/logs", "caller": "boss"}
        status, first, _ = await post(client, {"dry_run": True}, **asked)
        assert status == 202
        assert await post(client, {"dry_run": True}, **asked) == (202, first, "true")


async def test_callers_have_their_own_keys(serve: Serve) -> None:
    async with serve(keys=HASHES) as client:
        _, first, _ = await post(client, JOB)
        status, other, replayed = await post(client, JOB, caller="till")
        assert (status, replayed) == (202, None)
        assert other != first
        assert (await post(client, OTHER, "k-4", caller="till"))[0] == 202


async def test_without_api_keys_there_is_one_caller(serve: Serve) -> None:
    async with serve() as client:
        _, first, _ = await post(client, JOB)
        assert await post(client, JOB) == (202, first, "true")


async def test_two_requests_at_a_time_give_one_job(serve: Serve) -> None:
    async with serve(keys=HASHES) as client:
        answers = await asyncio.gather(*(post(client, JOB) for _ in range(10)))
        assert len({body["jobId"] for _, body, _ in answers}) == 1
        assert await waiting(client) == 1


async def test_a_job_with_an_id_of_its_own_is_known_by_it(serve: Serve) -> None:
    async with serve(keys=HASHES) as client:
        _, first, _ = await post(client, JOB | {"id": "order-7"})
        known = {**first, "duplicate": True}
        assert await post(client, JOB | {"id": "order-7"}) == (202, known, "true")
        assert await post(client, JOB | {"id": "order-7"}, "k-5") == (202, known, None), "not for its key"


@pytest.mark.parametrize("key", ["", "k" * 256])
async def test_what_is_no_key_is_refused(serve: Serve, key: str) -> None:
    async with serve(keys=HASHES) as client:
        status, body, _ = await post(client, JOB, key)
        assert (status, body["title"]) == (400, "Bad request")
        assert await waiting(client) == 0


async def test_what_was_refused_is_taken_under_the_same_key_later(settings: WithSettings) -> None:
    here = settings(http={"keys": HASHES})
    async with connector(here, _with_room_for(1, Adapters(here).pipeline()))() as broker:
        log = Adapters(here).notifications.log
        async with TestClient(Served(build_app(broker, here, log), here)) as client:
            status, (first, refused), _ = await post(client, [JOB, OTHER], "k-6")
            assert (status, refused["status"]) == (202, 429)
            assert (await post(client, JOB, "k-7"))[0] == 429
            await broker.clear([broker.pipeline.stage("send-client")])
            status, (same, taken), replayed = await post(client, [JOB, OTHER], "k-6")
            assert (status, same, taken.keys(), replayed) == (202, first, {"jobId"}, None)
            await broker.clear([broker.pipeline.stage("send-client")])
            status, later, replayed = await post(client, JOB, "k-7")
            assert (status, replayed) == (202, None)
            assert await post(client, JOB, "k-7") == (202, later, "true")


def _with_room_for(count: int, pipeline: Pipeline) -> Pipeline:
    return Pipeline(msgspec.structs.replace(stage, high_water=count) for stage in pipeline)


async def test_a_mistake_in_the_body_leaves_the_key_free(serve: Serve) -> None:
    async with serve(keys=HASHES) as client:
        assert (await post(client, {"kind": "send-client", "payload": {}}))[0] == 400
        assert (await post(client, JOB))[0] == 202


async def test_a_crash_before_the_job_was_added_is_made_good_by_asking_again(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with serve(keys=HASHES) as client:
        with monkeypatch.context() as patched:
            patched.setattr(Broker, "add", _crash)
            assert (await post(client, JOB))[0] == 500
        assert (await post(client, OTHER))[0] == 422
        status, _, replayed = await post(client, JOB)
        assert (status, replayed) == (202, None)
        assert await waiting(client) == 1


async def _crash(*_: object) -> None:
    raise RuntimeError("the lights went out")


async def test_what_is_kept_of_a_key_is_gone_after_a_day(serve: Serve, redis: Redis, namespace: str) -> None:
    async with serve(keys=HASHES) as client:
        await post(client, JOB)
    (kept,) = [key async for key in redis.scan_iter(match=f"{{{namespace}:request:*")]
    assert 86_390_000 < await redis.pttl(kept) <= 86_400_000
    assert await redis.strlen(kept) == 40
