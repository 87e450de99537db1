"""The server goes away under listeners, and comes back."""

from pathlib import Path

import pytest

from api import hub
from pipeline import Broker, Pipeline
from tests.faults.servers import OwnServer
from tests.listening import listening, said, served
from tests.support import eventually, jobs, stage, unused

pytestmark = pytest.mark.faults

ONE = Pipeline([stage("one", unused)])


@pytest.mark.parametrize("forgets", [False, True])
async def test_listeners_stay_while_the_server_is_away_and_are_told_of_a_gap(
    tmp_path: Path, forgets: bool
) -> None:
    own = OwnServer(tmp_path)
    await own.start()
    async with Broker(own.url, ONE) as broker, served(broker) as client, listening(client) as listener:
        await broker.add(jobs("one", 1))
        assert said(await listener.next()) == "one waiting"
        await own.stop()
        assert (await client.get("/queue/status")).status == 404  # the service itself goes on
        await own.start()
        if forgets:
            await own.ask("FLUSHALL")
        assert said(await listener.next()) == "gap"

        async def added() -> bool:
            return bool((await broker.add(jobs("one", 1)))[0].id)

        await eventually(added)
        while (heard := await listener.next()).kind == "gap":
            pass
        assert said(heard) == "one waiting"
    await own.stop()


async def test_nobody_begins_to_listen_while_the_server_is_away(tmp_path: Path) -> None:
    own = OwnServer(tmp_path)
    await own.start()
    async with Broker(own.url, ONE) as broker, served(broker) as client:
        await own.stop()
        async with client.get("/queue/events") as answer:
            assert answer.status == 503
        await own.start()
        async with listening(client) as listener:
            await broker.add(jobs("one", 1))
            assert said(await listener.next()) == "one waiting"
    await own.stop()


async def test_what_a_listener_cannot_be_given_is_not_worth_its_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    own = OwnServer(tmp_path)
    await own.start()
    async with Broker(own.url, ONE) as broker, served(broker) as client:
        with monkeypatch.context() as patched:
            patched.setattr(hub, "read", None)
            async with listening(client) as listener:
                await broker.add(jobs("one", 1))
                assert await listener.response.content.read() == b""
        assert "events are no longer read" in caplog.text
        async with listening(client) as listener:
            await broker.add(jobs("one", 1))
            assert said(await listener.next()) == "one waiting"
    await own.stop()
