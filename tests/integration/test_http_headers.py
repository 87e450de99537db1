"""Security headers are on every answer, and no other origin is let in."""

import asyncio
from pathlib import Path

import pytest

from api.headers import SAFE
from tests.desk import service, settings_of, to_client

pytestmark = pytest.mark.integration


async def test_every_answer_has_them_whatever_it_is(server: str, namespace: str, tmp_path: Path) -> None:
    async with service(settings_of(server, namespace, tmp_path)) as client:
        answers = {
            200: await client.get("/queue/status"),
            202: await client.post("/queue/notification/jobs", json=to_client("5511987654321")),
            400: await client.get("/queue/job/audio/nonsense"),
            401: await client.post("/webhooks/whatsapp", data=b"{}"),
            403: await client.get("/queue/status", headers={"Origin": "https://evil.example"}),
            404: await client.get("/nothing"),
            405: await client.options("/queue/status", headers={"Access-Control-Request-Method": "GET"}),
        }
        for status, answer in answers.items():
            assert answer.status == status
            assert {name: answer.headers[name] for name in SAFE} == SAFE
            assert "Strict-Transport-Security" not in answer.headers
            assert not [name for name in answer.headers if name.lower().startswith("access-control")]


async def test_what_is_no_http_is_answered_with_them_too(server: str, namespace: str, tmp_path: Path) -> None:
    async with service(settings_of(server, namespace, tmp_path)) as client:
        reader, writer = await asyncio.open_connection(client.host, client.port)
        writer.write(b"GET\r\n\r\n")
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        writer.transport.abort()
    assert [f"{name}: {value}" for name, value in SAFE.items() if f"{name}: {value}" not in head] == []
