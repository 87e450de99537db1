"""What cannot be worked ends in the dead letters with its reason, and takes nothing with it."""

from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from api.adapters import Adapters
from api.root import connector
from config import Secret, load, replaced
from pipeline import Context, Job, JobId, Pipeline
from pipeline.keys import Keys
from pipeline.views import JobView
from stages.jobs import Transcribe
from tests.processes import SAMPLES
from tests.support import Connect, Number, add_one, depths, eventually, stage, until, working

pytestmark = pytest.mark.faults


@pytest.fixture
async def missing_url() -> AsyncIterator[str]:
    """An address that answers 404."""
    async with TestServer(web.Application()) as server:
        yield str(server.make_url("/note.ogg"))


async def test_audio_that_is_none_is_buried_with_a_reason_beside_a_good_note(
    server: str, namespace: str, tmp_path: Path, missing_url: str
) -> None:
    (tmp_path / "page.ogg").write_text("<html>this is no audio</html>")
    (tmp_path / "empty.ogg").touch()
    sources = {
        str(tmp_path / "page.ogg"): "this is no audio we can read: it looks like HTML",
        str(tmp_path / "empty.ogg"): f"the audio at {tmp_path}/empty.ogg is empty",
        str(tmp_path / "missing.ogg"): f"there is no audio file {tmp_path}/missing.ogg",
        missing_url: f"no audio at {missing_url}: it answered 404",
        "/etc/passwd": "/etc/passwd is below no folder that audio may come from; see the setting audio.roots",
    }
    settings = replaced(
        load(environ={}),
        redis={"url": Secret(server), "namespace": namespace},
        data={"folder": tmp_path},
        audio={"roots": [SAMPLES, tmp_path], "networks": ["127.0.0.1/32"]},
    )
    adapters = Adapters(settings)
    pipeline = adapters.pipeline()
    connect = connector(settings, pipeline)
    transcribe_only = Pipeline([pipeline.stage("transcribe")])
    async with adapters.opened(), connect() as broker, working(connect, transcribe_only):
        good = Job(stage="transcribe", payload=Transcribe(source=str(SAMPLES / "obrigado.ogg")))
        bad = [Job(stage="transcribe", payload=Transcribe(source=source)) for source in sources]
        added = [answer.id for answer in await broker.add([good, *bad])]
        ids = [job for job in added if job]
        reasons = {(await until(broker, job, "failed")).reason for job in ids[1:]}
        assert reasons == set(sources.values())
        assert "Obrigado" in (await until(broker, ids[0], "completed")).result["text"]
        assert await depths(broker, "transcribe") == (0, 0, 0, len(sources))


@pytest.mark.parametrize(
    "fields", [{"e": b"\xff\x00 no envelope"}, {"e": b""}, {"other": "field"}, {"e": "x", "and": "more"}]
)
async def test_bytes_that_are_no_envelope_are_buried_and_the_worker_goes_on(
    connector: Callable[..., Connect], redis: Any, namespace: str, fields: dict[str | bytes, str | bytes]
) -> None:
    async def handle(ctx: Context, payload: Number) -> int:
        return payload.n

    pipeline = Pipeline([stage("one", handle)])
    connect = connector(pipeline)
    async with connect() as broker, working(connect, pipeline):
        entry = await redis.xadd(Keys(namespace).stream("one", 0), fields)
        view = await until(broker, JobId("one", 0, entry.decode()), "failed")
        assert view.reason.startswith("cannot be read: ")
        good = await add_one(broker, Job(stage="one", payload=Number(5)))
        assert (await until(broker, good, "completed")).result == 5
        assert await depths(broker, "one") == (0, 0, 0, 1)


async def test_a_look_at_bytes_that_are_no_envelope_says_what_is_wrong(
    connector: Callable[..., Connect], redis: Any, namespace: str
) -> None:
    pipeline = Pipeline([stage("one", None)])  # type: ignore[arg-type]
    async with connector(pipeline)() as broker:
        entry = await redis.xadd(Keys(namespace).stream("one", 0), {"e": "?"})
        view = await broker.look(JobId("one", 0, entry.decode()))
        assert view
        assert (view.state, view.error.partition(":")[0]) == ("waiting", "not an envelope")


async def test_an_entry_deleted_behind_our_back_does_not_stop_the_others(
    connector: Callable[..., Connect], redis: Any, namespace: str
) -> None:
    async def fail_once(ctx: Context, payload: Number) -> int:
        if ctx.attempt == 1:
            raise OSError("not yet")
        return payload.n

    pipeline = Pipeline([stage("one", fail_once)])
    connect = connector(pipeline)
    stream = Keys(namespace).stream("one", 0)
    async with connect() as broker, working(connect, pipeline):
        gone = await add_one(broker, Job(stage="one", payload=Number(1)))
        await until(broker, gone, "retrying")
        await redis.xdel(stream, gone.entry)
        other = await add_one(broker, Job(stage="one", payload=Number(2)))
        view: JobView = await until(broker, other, "completed")
        assert view.result == 2

        async def forgotten() -> bool:
            pending: dict[str, int] = await redis.xpending(stream, "riacho")
            return pending["pending"] == 0

        await eventually(forgotten, what="forgetting the deleted entry")
