"""The messages of a chat are answered in the order they were sent in: through the engine, by two workers."""

import asyncio
import itertools
import secrets
import tempfile
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from api.adapters import Adapters
from config import load
from pipeline import Broker, Bury, Context, Done, Job, JobId, Permanent, Pipeline, Stage
from pipeline.message import now_ms
from stages import Limits, build_pipeline
from stages.conversation import process
from stages.conversation.announce import Announced
from stages.conversation.process import ConversationHandler
from stages.conversation.store import ConversationStore
from stages.jobs import Incoming, ProcessConversation, SendClient, Transcribe
from stages.ports import REPLY, Message, Ports
from stages.store import Database, sqlite_file
from tests.support import (
    Connect,
    Connector,
    add_one,
    context_of,
    conversations,
    depths,
    eventually,
    reached,
    until,
    working,
)

pytestmark = pytest.mark.integration

PATIENCE = 60.0
FAR_AHEAD = 365 * 86_400_000  # ms
WEEK = 7 * 86_400_000


class Gates:
    """Pieces of work that start, and then wait for the test where it holds them."""

    def __init__(self) -> None:
        self.started: list[str] = []
        self._held: dict[str, asyncio.Event] = {}

    def hold(self, name: str) -> asyncio.Event:
        """Setting it lets that piece of work go on."""
        return self._held.setdefault(name, asyncio.Event())

    async def pass_through(self, name: str) -> None:
        self.started.append(name)
        if name in self._held:
            await self._held[name].wait()


class Answers(Gates):
    """A Responder; keeps what it was told had been said before."""

    def __init__(self) -> None:
        super().__init__()
        self.before: dict[str, list[str]] = {}

    async def reply(self, history: Sequence[Message]) -> str:
        asked = history[-1].text
        self.before[asked] = [message.text for message in history[:-1]]
        await self.pass_through(asked)
        return f"re: {asked}"


class Notes(Gates):
    """A handler of voice notes; a note's words are its source, unless it is to end in something else."""

    def __init__(self) -> None:
        super().__init__()
        self.ends: dict[str, Any] = {}

    async def __call__(self, ctx: Context, job: Transcribe) -> Any:
        await self.pass_through(job.source)
        end = self.ends.get(job.source)
        if isinstance(end, Exception):
            raise end
        if end is not None:
            return end
        assert job.message
        spoken = ProcessConversation(message=job.message, text=job.source, voice=True)
        return Done(forward=(ctx.forward("process-conversation", spoken),))


class Chats:
    """The stages with two workers on them; what happens outside is in the test's hands."""

    def __init__(self, store: ConversationStore, patience: float = PATIENCE) -> None:
        self.notes, self.answers, self.store = Notes(), Answers(), store
        self.now = now_ms() // 1000 * 1000  # WhatsApp's times are whole seconds
        self.broker: Broker
        self.pipeline = Pipeline(
            [
                _stage("transcribe", Transcribe, Announced(self.notes, store)),
                _stage(
                    "process-conversation",
                    ProcessConversation,
                    ConversationHandler(store, self.answers, 20, patience),
                    concurrency=1,
                ),
                _stage("send-client", SendClient, _sent),
            ]
        )

    async def text(self, text: str, sent_ms: int, *, chat: str = "ana") -> JobId:
        job = ProcessConversation(message=Incoming(chat, text, sent_ms), text=text)
        return await add_one(self.broker, Job(stage="process-conversation", payload=job, tenant="shop"))

    async def note(self, words: str, sent_ms: int) -> JobId:
        """Add a voice note, and wait until it is being transcribed."""
        job = Transcribe(source=words, message=Incoming("ana", words, sent_ms))
        id_ = await add_one(self.broker, Job(stage="transcribe", payload=job, tenant="shop"))
        await reached(lambda: words in self.notes.started, what=f"the transcription of {words}")
        return id_

    async def one_waits(self) -> None:
        """Until a message has found that it is not its turn."""

        async def parked() -> bool:
            return (await depths(self.broker, "process-conversation"))[2] == 1

        await eventually(parked, what="a message waiting for its turn")

    async def done(self, *jobs: JobId) -> None:
        for job in jobs:
            await until(self.broker, job, "completed")

    async def answered(self, *texts: str) -> None:
        """Until these are all that is answered, in this order."""
        await reached(lambda: len(self.answers.started) >= len(texts), what=f"answers to {texts}")
        assert self.answers.started == [*texts]


def _stage(name: str, payload: type, handler: Any, *, concurrency: int = 4) -> Stage:
    return Stage(
        queue="test", name=name, payload=payload, handler=handler, concurrency=concurrency, keep_results=60.0
    )


async def _sent(ctx: Context, job: SendClient) -> str:
    return job.text


@asynccontextmanager
async def worked(connector: Connector, chats: Chats) -> AsyncIterator[Chats]:
    connect = connector(chats.pipeline)
    async with (
        connect() as chats.broker,
        working(connect, chats.pipeline),
        working(connect, chats.pipeline),
    ):
        yield chats


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[ConversationStore]:
    async with conversations(sqlite_file(tmp_path / "riacho.db")) as store:
        yield store


@pytest.fixture
async def chats(store: ConversationStore, connector: Connector) -> AsyncIterator[Chats]:
    async with worked(connector, Chats(store)) as chats:
        yield chats


async def test_of_two_texts_on_two_workers_the_later_one_waits_and_its_slot_is_free(chats: Chats) -> None:
    go_on = chats.answers.hold("one")
    one = await chats.text("one", chats.now)
    await chats.answered("one")
    two = await chats.text("two", chats.now + 1000)
    await chats.one_waits()
    await chats.done(await chats.text("elsewhere", chats.now + 2000, chat="rui"))
    go_on.set()
    await chats.done(one, two)
    await chats.answered("one", "elsewhere", "two")
    assert chats.answers.before["two"] == ["one", "re: one"]


async def test_what_was_sent_later_and_waits_is_no_part_of_the_history(chats: Chats) -> None:
    go_on = chats.notes.hold("note")
    note = await chats.note("note", chats.now)
    text = await chats.text("text", chats.now + 1000)
    await chats.one_waits()
    go_on.set()
    await chats.done(note, text)
    await chats.answered("note", "text")
    assert chats.answers.before == {"note": [], "text": ["note", "re: note"]}


@pytest.mark.parametrize("end", [Permanent("no audio"), Bury("no audio"), Done({"text": ""})])
async def test_a_voice_note_without_words_holds_nothing_up(chats: Chats, end: Any) -> None:
    go_on, chats.notes.ends["note"] = chats.notes.hold("note"), end
    await chats.note("note", chats.now)
    text = await chats.text("text", chats.now + 1000)
    await chats.one_waits()
    go_on.set()
    await chats.done(text)
    assert chats.answers.before == {"text": []}
    assert await chats.store.unanswered("shop", "ana", 0) == []


async def test_a_voice_note_that_is_tried_again_is_waited_for(chats: Chats) -> None:
    go_on, chats.notes.ends["note"] = chats.notes.hold("note"), ConnectionError("media store away")
    note = await chats.note("note", chats.now)
    text = await chats.text("text", chats.now + 1000)
    await chats.one_waits()
    go_on.set()
    await until(chats.broker, note, "retrying")
    del chats.notes.ends["note"]
    await chats.done(note, text)
    await chats.answered("note", "text")


@pytest.mark.parametrize("ahead", [0, FAR_AHEAD])
async def test_patience_runs_out(store: ConversationStore, connector: Connector, ahead: int) -> None:
    """Also where the sender's clock is a year ahead, so that nothing of it is ever old."""
    async with worked(connector, Chats(store, patience=1.5)) as chats:
        go_on = chats.notes.hold("note")
        note = await chats.note("note", chats.now + ahead)
        text = await chats.text("text", chats.now + ahead + 1000)
        await chats.one_waits()
        await chats.done(text)
        assert chats.notes.started == ["note"]
        go_on.set()
        await chats.done(note)
        await chats.answered("text", "note")
        assert chats.answers.before["note"] == ["text", "re: text"]


async def test_messages_that_come_a_week_late_make_nobody_wait(chats: Chats, monkeypatch: Any) -> None:
    monkeypatch.setattr(process, "SHORTEST_PAUSE", 300.0)  # whoever waits is not through in time
    go_on = chats.notes.hold("note")
    note = await chats.note("note", chats.now - WEEK)
    await chats.done(await chats.text("text", chats.now), await chats.text("same second", chats.now - WEEK))
    go_on.set()
    await chats.done(note)


async def test_a_note_transcribed_again_after_its_answer_changes_nothing(chats: Chats) -> None:
    (answering,) = (await until(chats.broker, await chats.note("note", chats.now), "completed")).next
    await chats.done(JobId.parse(answering))
    kept = await chats.store.history("shop", "ana", 9)
    chats.notes.ends["note"] = Permanent("gone from the media store by now")
    again = await chats.note("note", chats.now)
    await until(chats.broker, again, "failed")
    assert await chats.store.history("shop", "ana", 9) == kept


async def test_the_transcribe_stage_announces_its_notes(store: ConversationStore) -> None:
    class Nowhere:
        announced: Sequence[Message] = ()

        async def fetch(self, source: str, tenant: str) -> bytes:
            self.announced = await store.unanswered("shop", "ana", 0)
            raise Permanent("no audio")

        async def prepare(self) -> None: ...

    nowhere: Any = Nowhere()
    ports = Ports(nowhere, nowhere, store, nowhere)
    limits: dict[str, Any] = dict.fromkeys(Limits.__struct_fields__, 1) | {"vocabulary": {}}
    real = Adapters(load(environ={}))
    parts = real.notifications.parts, real.cleaning, real.checks.parts, real.syncing
    pipeline = build_pipeline(ports, Limits(**limits), *parts)
    handler = pipeline.stage("transcribe").handler
    note = Transcribe(source="x", message=Incoming("ana", "note", 1))
    with pytest.raises(Permanent):
        await handler(context_of("transcribe", note), note)
    assert [message.id for message in nowhere.announced] == ["note"]
    assert await store.unanswered("shop", "ana", 0) == []


# ── any order of arrival ─────────────────────────────────────────────────────────────────────────


class Watched(ConversationStore):
    """Notes when which message comes to be looked at, is known, and is answered."""

    def __init__(self, database: Database) -> None:
        super().__init__(database)
        self.events: list[tuple[str, str]] = []

    async def record(self, new: Sequence[Message]) -> None:
        (message,) = new
        if message.direction == "in":
            self.events.append(("looks", message.id))
        await super().record(new)
        self.events.append(("known" if message.direction == "in" else "answered", message.id.removeprefix(REPLY)))


said = st.builds(
    Message,
    tenant=st.just("shop"),
    chat=st.sampled_from(["ana", "rui"]),
    id=st.uuids().map(str),
    direction=st.just("in"),
    text=st.just("?"),
    sent_ms=st.integers(0, 3).map(lambda second: second * 1000),
    voice=st.booleans(),
    received_ms=st.integers(0, 2),
)
arrivals = st.lists(st.tuples(said, st.sampled_from([0.0, 0.0, 0.05, 0.15])), min_size=2, max_size=7)


@hypothesis_settings(max_examples=25)
@given(arrivals=arrivals)
def test_whatever_the_order_of_arrival_known_messages_are_answered_in_the_order_they_were_sent_in(
    server: str, arrivals: list[tuple[Message, float]]
) -> None:
    """Voice notes (as after their announcement) are known from the start; a text when it has arrived."""

    async def run() -> list[tuple[str, str]]:
        with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
            patch.setattr(process, "SHORTEST_PAUSE", 0.01)
            async with Database(sqlite_file(Path(folder) / "riacho.db")) as database:
                store = Watched(database)
                chats = Chats(store)
                async with worked(connector, chats):
                    await chats.done(*[job async for job in added(chats, arrivals)])
                return store.events

    namespace = f"test-{secrets.token_hex(6)}"

    def connector(pipeline: Pipeline) -> Connect:
        return lambda: Broker(server, pipeline, namespace=namespace)

    check(asyncio.run(run()), [message for message, _ in arrivals])


async def added(chats: Chats, arrivals: list[tuple[Message, float]]) -> AsyncIterator[JobId]:
    """Announce the voice notes, then add all jobs."""
    current = [msgspec.structs.replace(m, sent_ms=chats.now + m.sent_ms) for m, _ in arrivals]
    for message in current:
        if message.voice:
            await chats.store.record([msgspec.structs.replace(message, text="")])
    for message, (_, delay) in zip(current, arrivals, strict=True):
        incoming = Incoming(message.chat, message.id, message.sent_ms, message.received_ms)
        payload = ProcessConversation(message=incoming, text=message.text, voice=message.voice)
        yield await add_one(
            chats.broker, Job(stage="process-conversation", payload=payload, tenant="shop", delay=delay)
        )


def check(events: list[tuple[str, str]], sent: list[Message]) -> None:
    """Whatever a message could know of when it looked for the last time was answered before it."""
    when = {event: index for index, event in enumerate(events)}  # the last time
    known = {event[1]: index for index, event in reversed([*enumerate(events)]) if event[0] == "known"}
    for one, other in itertools.permutations(sent, 2):
        first, second = [(message.sent_ms, message.received_ms, message.id) for message in (one, other)]
        if one.chat == other.chat and first < second and known[one.id] < when["looks", other.id]:
            assert when["answered", one.id] < when["answered", other.id], (one, other)
