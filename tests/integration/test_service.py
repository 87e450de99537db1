"""QueueService on a real server: what it puts in is what the stages take, and what it refuses they would, too."""

from collections.abc import AsyncIterator, Awaitable, Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import msgspec
import pytest

from api.service import queue_service
from config import Settings
from pipeline import Broker, JobId
from pipeline.errors import BadInput, BadJobId, BadPayload, JobUnknown, ServerUnavailable, StageDraining, StageFull
from pipeline.message import unseal
from stages.jobs import Incoming, OrderItem
from stages.service import QueueService
from tests.cloud_api import NUMBER
from tests.desk import BAKERY, VENDOR, WithSettings

pytestmark = pytest.mark.integration

SAID = Incoming("5511987654321", "wamid.1", 1_790_000_000_000)
PLAIN_SAID = {"chat": "5511987654321", "id": "wamid.1", "sent_ms": 1_790_000_000_000, "received_ms": 0}
PAID: dict[str, Any] = {"order_id": "1042", "client_phone": "(11) 91234-5678", "total": Decimal("162.00")}

Ask = Callable[[QueueService], Awaitable[JobId]]


@pytest.fixture
async def queue(settings: WithSettings) -> AsyncIterator[QueueService]:
    async with queue_service(settings()) as queue:
        yield queue


@pytest.fixture
def broker(queue: QueueService) -> Broker:
    return queue._broker


async def kept(broker: Broker, job: JobId) -> dict[str, Any]:
    """The payload of a job as its stage will get it; fields at their defaults may be missing."""
    await broker.ensure_groups()
    (delivery,) = await broker.fetch(job.stage, job.partition, "test", 10, 10)
    assert delivery.id == job
    payload: dict[str, Any] = msgspec.msgpack.decode(unseal(delivery.body).payload)
    return payload


@pytest.mark.parametrize(
    ("ask", "stage", "payload"),
    [
        (
            lambda queue: queue.queue_audio_transcription(source="whatsapp:1", language="pt", message=SAID),
            "transcribe",
            {"source": "whatsapp:1", "language": "pt", "message": PLAIN_SAID},
        ),
        (
            lambda queue: queue.queue_process_conversation(message=SAID, text="Olá", voice=True),
            "process-conversation",
            {"message": PLAIN_SAID, "text": "Olá", "voice": True},
        ),
        (
            lambda queue: queue.queue_vendor_notification(
                **PAID, items=[OrderItem("Pizza", 2, Decimal("81.00"))], to="11 98765-4321", tenant=NUMBER
            ),
            "send-vendor",
            {
                "order_id": "1042",
                "to": "+5511987654321",
                "client_phone": "+5511912345678",
                "total": "162.00",
                "items": [{"name": "Pizza", "quantity": 2, "price": "81.00"}],
            },
        ),
        (
            lambda queue: queue.queue_client_notification(to="11 98765-4321", text="Olá", tenant=NUMBER),
            "send-client",
            {"to": "+5511987654321", "text": "Olá"},
        ),
        (
            lambda queue: queue.queue_fallback_notification(to="55", text="Olá", reason="silent", job="a.0.1-0"),
            "fallback",
            {"to": "55", "text": "Olá", "job": "a.0.1-0", "reason": "silent"},
        ),
        (
            lambda queue: queue.queue_cleanup("logs", days=3, dry_run=True, tenant="shop"),
            "logs",
            {"tenant": "shop", "days": 3.0, "dry_run": True},
        ),
        (lambda queue: queue.queue_cleanup("tts-cache"), "tts-cache", {}),
        (lambda queue: queue.queue_cleanup("stats", day="2026-02-28"), "stats", {"day": "2026-02-28"}),
        (lambda queue: queue.queue_cleanup("health", tenant="shop"), "health", {}),
        (lambda queue: queue.queue_sync("orders", full=True, tenant="shop"), "orders", {"full": True}),
        (lambda queue: queue.queue_sync("products", tenant="shop"), "products", {}),
        (
            lambda queue: queue.queue_sync("changed", kind="orders", id=7, tenant="shop"),
            "changed",
            {"kind": "orders", "id": 7},
        ),
        (
            lambda queue: queue.queue_sync("push-order", id=7, status="on-hold", only=["pending"], tenant="shop"),
            "push-order",
            {"id": 7, "status": "on-hold", "only": ["pending"]},
        ),
    ],
)
async def test_each_kind_of_work_is_durable_as_its_stage_takes_it(
    queue: QueueService, broker: Broker, ask: Ask, stage: str, payload: dict[str, Any]
) -> None:
    job = await ask(queue)
    assert job.stage == stage
    assert await kept(broker, job) == payload


@pytest.mark.parametrize(
    ("ask", "said"),
    [
        (lambda queue: queue.queue_client_notification(to="12", text="Olá", tenant=NUMBER), "to"),
        (lambda queue: queue.queue_client_notification(to="5511987654321", text="", tenant=NUMBER), r"\$\.text"),
        (lambda queue: queue.queue_vendor_notification(**PAID, tenant="nobody"), "has no WhatsApp number"),
        (
            lambda queue: queue.queue_process_conversation(message=Incoming("55", "w", -1), text="Olá"),
            r"\$\.message\.sent_ms",
        ),
        (lambda queue: queue.queue_audio_transcription(source="x", language="Portuguese"), r"\$\.language"),
        (lambda queue: queue.queue_cleanup("stats", dry_run=True), "no field 'dry_run'"),
        (lambda queue: queue.queue_cleanup("logs", day="2026-02-28"), "no field 'day'; did you mean 'days'"),
        (lambda queue: queue.queue_cleanup("stats", day="2026-02-30"), "day is out of range"),
        (lambda queue: queue.queue_sync("orders", id=7), "no field 'id'"),
        (lambda queue: queue.queue_sync("changed", kind="orders"), "required field `id`"),
        (lambda queue: queue.queue_sync("push-order", id=0), "`int` >= 1"),
    ],
)
async def test_what_a_stage_would_not_take_is_refused_at_once(queue: QueueService, ask: Ask, said: str) -> None:
    with pytest.raises(BadPayload, match=said):
        await ask(queue)
    assert sum(stage.waiting for stage in await queue.get_status()) == 0


@pytest.mark.parametrize("options", [{"tenant": "a\0b"}, {"key": "x" * 201}, {"dedup": "\0"}, {"delay": -1.0}])
async def test_options_have_the_bounds_they_have_over_http(queue: QueueService, options: Any) -> None:
    with pytest.raises(BadInput):
        await queue.queue_audio_transcription(source="whatsapp:1", **options)


async def test_a_job_has_the_options_it_was_given(queue: QueueService, broker: Broker) -> None:
    first = await queue.queue_vendor_notification(**PAID, tenant=BAKERY, key="order-7", dedup="7")
    again = await queue.queue_vendor_notification(**PAID, tenant=BAKERY, key="order-7", dedup="7")
    assert first == again
    view = await queue.get_job(first)
    assert (view.state, view.tenant) == ("waiting", BAKERY)
    assert (await kept(broker, first))["to"] == VENDOR, "the tenant's own"
    late = await queue.queue_cleanup("health", delay=60.0)
    assert (await queue.get_job(str(late))).state == "delayed"
    delayed = {stage.stage: stage.delayed for stage in await queue.get_status() if stage.delayed}
    assert delayed == {"health": 1}


async def test_a_stage_that_takes_nothing_says_so(queue: QueueService, broker: Broker) -> None:
    logs = broker.pipeline.stage("logs")
    broker.pipeline._stages["logs"] = msgspec.structs.replace(logs, high_water=1)
    await queue.queue_cleanup("logs")
    with pytest.raises(StageFull) as full:
        await queue.queue_cleanup("logs")
    assert full.value.refusal.depth == 1
    await broker.drain([logs])
    with pytest.raises(StageDraining):
        await queue.queue_cleanup("logs")


async def test_a_job_nobody_knows_is_an_error(queue: QueueService) -> None:
    with pytest.raises(JobUnknown, match=r"no job transcribe\.0\.1-0"):
        await queue.get_job("transcribe.0.1-0")
    with pytest.raises(BadJobId):
        await queue.get_job("nonsense")


async def test_it_keeps_no_data_and_needs_no_worker(queue: QueueService, tmp_path: Path) -> None:
    await queue.queue_audio_transcription(source="whatsapp:1")
    assert not list(tmp_path.iterdir()), "no database was opened"


async def test_without_a_redis_it_looks_for_the_server_of_the_data_folder(
    settings: Callable[..., Settings], tmp_path: Path
) -> None:
    with pytest.raises(ServerUnavailable, match="'riacho up' with none of them set brings its own server"):
        async with queue_service(settings(redis={"url": ""}, data={"folder": str(tmp_path)})):
            pass
