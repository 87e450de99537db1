"""Thousands of notifications (ten with RIACHO_TEST_FULL, as in CI), a tenth of the calls failing, and one of two
workers killed half-way: each goes out once, and none over a limit."""

import asyncio
import os
import signal
from collections import Counter
from contextlib import ExitStack
from pathlib import Path

import aiohttp
import msgspec
import pytest
from sqlalchemy import func, select

from api.demo import free_port
from pipeline import Broker, Job
from stages.jobs import SendClient
from stages.notification.log import notifications
from stages.store import Database, sqlite_file
from tests.cloud_api import Config, Report, Statuses, fetch_report, running
from tests.processes import environment, riacho, stop
from tests.support import add_all, depths, eventually

pytestmark = [pytest.mark.faults, pytest.mark.timeout(240)]

COUNT = 10_000 if os.environ.get("RIACHO_TEST_FULL") else 3_000
RECIPIENTS, NUMBERS = 500, 10
APP_SECRET = "the app secret"
STAGES = "send-client,fallback,alert,receipt"
FAULTS = {"131000": 0.03, "131016": 0.02, "2": 0.01, "http-503": 0.03, "reset": 0.005, "reset-after": 0.005}


def number(n: int) -> str:
    return f"1065403522429{n:02d}"


def job(n: int) -> Job:
    """The n-th notification; a recipient always hears from the same number."""
    recipient = n % RECIPIENTS
    to = f"+55119876{recipient:05d}"
    payload = SendClient(to=to, text=f"Pedido {n} a caminho")
    return Job(stage="send-client", payload=payload, tenant=number(recipient % NUMBERS), key=to)


def stand_in(webhook: str) -> Config:
    return Config(
        numbers={number(n): f"EAAJ-token-{n}" for n in range(NUMBERS)},
        faults=FAULTS,
        in_a_row=2,
        latency=0.002,
        jitter=0.004,
        statuses=Statuses(
            url=webhook, app_secret=APP_SECRET, read=0.3, spread=0.3, shuffle=True, twice=0.05, batch=0.1
        ),
    )


def settings(server: str, namespace: str, folder: Path, port: int, graph_url: str) -> dict[str, str]:
    tokens = {number(n): {"access_token": f"EAAJ-token-{n}"} for n in range(NUMBERS)}
    return environment(
        REDIS_URL=server,
        RIACHO_REDIS_NAMESPACE=namespace,
        RIACHO_DATA_FOLDER=folder,
        RIACHO_HTTP_PORT=port,
        RIACHO_WORKER_LEASE=2,
        RIACHO_WHATSAPP_APP_SECRET=APP_SECRET,
        RIACHO_WHATSAPP_GRAPH_URL=graph_url,
        RIACHO_WHATSAPP_SENDERS=msgspec.json.encode(tokens).decode(),
        RIACHO_NOTIFICATION_UNKNOWN_WAIT=5,
    )


async def states(database: Database) -> Counter[str]:
    """How many notifications the log has in which state."""
    query = select(notifications.c.state, func.count()).group_by(notifications.c.state)
    return Counter({row["state"]: row["count"] for row in await database.read(query)})


async def test_thousands_go_out_once_each_though_a_worker_is_killed(
    server: str, namespace: str, broker: Broker, tmp_path: Path
) -> None:
    port = free_port()
    with ExitStack() as processes:
        config = stand_in(f"http://127.0.0.1:{port}/webhooks/whatsapp")
        graph_url, _ = processes.enter_context(running(config))
        env = settings(server, namespace, tmp_path, port, graph_url)
        api, killed, other = (
            processes.enter_context(riacho(*arguments, env=env))
            for arguments in (("api",), ("worker", "--stages", STAGES), ("worker", "--stages", STAGES))
        )

        async def left(most: int) -> bool:
            return sum(await depths(broker, "send-client")) <= most

        for first in range(0, COUNT, 500):
            await add_all(broker, [job(n) for n in range(first, first + 500)])
        await eventually(lambda: left(COUNT // 2), what="half of them going out", deadline=100)
        killed.send_signal(signal.SIGKILL)
        await eventually(lambda: left(0), what="all of them going out", deadline=150)
        report = await told(graph_url)
        for process in (other, api):
            assert await asyncio.to_thread(stop, process) == 0
    async with Database(sqlite_file(tmp_path / "riacho.db")) as database:
        assert await states(database) == {"accepted": COUNT}
    report.assert_clean()
    assert set(report.sends().values()) == {1}
    assert len(report.messages) == COUNT
    failures = sum(report.answers.get(fault, 0) for fault in FAULTS)
    assert failures > 0.08 * COUNT, "the faults did happen"


async def told(graph_url: str) -> Report:
    """What the stand-in saw, once the webhook has taken all statuses."""
    async with aiohttp.ClientSession() as http:

        async def all_told() -> Report | None:
            report = await fetch_report(http, graph_url)
            return None if report.untold else report

        report: Report = await eventually(all_told, what="all statuses being taken")
        return report
