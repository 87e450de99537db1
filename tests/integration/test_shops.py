"""One shop's flood does not stand in the way of another's message, in the stages as they are configured."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from api.adapters import Adapters
from api.root import connector
from config import Secret, Settings, load, replaced
from pipeline import Broker, Job, Pipeline
from pipeline.message import unseal
from stages.notification.outbox import Sent
from tests.support import depths, eventually, working

pytestmark = pytest.mark.integration

INCOMING = {"chat": "55", "id": "w", "sent_ms": 0}
PAYLOADS: dict[str, dict[str, Any]] = {
    "transcribe": {"source": "whatsapp:1"},
    "process-conversation": {"message": INCOMING, "text": "Olá"},
    "send-client": {"to": "+5511987654321", "text": "Olá"},
}
FLOOD = 200


@pytest.fixture
def settings(server: str, namespace: str, tmp_path: Path) -> Settings:
    here = {"url": Secret(server), "namespace": namespace}
    return replaced(load(environ={}), redis=here, data={"folder": tmp_path})


@pytest.fixture
async def broker(settings: Settings) -> AsyncIterator[Broker]:
    async with connector(settings, Adapters(settings).pipeline())() as broker:
        await broker.ensure_groups()
        yield broker


def flood(pipeline: Pipeline, name: str) -> Iterator[Job]:
    """Many jobs of one shop, then one of another."""
    payload = pipeline.payload(pipeline.stage(name), PAYLOADS[name])
    for tenant in (*["busy"] * FLOOD, "quiet"):
        yield Job(stage=name, payload=payload, tenant=tenant)


@pytest.mark.parametrize("name", PAYLOADS)
async def test_no_more_than_three_rounds_of_a_shop_are_in_front_of_another(broker: Broker, name: str) -> None:
    stage = broker.pipeline.stage(name)
    rounds = 3 * (8 if name == "transcribe" else stage.concurrency)  # notes in a model call
    await broker.add(list(flood(broker.pipeline, name)))
    in_stream = await broker.fetch(name, 0, "test", FLOOD + 1, 10)
    tenants = [unseal(delivery.body).tenant for delivery in in_stream]
    assert tenants == ["busy"] * rounds + ["quiet"]
    assert await depths(broker, name) == (FLOOD - rounds, rounds + 1, 0, 0), "what is held back is counted"


async def test_nothing_is_held_back_where_no_rounds_are_set(settings: Settings) -> None:
    unlimited = replaced(settings, tenants={"rounds": 0})
    async with connector(unlimited, Adapters(unlimited).pipeline())() as broker:
        await broker.ensure_groups()
        await broker.add(list(flood(broker.pipeline, "send-client")))
        assert len(await broker.fetch("send-client", 0, "test", FLOOD + 1, 10)) == FLOOD + 1


async def test_all_of_a_flood_is_worked_and_another_shop_is_served_early(
    broker: Broker, settings: Settings, tmp_path: Path
) -> None:
    adapters = Adapters(settings)
    stage = adapters.pipeline().stage("send-client")
    added = await broker.add(list(flood(broker.pipeline, "send-client")))
    outbox = tmp_path / "outbox.jsonl"

    async def sent() -> list[str]:
        lines = outbox.read_bytes().splitlines() if outbox.exists() else []
        ids = [msgspec.json.decode(line, type=Sent).job_id for line in lines]
        return ids if len(ids) > FLOOD else []

    only = Pipeline([stage])
    async with adapters.opened(), working(connector(settings, only), only):
        ids = await eventually(sent, what="every message going out")
    assert ids.index(str(added[-1].id)) < 4 * stage.concurrency, "those before it, and those that ran beside it"
