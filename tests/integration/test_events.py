"""Events of jobs' transitions: on a real server, over HTTP."""

import asyncio
import contextlib
import socket
import time
from collections.abc import AsyncIterator, Iterator
from typing import Any

import msgspec
import pytest
from redis.asyncio import Redis

import api.events
from api import hub
from pipeline import Broker, Bury, Context, Done, Job, Pipeline, Retry, tail
from pipeline.broker import following
from pipeline.errors import Permanent
from pipeline.events import Told
from pipeline.keys import GROUP, Keys
from pipeline.message import Delivery
from pipeline.outcome import Settled
from tests.commands import call
from tests.desk import Serve
from tests.listening import Client, Heard, Listener, listening, said, served
from tests.support import (
    Connector,
    Noted,
    Number,
    add_all,
    add_one,
    eventually,
    jobs,
    reached,
    stage,
    unused,
    working,
)

pytestmark = pytest.mark.integration

DONE = Settled(msgspec.Raw(b"\xc0"))


async def noop(ctx: Context, payload: Number) -> None:
    """Succeeds."""


async def moody(ctx: Context, payload: Number) -> None:
    if ctx.attempt == 1:
        raise RuntimeError("not yet")


async def hopeless(ctx: Context, payload: Number) -> None:
    raise Permanent("never")


async def handing_on(ctx: Context, payload: Number) -> Done:
    return Done(forward=(ctx.forward("plain", payload),))


async def reporting(ctx: Context, payload: Number) -> None:
    await ctx.progress(40, "half")


STAGES = [
    stage("plain", noop, keep_results=0),
    stage("kept", noop),
    stage("moody", moody, keep_results=0),
    stage("hopeless", hopeless),
    stage("parent", handing_on, keep_results=0),
    stage("reporting", reporting),
    stage("narrow", noop, tenant_limit=1),
    stage("elsewhere", noop, queue="other"),
]
ALL = Pipeline(STAGES)


@pytest.fixture
async def broker(connector: Connector) -> AsyncIterator[Broker]:
    async with connector(ALL)() as broker:
        await broker.ensure_groups()
        yield broker


@pytest.fixture
async def client(broker: Broker) -> AsyncIterator[Client]:
    async with served(broker) as client:
        yield client


async def added(listener: Listener, broker: Broker, name: str, count: int) -> list[str]:
    """Add so many jobs and hear of it; their ids."""
    ids = [str(job) for job in await add_all(broker, jobs(name, count))]
    assert [heard.data["jobId"] for heard in await listener.take(count)] == ids
    return ids


async def fetched(broker: Broker, count: int) -> list[Delivery]:
    """So many entries, in another turn of the loop than what is done to them, as with a worker."""
    found = await broker.fetch("plain", 0, "a", count, 1)
    await asyncio.sleep(0)
    return found


# ── what is told ─────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("plain", ["plain waiting", "plain active 1", "plain completed 1"]),
        ("kept", ["kept waiting", "kept active 1", "kept completed 1"]),
        (
            "moody",
            ["moody waiting", "moody active 1", "moody retrying 1", "moody active 2", "moody completed 2"],
        ),
        ("hopeless", ["hopeless waiting", "hopeless active 1", "hopeless failed 1"]),
        (
            "reporting",
            ["reporting waiting", "reporting active 1", "reporting active 1 40", "reporting completed 1"],
        ),
        (
            "parent",
            [
                "parent waiting",
                "parent active 1",
                "parent completed 1",
                "plain waiting",
                "plain active 1",
                "plain completed 1",
            ],
        ),
    ],
)
async def test_every_transition_is_told_in_order(
    connector: Connector, client: Client, broker: Broker, name: str, expected: list[str]
) -> None:
    async with working(connector(ALL), ALL), listening(client) as listener:
        before = time.time() * 1000 - 1000
        job = await add_one(broker, Job(stage=name, payload=Number(1)))
        heard = await listener.take(len(expected))
    assert [said(each) for each in heard] == expected
    assert heard[0].data["jobId"] == str(job)
    assert heard[0].data["queue"] == "test"
    assert all(before < each.data["at"] < before + 60_000 for each in heard)
    assert len({each.id for each in heard}) == len(heard)


async def test_the_first_jobs_after_somebody_came_are_told_of_though_no_worker_knew(
    client: Client, broker: Broker
) -> None:
    await broker.add(jobs("plain", 3))
    found = await broker.fetch("plain", 0, "a", 3, 1)
    async with listening(client) as listener:
        await broker.settle(ALL.stage("plain"), 0, [(delivery, DONE) for delivery in found])
        assert await listener.states(3) == ["plain completed 1"] * 3


async def test_a_delayed_job_is_told_of_when_it_is_due(
    connector: Connector, client: Client, broker: Broker
) -> None:
    async with working(connector(ALL), ALL), listening(client) as listener:
        job = await add_one(broker, Job(stage="plain", payload=Number(1), delay=0.05))
        heard = await listener.take(4)
    assert [said(each) for each in heard] == [
        "plain delayed",
        "plain waiting",
        "plain active 1",
        "plain completed 1",
    ]
    assert {each.data["jobId"] for each in heard} == {str(job)}


async def test_a_job_that_is_held_back_for_its_tenant_waits_once(
    connector: Connector, client: Client, broker: Broker
) -> None:
    async with listening(client) as listener:
        await broker.add(jobs("narrow", 2))
        async with working(connector(ALL), ALL):
            heard = await listener.take(6)
    expected = ["narrow waiting"] * 2 + ["narrow active 1", "narrow completed 1"] * 2
    assert [said(each) for each in heard] == expected
    assert heard[0].data["jobId"] == heard[2].data["jobId"] != heard[4].data["jobId"] == heard[1].data["jobId"]


async def test_a_replayed_job_is_told_of_as_the_new_one_it_is(client: Client, broker: Broker) -> None:
    async with listening(client) as listener:
        (job,) = await added(listener, broker, "plain", 1)
        found = await fetched(broker, 1)
        await broker.bury(ALL.stage("plain"), 0, "a", [(found[0], Bury("no"))])
        assert await listener.states(2) == ["plain active 1", "plain failed 1"]
        (letter,) = [letter async for letter in broker.dead_letters([ALL.stage("plain")])]
        new = await broker.replay(letter)
        heard = await listener.next()
    assert said(heard) == "plain waiting"
    assert heard.data["jobId"] == str(new) != job


async def test_cancelled_jobs_are_told_of_wherever_they_were(
    connector: Connector, client: Client, broker: Broker
) -> None:
    handler = Noted(finish=False)
    running = Pipeline([stage("plain", handler, keep_results=0)])
    async with listening(client) as listener:
        job = await add_one(broker, Job(stage="plain", payload=Number(1)))
        await broker.cancel(job)
        later = await add_one(broker, Job(stage="plain", payload=Number(1), delay=60))
        await broker.cancel(later)
        assert await listener.states(4) == [
            "plain waiting",
            "plain cancelled",
            "plain delayed",
            "plain cancelled",
        ]
        async with working(connector(running), running):
            job = await add_one(broker, Job(stage="plain", payload=Number(1)))
            await reached(lambda: handler.started)
            await broker.cancel(job)
            assert await listener.states(3) == ["plain waiting", "plain active 1", "plain cancelled 1"]


async def test_jobs_that_are_handed_back_or_cleared_are_told_of(client: Client, broker: Broker) -> None:
    async with listening(client) as listener:
        await added(listener, broker, "plain", 2)
        found = await fetched(broker, 1)
        await broker.release("plain", 0, "a", found)
        await broker.reclaim("plain", 0, "b", 60.0, 1)
        await broker.retry(ALL.stage("plain"), 0, "b", [(found[0], Retry(60))])
        assert await listener.states(4) == [
            "plain active 1",
            "plain waiting",
            "plain active 1",
            "plain retrying 1",
        ]
        await add_one(broker, Job(stage="plain", payload=Number(9), delay=60))
        await broker.clear([ALL.stage("plain")])
        assert await listener.states(4) == ["plain delayed", *["plain cancelled"] * 3]


async def test_a_client_gets_what_it_names(client: Client, broker: Broker) -> None:
    async with (
        listening(client, queue="other") as of_queue,
        listening(client) as of_all,
    ):
        plain, other = await add_all(broker, [*jobs("plain", 1), *jobs("elsewhere", 1)])
        assert await of_all.states(2) == ["plain waiting", "elsewhere waiting"]
        async with listening(client, job=str(other), queue="other") as of_job:
            await broker.cancel(plain)
            await broker.cancel(other)
            assert await of_queue.states(2) == ["elsewhere waiting", "elsewhere cancelled"]
            assert await of_job.states(1) == ["elsewhere cancelled"]


@pytest.mark.parametrize(
    ("params", "status", "words"),
    [
        ({"queue": "tset"}, 404, "did you mean 'test'"),
        ({"job": "nonsense"}, 400, "'nonsense' is not a job id"),
        ({"job": "nosuch.0.1-0"}, 404, "nosuch"),
        ({"job": "plain.0.1-0", "queue": "other"}, 404, "queue 'other' has no kind 'plain'"),
        ({"lastEventId": "yesterday"}, 400, "'yesterday' is no event's id"),
        ({"lastEventId": "1-" + "9" * 30}, 400, "is no event's id"),
    ],
)
async def test_what_cannot_be_listened_to_is_refused(
    client: Client, params: dict[str, str], status: int, words: str
) -> None:
    async with client.get("/queue/events", params=params) as answer:
        assert answer.content_type == "application/problem+json"
        assert answer.status == status
        assert words in (await answer.json(content_type=None))["detail"]


async def test_the_service_has_it_and_says_how_to_keep_it(serve: Serve) -> None:
    async with serve() as client, client.get("/queue/events", params={"queue": "audio"}) as answer:
        assert answer.headers["Content-Type"] == "text/event-stream; charset=utf-8"
        assert answer.headers["Cache-Control"] == "no-store"
        assert answer.headers["X-Accel-Buffering"] == "no"
        assert await answer.content.readline() == b"retry: 1000\n"


# ── who comes back ───────────────────────────────────────────────────────────────────────────────


def told(heard: list[Heard]) -> list[tuple[str, str]]:
    return [(each.data["jobId"], each.data["state"]) for each in heard]


@pytest.mark.parametrize("partitions", [1, 2])
@pytest.mark.parametrize("by_header", [True, False])
async def test_who_comes_back_gets_what_it_missed_once(
    connector: Connector, partitions: int, by_header: bool
) -> None:
    async with connector(ALL, partitions=partitions)() as broker, served(broker) as client:
        some = [Job(stage="plain", payload=Number(n), key=str(n)) for n in range(20)]
        async with listening(client) as listener:
            first = await add_all(broker, some)
            heard = await listener.take(7)
        second = await add_all(broker, some)
        cursor = heard[-1].id
        headed, named = (cursor, {}) if by_header else ("", {"lastEventId": cursor})
        async with listening(client, headed, **named) as listener:
            heard += await listener.take(33)
            third = await add_one(broker, some[0])
            heard += await listener.take(1)
    if partitions == 2:
        assert {job.partition for job in first} == {0, 1}
    assert heard[-1].data["jobId"] == str(third)
    assert sorted(told(heard)) == sorted((str(job), "waiting") for job in [*first, *second, third])


async def test_a_quiet_listener_comes_back_to_where_it_left(
    client: Client, broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(api.events, "COMMENT_EVERY", 0.05)
    async with listening(client, queue="other") as listener:
        began = listener.cursor
        await broker.add(jobs("plain", 1))
        while listener.cursor == began:
            assert await listener.block() is None
    await broker.add(jobs("elsewhere", 1))
    async with listening(client, listener.cursor) as listener:
        assert await listener.states(1) == ["elsewhere waiting"]


@pytest.mark.parametrize("what", ["trimmed", "forgotten", "ahead", "partitions"])
async def test_who_comes_back_to_what_is_gone_is_told_so_and_goes_on(
    client: Client, broker: Broker, redis: "Redis", namespace: str, what: str
) -> None:
    async with listening(client) as listener:
        await broker.add(jobs("plain", 3))
        cursor = (await listener.take(3))[0].id
    key = Keys(namespace).events(0)
    match what:
        case "trimmed":
            await redis.xtrim(key, maxlen=1, approximate=False)
        case "forgotten":
            await redis.delete(key)
        case "ahead":
            cursor = "99999999999999-0"
        case "partitions":
            cursor += "." + cursor
    async with listening(client, cursor) as listener:
        gap = await listener.next()
        assert (gap.kind, gap.data) == ("gap", {"reason": "lost"})
        await broker.add(jobs("kept", 1))
        while (heard := await listener.next()).kind == "gap":  # those who never left learn of it, too
            pass
        assert said(heard) == "kept waiting"


async def test_what_is_trimmed_while_somebody_catches_up_is_a_gap(
    client: Client, broker: Broker, redis: "Redis", namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = Broker.events_between

    async def too_late(*args: Any) -> AsyncIterator[list[Told]]:
        await redis.xtrim(Keys(namespace).events(0), maxlen=2, approximate=False)
        async for page in read(*args):
            yield page

    async with listening(client) as listener:
        cursor = listener.cursor
        ids = await added(listener, broker, "plain", 5)
    monkeypatch.setattr(Broker, "events_between", too_late)
    async with listening(client, cursor) as listener:
        gap, *rest = await listener.take(3)
    assert (gap.kind, gap.data) == ("gap", {"reason": "lost"})
    assert [heard.data["jobId"] for heard in rest] == ids[3:]


async def test_events_that_are_lost_under_a_listener_are_a_gap(
    client: Client, broker: Broker, redis: "Redis", namespace: str
) -> None:
    async with listening(client) as listener:
        await added(listener, broker, "plain", 1)
        await redis.delete(Keys(namespace).events(0))
        assert (await listener.next()).kind == "gap"

        async def made_anew() -> bool:
            return bool(await redis.exists(Keys(namespace).events(0)))

        await eventually(made_anew)
        await broker.add(jobs("kept", 1))
        while (heard := await listener.next()).kind == "gap":
            pass
        assert said(heard) == "kept waiting"


async def test_a_tail_that_is_too_late_for_what_was_trimmed_says_so(
    broker: Broker, redis: "Redis", namespace: str
) -> None:
    late = tail.Tail(broker)
    await late.begin()
    for _ in range(3):
        await broker.add(jobs("plain", 500))
    await redis.xtrim(Keys(namespace).events(0), maxlen=1000, approximate=False)
    first, *rest = await late.read()
    assert first.said is None
    assert len(rest) == 500
    assert all(each.said for each in [*rest, *await late.read()])


# ── what it costs those who do not listen, and those who do ──────────────────────────────────────


async def test_nothing_is_told_while_nobody_listens(
    broker: Broker, client: Client, redis: "Redis", namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(following, "FOLLOWED", 0.6)
    monkeypatch.setattr(tail, "RENEW_EVERY", 0.1)
    monkeypatch.setattr(tail, "LONGEST_WAIT", 0.1)
    key = Keys(namespace).events(0)
    await broker.add(jobs("plain", 3))
    assert not await redis.exists(key)
    async with listening(client):
        await asyncio.sleep(1.0)  # longer than it lives by itself
        assert 0 < await redis.pttl(key) <= 600

    async def gone() -> bool:
        return not await redis.exists(key)

    await eventually(gone)
    await broker.add(jobs("plain", 3))
    assert not await redis.exists(key)


async def test_a_worker_ceases_to_tell_when_the_last_listener_left(
    broker: Broker, client: Client, redis: "Redis", namespace: str
) -> None:
    plain, key = ALL.stage("plain"), Keys(namespace).events(0)
    await broker.add(jobs("plain", 2))
    async with listening(client) as listener:
        found = await fetched(broker, 2)
        assert await listener.states(2) == ["plain active 1"] * 2
    await redis.delete(key)
    assert await broker.settle(plain, 0, [(found[0], DONE), (found[1], DONE)]) == 2
    assert (await redis.xpending(Keys(namespace).stream("plain", 0), GROUP))["pending"] == 0
    assert not await redis.exists(key)


async def test_listeners_that_come_and_go_take_one_connection_to_the_server(
    broker: Broker, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun: list[tail.Tail] = []
    begin = tail.Tail.begin

    async def noting(self: tail.Tail) -> None:
        begun.append(self)
        await begin(self)

    monkeypatch.setattr(tail, "LONGEST_WAIT", 5.0)
    monkeypatch.setattr(tail.Tail, "begin", noting)
    for _ in range(5):
        async with listening(client) as listener:
            await added(listener, broker, "plain", 1)
    assert len(begun) == 1


async def test_a_client_that_does_not_read_is_cut_off_and_others_are_not(
    broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hub, "MOST_UNSENT", 100_000)
    monkeypatch.setattr(hub, "MOST_PER_SECOND", 1e9)
    monkeypatch.setattr(api.events, "_notice_silence", with_little_room)
    async with served(broker, listeners=2) as client, listening(client) as reader:
        with silent_client(client):
            await eventually(lambda: is_full(client))
            for _ in range(30):  # some 30 KB each
                await broker.add(jobs("plain", 200))
                assert await reader.states(200) == ["plain waiting"] * 200
                if not await is_full(client):
                    break
            assert not await is_full(client)


async def test_a_client_that_reads_is_not_cut_off_for_what_comes_at_once(
    broker: Broker, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hub, "MOST_UNSENT", 10_000)
    async with listening(client) as listener:
        await added(listener, broker, "plain", 200)


def with_little_room(transport: asyncio.BaseTransport) -> None:
    transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)


@contextlib.contextmanager
def silent_client(client: Client) -> Iterator[socket.socket]:
    """One that asks for events, and reads nothing."""
    with socket.socket() as silent:
        silent.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        silent.connect(("127.0.0.1", client.server.port))
        silent.sendall(b"GET /queue/events HTTP/1.1\r\nHost: localhost\r\n\r\n")
        yield silent


async def is_full(client: Client) -> bool:
    """Whether nobody else may listen."""
    async with client.get("/queue/events") as answer:
        return answer.status == 503


async def test_more_than_a_client_can_take_in_is_counted_and_left_out(
    client: Client, broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hub, "MOST_PER_SECOND", 10.0)
    async with listening(client) as listener:
        ids = [str(job) for job in await add_all(broker, jobs("plain", 50))]
        async with listening(client, job=ids[30]) as of_job:
            await broker.cancel((await add_all(broker, jobs("kept", 1)))[0])
            heard = await listener.take(11)
            assert [each.data.get("jobId") for each in heard[:10]] == ids[:10]
            assert heard[10].kind == "gap"
            assert heard[10].data["reason"] == "rate"
            assert heard[10].data["missed"] >= 40
            await broker.clear([ALL.stage("plain")])
            while (heard_of_it := await of_job.next()).data["state"] != "cancelled":
                pass
            assert heard_of_it.data["jobId"] == ids[30]


async def test_one_client_too_many_is_sent_away_until_another_leaves(broker: Broker) -> None:
    async with served(broker, listeners=1) as client:
        async with listening(client), client.get("/queue/events") as refused:
            assert refused.status == 503
            assert refused.headers["Retry-After"] == "5"

        async def is_free() -> bool:
            return not await is_full(client)

        await eventually(is_free)


async def test_a_service_that_stops_does_not_wait_for_listeners(broker: Broker) -> None:
    async with contextlib.AsyncExitStack() as stack:
        async with served(broker) as client:
            listener = await stack.enter_async_context(listening(client))
            began = time.monotonic()
            stopping = asyncio.create_task(client.server.close())
            assert await listener.response.content.read() == b""  # an end, not a broken connection
            await stopping
        assert time.monotonic() - began < 2


async def test_a_service_that_stops_does_not_wait_for_a_listener_that_does_not_read(
    broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    transports: list[asyncio.WriteTransport] = []

    def noting(transport: asyncio.WriteTransport) -> None:
        with_little_room(transport)
        transports.append(transport)

    monkeypatch.setattr(api.events, "_notice_silence", noting)
    monkeypatch.setattr(api.events, "END_TIMEOUT", 0.1)
    async with served(broker) as client, listening(client) as reader:
        with silent_client(client):
            await reached(lambda: len(transports) == 2)
            while transports[1].get_write_buffer_size() < 80_000:  # what it is sent then is not waited for (yet)
                await added(reader, broker, "plain", 50)
            began = time.monotonic()
            await client.server.close()
            assert time.monotonic() - began < 2


# ── the command ──────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("as_json", [True, False])
async def test_the_command_prints_what_happens(
    connector: Connector, env: dict[str, str], redis: "Redis", namespace: str, as_json: bool
) -> None:
    flags = ["--count", "2", "--queue", "notification", *(["--json"] if as_json else [])]
    command = asyncio.create_task(asyncio.to_thread(call, "events", *flags, env=env))

    async def listened_to() -> bool:
        return bool(await redis.exists(Keys(namespace).events(0)))

    await eventually(listened_to)
    async with connector(Pipeline([stage("alert", unused), stage("transcribe", unused)]))() as broker:
        await broker.add(jobs("transcribe", 1))
        job = await add_one(broker, Job(stage="alert", payload=Number(1)))
        await broker.cancel(job)
    ended = await command
    assert (ended.code, ended.err) == (0, "")
    first, second = ended.out.splitlines()
    assert str(job) in first
    assert ('"state":"waiting"' if as_json else " waiting ") in first
    assert "cancelled" in second
