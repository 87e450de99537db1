"""What processes of ours log, as whoever collects it gets it."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from api.service import queue_service
from config import load
from stages.jobs import Incoming
from tests.processes import riacho
from tests.support import eventually
from tests.terminal import on_terminal

pytestmark = pytest.mark.integration

CUSTOMER = "5511987654321"
WORKER = ("worker", "--stages", "process-conversation")
NO_MODEL = {
    "RIACHO_RESPONDER_KIND": "ollama",
    "RIACHO_RESPONDER_URL": "http://127.0.0.1:1",
    "RIACHO_RESPONDER_MODEL": f"model-of-{CUSTOMER}",
    "RIACHO_RESPONDER_ATTEMPTS": "1",
}


async def test_a_worker_says_in_json_which_job_a_line_is_about(env: dict[str, str], tmp_path: Path) -> None:
    output = tmp_path / "lines"

    def lines() -> list[dict[str, Any]]:
        return [json.loads(line) for line in output.read_text().split("\n")[:-1]]

    async with queue_service(load(environ=env)) as queue:
        with output.open("wb") as errors, riacho(*WORKER, env=env | NO_MODEL, stderr=errors):
            message = Incoming(chat=CUSTOMER, id="wamid.1", sent_ms=1)
            job = await queue.queue_process_conversation(message=message, text="Olá", tenant="shop")

            async def told() -> bool:
                return any("the rules answer" in line["message"] for line in lines())

            await eventually(told, what="the worker telling of the language model")
    (line,) = [line for line in lines() if "the rules answer" in line["message"]]
    expected = {
        "level": "warning",
        "job_id": str(job),
        "stage": "process-conversation",
        "tenant": "shop",
        "attempt": 1,
    }
    assert line.items() >= expected.items()
    assert "language model model-of-***21" in line["message"]
    assert CUSTOMER not in output.read_text()


async def test_on_a_terminal_a_worker_speaks_to_people(env: dict[str, str]) -> None:
    with on_terminal("worker", "--stages", "send-client", env=env) as terminal:

        async def told() -> re.Match[str] | None:
            return re.search(
                r"\d\d:\d\d:\d\d,\d{3} INFO    pipeline\.worker: working notification", terminal.output
            )

        await eventually(told, what="the worker saying what it works")
