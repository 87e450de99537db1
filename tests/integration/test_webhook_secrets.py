"""Webhooks signed with the secret before, or by the app of a tenant: whose events are taken, and whose are not."""

from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import pytest
from aiohttp.test_utils import TestClient

from api import stand_in
from api.signatures import sign
from tests.desk import service, settings_of
from tests.support import eventually

pytestmark = pytest.mark.integration

Client = TestClient[Any, Any]

NEW, OLD, SHOPS, SHOPS_OLD = "the-new-secret", "the-old-secret", "the-shops-own", "the-shops-own-before"
OURS, SHOP, NAMED = (
    "1001",
    "1002",
    "1003",
)  # the common app's, tenant padaria's, and one that is its tenant's name
OWN_APP = {"app_secret": SHOPS, "previous_app_secret": SHOPS_OLD}
SECRETS = {
    "app_secret": NEW,
    "previous_app_secret": OLD,
    "senders": {"padaria": OWN_APP | {"phone_number_id": SHOP}, NAMED: {"app_secret": SHOPS}},
}


@pytest.fixture
async def client(server: str, namespace: str, tmp_path: Path) -> AsyncIterator[Client]:
    async with service(settings_of(server, namespace, tmp_path, whatsapp=SECRETS)) as client:
        yield client


def event(*numbers: str) -> dict[str, Any]:
    """A text to each of these numbers."""
    events = [
        stand_in.event(
            number,
            messages=[
                {"from": "55", "id": f"w{n}", "timestamp": "1800000000", "type": "text", "text": {"body": "Olá"}}
            ],
        )
        for n, number in enumerate(numbers)
    ]
    first: dict[str, Any] = events[0]
    first["entry"] = [entry for each in events for entry in each["entry"]]
    return first


async def post(client: Client, content: object, secret: str) -> aiohttp.ClientResponse:
    body = msgspec.json.encode(content)
    return await client.post("/webhooks/whatsapp", data=body, headers={"X-Hub-Signature-256": sign(body, secret)})


async def status_of(client: Client) -> Any:
    """The queues; nothing while Redis takes longer to answer than the service waits, as on a busy machine."""
    answer = await client.get("/queue/status")
    return (await answer.json())["queues"] if answer.status == 200 else None


@pytest.mark.parametrize(
    ("numbers", "secret", "status"),
    [
        ([OURS], NEW, 200),
        ([OURS], OLD, 200),
        ([OURS], "another", 401),
        ([OURS], "", 401),
        ([SHOP], SHOPS, 200),
        ([SHOP], SHOPS_OLD, 200),
        ([SHOP], "another", 401),
        ([NAMED], SHOPS, 200),
        ([NAMED], SHOPS_OLD, 403),
        ([OURS], SHOPS, 403),
        ([SHOP], NEW, 403),
        ([SHOP], OLD, 403),
        (["padaria"], NEW, 403),
        (["padaria"], SHOPS, 200),
        ([SHOP, NAMED], SHOPS, 200),
        ([SHOP, OURS], SHOPS, 403),
        ([OURS, SHOP], NEW, 403),
    ],
)
async def test_an_event_is_taken_from_the_app_that_its_numbers_belong_to(
    client: Client, numbers: Sequence[str], secret: str, status: int
) -> None:
    answer = await post(client, event(*numbers), secret)
    assert answer.status == status
    if status == 200:
        assert (await answer.json())["accepted"] == len(numbers)
    else:
        queues = await eventually(lambda: status_of(client), what="an answer of Redis'")
        assert sum(queue["waiting"] for queue in queues) == 0, "nothing of it is taken"


async def test_an_event_without_a_number_is_the_common_apps_unless_it_tells_nothing(client: Client) -> None:
    content = event(OURS)
    value = content["entry"][0]["changes"][0]["value"]
    del value["metadata"]
    assert (await post(client, content, SHOPS)).status == 403
    assert (await post(client, content, NEW)).status == 200
    value["messages"] = []
    assert (await post(client, content, SHOPS)).status == 200


async def test_a_tenants_secret_is_enough_where_there_is_no_common_one(
    server: str, namespace: str, tmp_path: Path
) -> None:
    only = SECRETS | {"app_secret": "", "previous_app_secret": ""}
    async with service(settings_of(server, namespace, tmp_path, whatsapp=only)) as client:
        assert (await post(client, event(SHOP), SHOPS)).status == 200
        assert (await post(client, event(OURS), SHOPS)).status == 403
        assert (await post(client, event(OURS), "")).status == 401
