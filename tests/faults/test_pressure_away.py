"""Redis stops, is gone, or forgets: who asks how things are is told so within a second, and it goes on after."""

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from api import watching
from api.demo import Said, event
from api.root import PATIENCE
from api.signatures import sign
from tests.desk import APP_SECRET, Client, service, settings_of, to_client
from tests.faults.servers import OwnServer
from tests.support import eventually

pytestmark = pytest.mark.faults

ASKED = ("/backpressure", "/queue/status", "/metrics", "/readyz")
JOB = to_client("5511987650000")


@pytest.fixture(autouse=True)
def counting_often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watching, "COUNT_EVERY", 0.05)


@pytest.fixture
async def client(own: OwnServer, tmp_path: Path) -> AsyncIterator[Client]:
    async with service(settings_of(own.url, "riacho", tmp_path)) as client:
        await eventually(lambda: answers(client), what="answers")
        yield client


async def answers(client: Client) -> bool:
    return await statuses(client) == {200}


async def statuses(client: Client) -> set[int]:
    """Of questions, of jobs that come one by one (by the short way), in a list, and of a webhook."""

    async def status(method: str, path: str, **body: Any) -> int:
        async with client.request(method, path, **body) as answer:
            if answer.status == 503:
                assert answer.headers["Retry-After"] == "1"
            return 200 if answer.status == 202 else answer.status

    body = msgspec.json.encode(event(Said("5511987654321", text="Olá")))
    signed = {"X-Hub-Signature-256": sign(body, APP_SECRET)}
    asked = [status("GET", path) for path in ASKED]
    posted = [status("POST", "/queue/notification/jobs", json=jobs) for jobs in (JOB, JOB, [JOB, JOB])]
    webhook = status("POST", "/webhooks/whatsapp", data=body, headers=signed)
    return set(await asyncio.gather(*asked, *posted, webhook))


async def refused_in_time(client: Client) -> None:
    await asyncio.sleep(watching.FRESH)  # an answer of before is good as long
    began = time.monotonic()
    assert await statuses(client) == {503}
    assert time.monotonic() - began < PATIENCE + 1, "the machine is noisy"


async def rates(client: Client) -> dict[str, Any]:
    async with client.get("/backpressure") as answer:
        (queue,) = [queue for queue in (await answer.json())["queues"] if queue["queue"] == "notification"]
    return {name: queue[name] for name in ("in1m", "out1m", "in5m", "out5m")}


async def test_a_server_that_stands_still_is_one_that_is_away(own: OwnServer, client: Client) -> None:
    assert PATIENCE < 1
    info: dict[str, Any] = await own.ask("INFO", "server")
    os.kill(info["process_id"], signal.SIGSTOP)
    try:
        await refused_in_time(client)
        await refused_in_time(client)
    finally:
        os.kill(info["process_id"], signal.SIGCONT)
    await eventually(lambda: answers(client))


async def test_a_server_that_is_gone_comes_back_without_its_counters(own: OwnServer, client: Client) -> None:
    (await client.post("/queue/notification/jobs", json=[to_client("5511987650000")] * 9)).raise_for_status()

    async def counted() -> bool:
        return bool((await rates(client))["in1m"])

    await eventually(counted)
    await own.stop()
    await refused_in_time(client)
    await own.start()
    await eventually(lambda: answers(client))
    await own.ask("FLUSHALL")
    for _ in range(3):
        await asyncio.sleep(watching.FRESH)
        assert min((await rates(client)).values()) >= 0
    assert (await rates(client))["in1m"] > 0, "what came before it forgot came all the same"
