"""The server goes away under listeners, and comes back."""

import pytest

from api import hub
from pipeline import Broker, Pipeline
from pipeline.keys import Keys
from tests.faults.servers import OwnServer
from tests.listening import listening, said, served
from tests.support import eventually, jobs, stage, unused

pytestmark = pytest.mark.faults

ONE = Pipeline([stage("one", unused)])


@pytest.mark.parametrize("forgets", [False, True])
async def test_listeners_stay_while_the_server_is_away_and_are_told_of_a_gap(
    own: OwnServer, forgets: bool
) -> None:
    async with Broker(own.url, ONE) as broker, served(broker) as client, listening(client) as listener:
        await broker.add(jobs("one", 1))
        assert said(await listener.next()) == "one waiting"
        await own.stop()
        assert (await client.get("/queue/status")).status == 404  # the service itself goes on
        await own.start()
        if forgets:
            await own.ask("FLUSHALL")
        assert said(await listener.next()) == "gap"

        async def told_again() -> bool:
            return bool(await own.ask("EXISTS", Keys().events(0)))

        await eventually(told_again)
        await broker.add(jobs("one", 1))
        while (heard := await listener.next()).kind == "gap":
            pass
        assert said(heard) == "one waiting"


async def test_nobody_begins_to_listen_while_the_server_is_away(own: OwnServer) -> None:
    async with Broker(own.url, ONE) as broker, served(broker) as client:
        await own.stop()
        async with client.get("/queue/events") as answer:
            assert answer.status == 503
        await own.start()
        async with listening(client) as listener:
            await broker.add(jobs("one", 1))
            assert said(await listener.next()) == "one waiting"


async def test_what_a_listener_cannot_be_given_is_not_worth_its_end(
    own: OwnServer, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
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
