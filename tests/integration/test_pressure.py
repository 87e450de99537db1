"""GET /queue/status, /backpressure and /metrics; what is refused over HTTP, and taken again."""

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest
import yaml
from aiohttp.test_utils import TestClient, TestServer
from prometheus_client.parser import text_string_to_metric_families

from api import watching
from api.adapters import Adapters
from api.app import build_app
from api.root import connector
from config import replaced
from pipeline import Broker
from pipeline.outcome import Settled
from tests.desk import Client, WithSettings, to_client
from tests.support import eventually, reached

pytestmark = pytest.mark.integration

KEDA = Path(__file__).parent.parent.parent / "deploy" / "keda.yaml"
NAME = "send-client"
PATH = "/queue/notification/jobs"
JOB = to_client("5511987650000")
DONE = Settled(msgspec.Raw(b"\xc0"))
STAGE_FIELDS = (
    "queue stage state waiting delayed active retrying dead paused draining oldestWaiting in1m in5m out1m out5m "
    "workers slots utilisation drainSeconds highWater lowWater demand"
)
QUEUE_FIELDS = (
    "queue state waiting delayed active retrying dead oldestWaiting in1m in5m out1m out5m drainSeconds demand"
)


@pytest.fixture(autouse=True)
def looking_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each answer is one of its own, unless they are asked for at once."""
    monkeypatch.setattr(watching, "FRESH", 0.0)


@pytest.fixture
async def broker(settings: WithSettings) -> AsyncIterator[Broker]:
    """All stages, of which one is full with twenty jobs."""
    made = settings()
    async with connector(made, Adapters(made).pipeline())() as broker:
        stages = broker.pipeline._stages
        stages[NAME] = msgspec.structs.replace(stages[NAME], high_water=20, tenant_limit=0, keep_results=0)
        await broker.ensure_groups()
        yield broker


@asynccontextmanager
async def serving(broker: Broker, settings: WithSettings) -> AsyncIterator[Client]:
    adapters = Adapters(settings())
    app = build_app(broker, settings(), adapters.notifications.log)
    async with aclosing(adapters.database), TestClient(TestServer(app)) as client:
        yield client


@pytest.fixture
async def client(broker: Broker, settings: WithSettings) -> AsyncIterator[Client]:
    async with serving(broker, settings) as client:
        yield client


async def asked(client: Client, path: str = "/backpressure") -> dict[str, Any]:
    answer = await client.get(path)
    assert answer.status == 200, await answer.text()
    found: dict[str, Any] = await answer.json()
    return found


def of_stage(found: dict[str, Any], name: str = NAME) -> dict[str, Any]:
    (stage,) = [stage for queue in found["queues"] for stage in queue["stages"] if stage["stage"] == name]
    return dict(stage)


async def metrics(client: Client) -> dict[tuple[str, ...], float]:
    """Values by name and labels' values."""
    answer = await client.get("/metrics")
    assert answer.status == 200
    assert answer.headers["Content-Type"].startswith("text/plain; version=0.0.4")
    families = text_string_to_metric_families(await answer.text())
    return {(each.name, *each.labels.values()): each.value for family in families for each in family.samples}


async def post(client: Client, count: int) -> None:
    answers = await (await client.post(PATH, json=[JOB] * count)).json()
    assert all("jobId" in answer for answer in answers)


async def work_off(broker: Broker, count: int) -> None:
    found = await broker.fetch(NAME, 0, "a", count, 100)
    assert await broker.settle(broker.pipeline.stage(NAME), 0, [(each, DONE) for each in found]) == count


# ── what is shown ────────────────────────────────────────────────────────────────────────────────


async def test_both_say_the_same_of_every_queue_and_stage(client: Client, broker: Broker) -> None:
    await post(client, 2)
    await client.post(PATH, json=JOB | {"delay": 60})
    await broker.fetch(NAME, 0, "worker", 1, 100)
    status, found = await asked(client, "/queue/status"), await asked(client)
    assert set(found) == {"state", "memory", "at", "queues"}
    assert (found["state"], 0 < found["memory"] < 1) == ("ok", True)
    assert [queue["queue"] for queue in status["queues"]] == ["audio", "notification", "cleanup", "sync"]
    assert [set(queue) for queue in found["queues"]] == [{*QUEUE_FIELDS.split(), "stages"}] * 4
    assert of_stage(status).keys() == of_stage(found).keys() == set(STAGE_FIELDS.split())
    stage, (_, queue, *_) = of_stage(found), found["queues"]
    expected = {"waiting": 1, "delayed": 1, "active": 1, "retrying": 0, "dead": 0}
    assert expected.items() <= stage.items()
    assert expected.items() <= queue.items()
    concurrency = broker.pipeline.stage(NAME).concurrency
    assert (stage["workers"], stage["slots"], stage["utilisation"]) == (1, concurrency, 1 / concurrency)
    assert (stage["highWater"], stage["lowWater"], stage["demand"], queue["demand"]) == (20, 18, 2, 2)
    assert 0 <= stage["oldestWaiting"] == queue["oldestWaiting"] < 60
    idle = of_stage(found, "transcribe")
    assert (idle["oldestWaiting"], idle["utilisation"], idle["drainSeconds"]) == (None, None, 0)


async def test_rates_come_of_what_went_in_and_out(client: Client, broker: Broker) -> None:
    await asked(client)  # from here on it has watched
    await post(client, 12)
    await work_off(broker, 4)
    found = await asked(client)
    stage, queue = of_stage(found), found["queues"][1]
    assert stage["in1m"] == stage["in5m"] > stage["out1m"] == stage["out5m"] > 0
    assert stage["in1m"] / stage["out1m"] == pytest.approx(3, rel=0.01)
    assert (queue["in1m"], queue["out1m"]) == (stage["in1m"], stage["out1m"])
    assert (stage["drainSeconds"], queue["drainSeconds"]) == (None, None), "more comes in than goes out"
    totals = await metrics(client)
    assert totals["riacho_stage_added_total", "notification", NAME] == 12
    assert totals["riacho_stage_finished_total", "notification", NAME] == 4


async def test_the_counters_are_looked_at_though_nobody_asks(
    broker: Broker, settings: WithSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watching, "COUNT_EVERY", 0.01)
    looks = counting(broker, "flow", monkeypatch)
    async with serving(broker, settings):
        await reached(lambda: len(looks) > 3)


async def test_all_who_ask_at_once_cost_one_look(
    broker: Broker, settings: WithSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watching, "FRESH", 60.0)
    looks = counting(broker, "status", monkeypatch)
    paths = ("/backpressure", "/queue/status", "/metrics")
    async with serving(broker, settings) as client:
        answers = await asyncio.gather(*(client.get(paths[n % 3]) for n in range(200)))
    assert {answer.status for answer in answers} == {200}
    assert len(looks) == 1


async def test_a_service_that_ends_while_it_connects_leaves_no_connection(settings: WithSettings) -> None:
    made = settings()
    async with connector(made, Adapters(made).pipeline())() as broker:
        asking = asyncio.create_task(broker.flow())
        while not broker._wire._connecting:  # noqa: ASYNC110 - no event tells
            await asyncio.sleep(0)
        asking.cancel()
    assert not broker._wire._connecting
    assert asking.cancelled()


def counting(broker: Broker, method: str, monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """Has one more element with each call of a method."""
    calls: list[object] = []
    called = getattr(broker, method)

    async def counted() -> object:
        calls.append(method)
        return await called()

    monkeypatch.setattr(broker, method, counted)
    return calls


# ── what is refused ──────────────────────────────────────────────────────────────────────────────


async def test_a_full_stage_refuses_over_http_until_it_is_down_to_its_low_water_mark(
    client: Client, broker: Broker
) -> None:
    await post(client, 19)
    assert of_stage(await asked(client))["state"] == "throttling"
    await post(client, 1)
    await refused(client)
    await work_off(broker, 1)
    await refused(client)
    found = await asked(client)
    assert (of_stage(found)["state"], found["queues"][1]["state"], found["state"]) == ("shedding",) * 3
    assert (await metrics(client))["riacho_stage_state", "notification", NAME, "shedding"] == 1
    await work_off(broker, 1)
    assert of_stage(await asked(client))["state"] == "ok", "before anybody asked again"
    assert (await client.post(PATH, json=JOB)).status == 202


async def refused(client: Client) -> None:
    answer = await client.post(PATH, json=JOB)
    assert answer.status == 429
    assert 1 <= int(answer.headers["Retry-After"]) <= 60


async def test_a_drained_stage_and_a_full_server_shed(
    settings: WithSettings, broker: Broker, client: Client
) -> None:
    await broker.drain([broker.pipeline.stage("transcribe")])
    found = await asked(client)
    assert [queue["state"] for queue in found["queues"]] == ["shedding", "ok", "ok", "ok"]
    short = replaced(settings(), redis={"memory_share": 1e-9})
    async with connector(short, broker.pipeline)() as full, serving(full, settings) as other:
        found = await asked(other)
    assert {found["state"], *(queue["state"] for queue in found["queues"])} == {"shedding"}


# ── for machines ─────────────────────────────────────────────────────────────────────────────────


async def test_metrics_have_the_same_figures_in_base_units(client: Client, broker: Broker) -> None:
    await client.post(PATH, json=JOB | {"tenant": "padaria", "delay": 60})
    await post(client, 3)
    await broker.fetch(NAME, 0, "worker", 1, 100)
    found = await metrics(client)
    labels = ("notification", NAME)
    jobs = {state: found["riacho_stage_jobs", *labels, state] for state in ("waiting", "delayed", "active")}
    assert jobs == {"waiting": 2, "delayed": 1, "active": 1}
    assert found["riacho_stage_demand_jobs", *labels] == 3
    assert found["riacho_stage_high_water_jobs", *labels] == 20
    assert found["riacho_stage_workers", *labels] == 1
    assert found["riacho_stage_state", *labels, "ok"] == 1
    assert 0 <= found["riacho_stage_oldest_waiting_seconds", *labels] < 60
    assert 0 < found["riacho_redis_memory_used_bytes",] < found["riacho_redis_memory_limit_bytes",]
    assert not [key for key in found if "padaria" in key]


async def test_one_delayed_job_wakes_a_scaler_when_it_is_due_and_a_paused_stage_none(
    client: Client, broker: Broker
) -> None:
    async def demand() -> float:
        return (await metrics(client))["riacho_stage_demand_jobs", "notification", NAME]

    await client.post(PATH, json=JOB | {"delay": 60})
    assert await demand() == 0
    await client.post(PATH, json=JOB | {"delay": 0.02})
    await eventually(demand)
    assert await demand() == 1, "though no worker put it into the stream"
    await broker.pause([broker.pipeline.stage(NAME)])
    assert await demand() == 0


async def test_the_scaler_example_asks_for_what_there_is(client: Client) -> None:
    triggers = [
        (trigger["type"], trigger["metadata"])
        for document in yaml.safe_load_all(KEDA.read_text())
        for trigger in document["spec"].get("triggers", [])
    ]
    assert [kind for kind, _ in triggers] == ["prometheus", "metrics-api"]
    found, load = await metrics(client), await asked(client)
    for kind, metadata in triggers:
        if kind == "prometheus":
            match = re.fullmatch(r'max\((\w+)\{queue="([\w-]+)",stage="([\w-]+)"\}\)', metadata["query"])
            assert match
            assert match.groups() in found
        else:
            assert metadata["url"].endswith(":8080/backpressure")
            match = re.fullmatch(r'queues\.#\(queue=="(\w+)"\)\.(\w+)', metadata["valueLocation"])
            assert match
            (queue,) = [queue for queue in load["queues"] if queue["queue"] == match[1]]
            assert queue[match[2]] == 0
