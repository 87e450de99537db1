"""The server is gone for a while under load, or another takes its place."""

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from pipeline import Broker, Context, Pipeline
from pipeline.errors import ServerUnavailable
from pipeline.keys import Keys
from tests.faults.servers import Gateway, OwnServer
from tests.support import Number, eventually, jobs, stage, working

pytestmark = pytest.mark.faults

BACK_AT_WORK = 2.0  # seconds after the server's return
GONE_FOR = 4.0  # seconds: after 2 s every pause between attempts is as long as it gets (1 s)


@pytest.fixture
async def servers(tmp_path: Path) -> AsyncIterator[tuple[OwnServer, OwnServer]]:
    pair = OwnServer(tmp_path / "a"), OwnServer(tmp_path / "b")
    for server in pair:
        await server.start()
    yield pair
    for server in pair:
        await server.stop()


async def test_workers_are_back_at_work_soon_after_the_server_is(servers: tuple[OwnServer, OwnServer]) -> None:
    own, _ = servers
    seen: dict[int, float] = {}

    async def sink(ctx: Context, payload: Number) -> None:
        seen.setdefault(payload.n, time.monotonic())
        await asyncio.sleep(0.005)

    pipeline = Pipeline([stage("sink", sink, concurrency=5, prefetch=20)])
    async with (
        Broker(own.url, pipeline) as broker,
        working(lambda: Broker(own.url, pipeline), pipeline, lease=1.0),
    ):
        await broker.add(jobs("sink", 2000))

        async def under_way() -> bool:
            return len(seen) > 100

        await eventually(under_way)
        await own.stop()
        before = len(seen)
        with pytest.raises(ServerUnavailable):
            await broker.add(jobs("sink", 1))
        await asyncio.sleep(GONE_FOR)
        assert len(seen) - before <= 5 + 20, "only what was fetched runs without a server"
        await own.start()
        back = time.monotonic()

        async def some_more() -> bool:
            return max(seen.values()) > back

        await eventually(some_more, deadline=BACK_AT_WORK, what="going on by itself")

        async def all_done() -> bool:
            return len(seen) == 2000

        await eventually(all_done)


async def test_workers_follow_to_the_server_that_takes_over(servers: tuple[OwnServer, OwnServer]) -> None:
    old, new = servers
    seen: set[int] = set()

    async def sink(ctx: Context, payload: Number) -> None:
        seen.add(payload.n)
        await asyncio.sleep(0.005)

    stream = Keys().stream("sink", 0)
    ports = await old.listen(), await new.listen()
    await old.ask("CONFIG", "SET", "repl-diskless-sync-delay", 0)
    await new.ask("REPLICAOF", "127.0.0.1", ports[0])
    gateway, pipeline = Gateway(ports[0]), Pipeline([stage("sink", sink, concurrency=5, prefetch=20)])

    async def linked() -> bool:
        return bool((await new.ask("INFO", "replication"))["master_link_status"] == "up")

    async def in_step() -> bool:
        last = [(await server.ask("XINFO", "STREAM", stream))[b"last-generated-id"] for server in (old, new)]
        return bool(last[0] == last[1])

    async with gateway.open():

        def connect() -> Broker:
            return Broker(gateway.url, pipeline)

        await eventually(linked, what="the replica following")
        async with connect() as broker, working(connect, pipeline, lease=1.0):
            await broker.add(jobs("sink", 1000))
            # What the replica has not got yet when it takes over is lost; Redis promises no more.
            await eventually(in_step, what="the replica having every job")

            async def under_way() -> bool:
                return len(seen) > 100

            await eventually(under_way)
            # The connections stay: it is the old server's answers that have to tell.
            gateway.target = ports[1]
            await new.ask("REPLICAOF", "NO", "ONE")
            await old.ask("REPLICAOF", "127.0.0.1", ports[1])
            before = len(seen)

            async def going_on() -> bool:
                return len(seen) > before + 100

            await eventually(going_on, deadline=BACK_AT_WORK, what="following")

            async def all_done() -> bool:
                (status,) = await broker.status()
                return len(seen) == 1000 and status.waiting + status.active + status.retrying == 0

            await eventually(all_done)
