"""What an operator does over HTTP, with keys: dead letters, clear, purge, pause, cancel, workers."""

import asyncio
from collections.abc import AsyncIterator
from itertools import chain
from typing import Any

import msgspec
import pytest
from redis.asyncio import Redis

from api import operating
from api.access import new_key
from api.adapters import Adapters
from api.root import connector
from pipeline import Broker, Job, JobId
from pipeline.broker import letters
from pipeline.keys import Keys
from pipeline.outcome import Bury
from stages.jobs import SendClient, Transcribe
from tests.desk import Client, Serve, WithSettings
from tests.support import add_all, reached

pytestmark = pytest.mark.integration

KEYS = {scope: new_key() for scope in ("read", "enqueue", "admin")}
HASHES = {scope: {"hash": hashed, "scopes": [scope]} for scope, (_, hashed) in KEYS.items()}
SECRET = "the customer's words"


@pytest.fixture
async def broker(settings: WithSettings) -> AsyncIterator[Broker]:
    made = settings()
    async with connector(made, Adapters(made).pipeline())() as broker:
        await broker.ensure_groups()
        yield broker


@pytest.fixture
async def client(serve: Serve) -> AsyncIterator[Client]:
    async with serve(keys=HASHES) as client:
        yield client


async def ask(client: Client, method: str, path: str, scope: str = "admin", **about: Any) -> tuple[int, Any]:
    """The status and body of an answer."""
    headers = {"Authorization": f"Bearer {KEYS[scope][0]}"}
    answer = await client.request(method, path, headers=headers, **about)
    return answer.status, await answer.json(content_type=None)


async def told(client: Client, method: str, path: str, scope: str = "admin", **about: Any) -> Any:
    """The body of a good answer."""
    status, body = await ask(client, method, path, scope, **about)
    assert status == 200, body
    return body


def send(text: str = SECRET, **about: Any) -> Job:
    return Job(stage="send-client", payload=SendClient(to="5511987654321", text=text), tenant="shop", **about)


def hear() -> Job:
    return Job(stage="transcribe", payload=Transcribe(source="whatsapp:1"), tenant="shop")


async def bury(broker: Broker, *wanted: Job) -> list[str]:
    """Jobs that became dead letters, one after the other; their ids."""
    for job in wanted:
        await add_all(broker, [job])
        found = await broker.fetch(job.stage, 0, "a", 1, 10)
        stage = broker.pipeline.stage(job.stage)
        ending = [(delivery, Bury("cannot be", "why not")) for delivery in found]
        assert await broker.bury(stage, 0, "a", ending) == [True]
        await asyncio.sleep(0.002)  # so that each has a time of its own, as their order is looked at
    ids = [letter.job_id async for letter in broker.dead_letters(broker.pipeline)]
    return sorted(ids, key=lambda job: [int(part) for part in JobId.parse(job).entry.split("-")])


async def walk(client: Client, query: str) -> list[list[str]]:
    """The job ids of all pages."""
    pages, after = [], ""
    while True:
        page = await told(client, "GET", f"/queue/dead?{query}{after}", "read")
        pages.append([letter["jobId"] for letter in page["letters"]])
        if page["next"] is None:
            return pages
        after = f"&after={page['next']}"


# ── dead letters ─────────────────────────────────────────────────────────────────────────────────


async def test_dead_letters_come_in_pages_the_newest_first_of_whichever_stage(
    client: Client, broker: Broker
) -> None:
    ids = await bury(broker, send(), hear(), send(), send(), hear())
    newest = ids[::-1]
    assert await walk(client, "limit=2") == [newest[:2], newest[2:4], newest[4:]]
    assert await walk(client, "limit=5") == [newest], "no empty page at the end"
    heard = [job for job in newest if job.startswith("transcribe")]
    for query in ("queue=audio", "stage=transcribe", "queue=audio&stage=transcribe"):
        assert await walk(client, f"{query}&limit=1") == [[job] for job in heard]
    assert await walk(client, "queue=cleanup") == [[]]


async def test_letters_of_one_instant_in_several_stages_are_each_shown_once(
    client: Client, redis: "Redis", namespace: str
) -> None:
    record = msgspec.msgpack.encode({"state": "failed", "attempt": 1, "at_ms": 1})
    for stage in ("transcribe", "send-client", "alert"):
        for n in range(3):
            await redis.xadd(
                Keys(namespace).dead(stage, 0), {"id": f"{n}-1", "e": "", "record": record}, id=f"5-{n}"
            )
    wanted = [f"{stage}.0.{n}-1" for n in (2, 1, 0) for stage in ("transcribe", "send-client", "alert")]
    for limit in (1, 2, 4, 9):
        assert [*chain(*await walk(client, f"limit={limit}"))] == wanted


async def test_what_is_buried_meanwhile_does_not_move_the_next_page(client: Client, broker: Broker) -> None:
    ids = await bury(broker, send(), send(), send())
    page = await told(client, "GET", "/queue/dead?limit=1", "read")
    await bury(broker, send(), hear())
    rest = await walk(client, f"after={page['next']}")
    assert rest == [[ids[1], ids[0]]]


async def test_pages_end_early_where_letters_are_long_and_none_is_left_out(
    client: Client, broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(letters, "READ_AT_ONCE", 1_000)
    ids = await bury(broker, send("x" * 2_000), hear(), send("x" * 2_000), hear(), send("x" * 2_000))
    pages = await walk(client, "limit=50")
    assert [*chain(*pages)] == ids[::-1]
    assert len(pages) > 1


async def test_a_list_shows_whose_a_letter_is_but_no_payload_and_of_a_long_one_neither(
    client: Client, broker: Broker
) -> None:
    short, long = await bury(broker, send(), send("x" * 2**15))
    page = await told(client, "GET", "/queue/dead", "read")
    of_long, of_short = page["letters"]
    assert (of_short["jobId"], of_short["tenant"], of_short["reason"]) == (short, "shop", "cannot be")
    assert of_long["jobId"] == long
    assert "tenant" not in of_long
    assert SECRET not in str(page)
    assert "payload" not in of_short | of_long


async def test_one_letter_whole_takes_an_admin(client: Client, broker: Broker) -> None:
    (job,) = await bury(broker, send())
    assert (await ask(client, "GET", f"/queue/dead/{job}", "read"))[0] == 403
    assert (await told(client, "GET", f"/queue/dead/{job}"))["payload"]["text"] == SECRET
    assert (await ask(client, "GET", "/queue/dead/send-client.0.1-1"))[0] == 404
    assert (await ask(client, "GET", "/queue/dead/7"))[0] == 400


@pytest.mark.parametrize(
    ("query", "status", "said"),
    [
        ("limit=0", 400, "limit = '0' is no number from 1 to 200"),
        ("limit=201", 400, "no number from 1 to 200"),
        ("limit=%C2%B2", 400, "no number from 1 to 200"),
        ("after=5-1", 400, "'5-1' is not a job id"),
        ("queue=audio&after=send-client.0.5-1", 400, "no point in this list"),
        ("after=send-client.7.5-1", 400, "no point in this list"),
        ("after=send-client.0.0-0", 400, "no point in this list"),
        ("queue=audoi", 404, "did you mean 'audio'?"),
        ("queue=audio&stage=send-client", 404, "queue 'audio' has no kind 'send-client'"),
    ],
)
async def test_a_page_that_cannot_be_is_refused_with_the_reason(
    client: Client, query: str, status: int, said: str
) -> None:
    answered, problem = await ask(client, "GET", f"/queue/dead?{query}", "read")
    assert answered == status
    assert said in problem["detail"]


# ── clear and purge ──────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("what", ["clear", "purge"])
async def test_what_deletes_takes_an_admin_and_the_queues_name_once_more(
    client: Client, broker: Broker, what: str
) -> None:
    await bury(broker, send())
    await add_all(broker, [send()])
    path = f"/queue/{what}/notification"
    good = {"confirm": "notification"}
    for scope in ("read", "enqueue"):
        assert (await ask(client, "POST", path, scope, json=good))[0] == 403
    assert (await ask(client, "POST", path))[0] == 400, "nothing sent"
    for confirm in ("", "audio", "send-client", "Notification"):
        status, problem = await ask(client, "POST", path, json={"confirm": confirm, "stage": "send-client"})
        assert status == 400
        assert '{"confirm":"notification"}' in problem["detail"]
    wrongs: list[Any] = [{**good, "stgae": "x"}, {"confirm": 1}, [], "notification"]
    for wrong in wrongs:
        assert (await ask(client, "POST", path, json=wrong))[0] == 400
    assert (await ask(client, "POST", path, json={**good, "stage": "transcribe"}))[0] == 404
    assert (await ask(client, "POST", f"/queue/{what}/send-client", json={"confirm": "send-client"}))[0] == 404
    left = next(each for each in await broker.status() if each.stage == "send-client")
    assert (left.waiting, left.dead) == (1, 1)


async def test_clearing_deletes_what_is_unfinished_and_what_runs_only_if_asked_to(
    client: Client, broker: Broker
) -> None:
    await add_all(broker, [send() for _ in range(3)])
    await add_all(broker, [Job(stage="send-client", payload=SendClient(to="1", text="x"), delay=60), hear()])
    await broker.fetch("send-client", 0, "a", 1, 10)
    confirmed = {"confirm": "notification"}
    assert await told(client, "POST", "/queue/clear/notification", json={**confirmed, "stage": "alert"}) == {
        "cleared": 0
    }
    assert await told(client, "POST", "/queue/clear/notification", json=confirmed) == {"cleared": 3}
    assert await told(client, "POST", "/queue/clear/notification", json={**confirmed, "active": True}) == {
        "cleared": 1
    }
    assert sum(each.waiting for each in await broker.status()) == 1, "the other queue's"


async def test_clearing_answers_in_time_and_goes_on_when_asked_again(
    client: Client, broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(operating, "CLEAR_FOR", -1.0)
    await add_all(broker, [send() for _ in range(1_200)])
    body = {"confirm": "notification", "stage": "send-client"}
    answers: list[dict[str, Any]] = []
    while not answers or not answers[-1].get("complete", True):
        answers.append(await told(client, "POST", "/queue/clear/notification", json=body))
        if len(answers) == 3:
            monkeypatch.undo()
    assert [answer.get("complete", True) for answer in answers] == [False, False, False, True]
    assert sum(answer["cleared"] for answer in answers) == 1_200


async def test_clearing_stops_when_nobody_waits_for_it_any_more(
    client: Client, broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    await add_all(broker, [send() for _ in range(2_000)])
    clearing, first, go_on, ended = Broker.clearing, asyncio.Event(), asyncio.Event(), asyncio.Event()

    deleted: list[int] = []

    async def slowly(self: Broker, *about: Any, **more: Any) -> AsyncIterator[int]:
        try:
            async for count in clearing(self, *about, **more):
                deleted.append(count)
                yield count
                first.set()
                await go_on.wait()
        finally:
            ended.set()

    monkeypatch.setattr(Broker, "clearing", slowly)
    body = {"confirm": "notification", "stage": "send-client"}
    asking = asyncio.create_task(ask(client, "POST", "/queue/clear/notification", json=body))
    await first.wait()
    asking.cancel()
    server: Any = client.server
    connections = server.runner.server.connections
    await reached(lambda: not any(each.transport for each in connections), what="the connection being gone")
    go_on.set()
    await ended.wait()
    assert sum(each.waiting for each in await broker.status()) == 2_000 - sum(deleted) > 0


async def test_purging_deletes_the_dead_letters_of_a_stage_or_queue_and_their_index(
    client: Client, broker: Broker, redis: "Redis", namespace: str
) -> None:
    jobs = await bury(broker, send(), send(), hear())
    body = {"confirm": "notification"}
    assert await told(client, "POST", "/queue/purge/notification", json={**body, "stage": "alert"}) == {
        "purged": 0
    }
    assert await told(client, "POST", "/queue/purge/notification", json=body) == {"purged": 2}
    assert await walk(client, "") == [[jobs[-1]]]
    assert not await redis.exists(
        Keys(namespace).letters("send-client", 0), Keys(namespace).dead("send-client", 0)
    )


# ── stages, jobs, workers, schedules ─────────────────────────────────────────────────────────────


async def test_pausing_draining_and_resuming_name_the_stages(client: Client, broker: Broker) -> None:
    async def steered() -> list[tuple[str, bool, bool]]:
        found = await broker.status()
        return [(each.stage, each.paused, each.draining) for each in found if each.paused or each.draining]

    assert await told(client, "POST", "/queue/pause/transcribe") == {"stages": ["audio.transcribe"]}
    both = {"stages": ["audio.transcribe", "audio.process-conversation"]}
    assert await told(client, "POST", "/queue/drain/audio") == both
    assert await steered() == [("transcribe", True, True), ("process-conversation", False, True)]
    assert await told(client, "POST", "/queue/resume/audio") == both
    assert await steered() == []
    for what in ("pause", "drain", "resume"):
        for name in ("audoi", "%00", "%ff", "x" * 500):
            assert (await ask(client, "POST", f"/queue/{what}/{name}"))[0] == 404
        assert (await ask(client, "POST", f"/queue/{what}/jobs", "enqueue"))[0] == 403, "no queue of that name"


async def test_a_job_is_cancelled_by_whoever_may_add_one(client: Client, broker: Broker) -> None:
    running, waiting = await add_all(broker, [send(), send()])
    await broker.fetch("send-client", 0, "a", 1, 10)
    assert (await ask(client, "POST", f"/queue/cancel/{waiting}", "read"))[0] == 403
    for job, answer in ((waiting, "cancelled"), (running, "cancelling")):
        told_of = await told(client, "POST", f"/queue/cancel/{job}", "enqueue")
        assert told_of == {"jobId": str(job), "answer": answer}
    status, problem = await ask(client, "POST", f"/queue/cancel/{waiting}", "enqueue")
    assert (status, problem["detail"]) == (404, f"no unfinished job {waiting}; nothing was cancelled")
    assert (await ask(client, "POST", "/queue/cancel/7", "enqueue"))[0] == 400


async def test_workers_are_shown_with_what_they_hold_and_who_was_heard_of_last_first(
    client: Client, broker: Broker
) -> None:
    assert await told(client, "GET", "/queue/workers", "read") == {"workers": []}
    await add_all(broker, [send(), send(), send(), hear()])
    found = await broker.fetch("send-client", 0, "old.0", 2, 10)
    await broker.release("send-client", 0, "old.0", found[:1])  # under the name of a pseudo-consumer
    await asyncio.sleep(0.05)
    await broker.fetch("send-client", 0, "new.0", 1, 10)
    await broker.fetch("transcribe", 0, "new.0", 1, 10)
    new, old = (await told(client, "GET", "/queue/workers", "read"))["workers"]
    assert (new["worker"], new["stages"], new["active"]) == ("new.0", ["transcribe", "send-client"], 2)
    assert (old["worker"], old["stages"], old["active"]) == ("old.0", ["send-client"], 1)
    assert new["silentSeconds"] < 0.05 <= old["silentSeconds"] < 20


async def test_a_schedule_is_run_paused_and_resumed(client: Client, broker: Broker) -> None:
    async def paused() -> list[str]:
        found = (await told(client, "GET", "/queue/scheduled-jobs", "read"))["schedules"]
        return [each["name"] for each in found if each["paused"]]

    status, fired = await ask(client, "POST", "/queue/schedule/stats/run")
    assert (status, fired["jobId"].startswith("stats.0.")) == (202, True)
    assert await told(client, "POST", "/queue/schedule/stats/pause") == {"schedule": "stats", "paused": True}
    assert await paused() == ["stats"]
    assert await told(client, "POST", "/queue/schedule/stats/resume") == {"schedule": "stats", "paused": False}
    assert await paused() == []
    for what in ("run", "pause", "resume"):
        status, problem = await ask(client, "POST", f"/queue/schedule/statz/{what}")
        assert (status, "did you mean 'stats'?" in problem["detail"]) == (404, True)
        assert (await ask(client, "POST", f"/queue/schedule/stats/{what}", "enqueue"))[0] == 403
    await broker.drain([broker.pipeline.stage("stats")])
    assert (await ask(client, "POST", "/queue/schedule/stats/run"))[0] == 503
