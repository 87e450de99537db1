"""Scenarios of the benchmarks with tiny knobs and nobody but Riacho: they come through, with sensible figures."""

import asyncio
from typing import Any, cast

import pytest

from benchmarks.parts.openloop import Pace
from benchmarks.peers.environments import Unavailable
from benchmarks.scenarios import big_backlog, cleanup, cold_start, http, idle, order, webhook
from benchmarks.scenarios.http import Contestant, Sending

pytestmark = pytest.mark.integration


def test_a_backlog_takes_memory_and_nothing_else() -> None:
    report = big_backlog.measure(jobs=20_000, drain=2_000, peers="")
    figures = report.figures
    assert figures["backlog_jobs"] == 20_000
    assert figures["dataset_mb"] == pytest.approx(20_000 * figures["bytes_per_waiting_job"] / 1e6)
    assert 50 < figures["bytes_per_waiting_job"] < 300
    assert figures["rss_mb"] > 0
    assert 0 < figures["first_result_seconds"] < 5
    assert 0 < figures["status_ms"] < 100
    assert min(value for name, value in figures.items() if "_per_second" in name) > 100
    (line,) = report.plots["memory-by-backlog"].lines.values()
    assert [waiting for waiting, _ in line] == list(range(2_000, 22_000, 2_000))
    assert sorted(line, key=lambda point: point[1]) == line


def test_an_idle_worker_takes_little(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(idle, "SETTLING", 0.5)
    report = idle.measure(seconds=1, rounds=1, peers="", tree=False)
    assert report.knobs == {"seconds": 1, "rounds": 1, "tree": "no", "peers": "none"}
    figures = report.figures
    assert 0 < figures["cpu_seconds_per_hour"] < 360, "a tenth of a core"
    assert 0 < figures["redis_commands_per_second"] < 100
    assert 5 < figures["memory_mb"] < 500
    assert figures["server_cpu_seconds_per_hour"] > 0


def test_the_messages_of_chats_are_answered_in_order() -> None:
    figures = order.measure(messages=30, burst=3, rounds=1).figures
    assert figures["ordered_overtaken"] < 0.3
    assert min(value for name, value in figures.items() if "_per_second" in name) > 1


def test_a_cold_worker_comes_to_its_first_job() -> None:
    figures = cold_start.measure(rounds=1, peers="").figures
    assert 0 < figures["ready_seconds"] < figures["first_job_seconds"] < 20
    assert figures["riacho_worker_import_seconds"] > 0
    assert 0 < figures["riacho_worker_first_job_seconds"] < 40
    assert 5 < figures["memory_mb"] < 500


async def test_cleanup_loses_nothing_that_was_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cleanup, "IDLE", 0.2)
    report = await cleanup.measure(messages=1_005, rate=20)
    figures = report.figures
    assert report.knobs["messages"] == figures["deleted"] == figures["fresh_left"] == 1_000
    assert figures["fresh_lost"] == figures["old_left"] == 0
    assert 0 < figures["idle_p50_ms"] <= figures["idle_max_ms"] < 10_000
    assert 0 <= figures["memory_growth_mb"] < 500


async def test_a_webhook_is_not_timed_beside_a_transcriber_that_has_nothing_to_do(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def nothing(_: Any) -> dict[str, int]:
        return {"active": 0}

    async def refused() -> None:
        raise OSError("queue is full")

    monkeypatch.setattr(webhook, "_depth", nothing)
    monkeypatch.setattr(webhook, "START", 0.1)
    http: Any = None
    with pytest.raises(Unavailable, match="no two voice notes were at work"):
        await webhook._transcribing(http, asyncio.create_task(asyncio.sleep(60)))
    with pytest.raises(Unavailable, match=r"could not be queued: .*queue is full"):
        await webhook._transcribing(http, asyncio.create_task(refused()))


class Refusing(asyncio.Protocol):
    """Answers so much, and closes; or nothing."""

    def __init__(self, answer: bytes | None) -> None:
        self._answer = answer

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, _: bytes) -> None:
        if self._answer is not None:
            self._transport.write(self._answer)
            self._transport.close()


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (b"HTTP/1.1 503 Service Unavailable\r\n\r\n", r"a job was refused: .*503"),
        (b"", "closed a connection in place of an answer"),
        (None, "2 jobs had no answer"),
    ],
)
async def test_a_service_that_takes_no_jobs_is_not_waited_for(
    answer: bytes | None, why: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http, "START", 0.3)
    server = await asyncio.get_running_loop().create_server(lambda: Refusing(answer), "127.0.0.1", 0)
    host, port = server.sockets[0].getsockname()
    async with server:
        with pytest.raises(Unavailable, match=why):
            await Sending(Pace(20, 0.1), [b"x"]).over(Contestant("riacho", f"http://{host}:{port}", 0))
