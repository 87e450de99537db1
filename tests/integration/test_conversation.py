"""The conversation stage on a real database: what it keeps, and what coming again changes."""

import asyncio
import logging
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import msgspec
import pytest

from pipeline import Done, RetryLater, RiachoError
from pipeline.message import now_ms
from stages.conversation import process
from stages.conversation.process import ConversationHandler
from stages.conversation.store import ConversationStore
from stages.jobs import Incoming, ProcessConversation
from stages.ports import Message
from stages.store import sqlite_file
from tests.support import context_of, conversations

pytestmark = pytest.mark.integration


class Counting:
    """A Responder that never says the same thing twice."""

    def __init__(self) -> None:
        self.histories: list[list[str]] = []

    async def reply(self, history: Sequence[Message]) -> str:
        self.histories.append([message.text for message in history])
        return f"answer {len(self.histories)}"


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[ConversationStore]:
    async with conversations(sqlite_file(tmp_path / "riacho.db")) as store:
        yield store


class Speaking:
    """A Synthesizer that fails with `error` where there is one."""

    def __init__(self, error: Exception | None = None) -> None:
        self.error = error

    async def speak(self, text: str) -> str:
        if self.error:
            raise self.error
        return f"/tts/{text}.ogg"


def asked(text: str, number: int, *, voice: bool = False) -> ProcessConversation:
    said = Incoming(chat="5511987654321", id=f"wamid.{number}", sent_ms=number)
    return ProcessConversation(message=said, text=text, voice=voice)


async def work(handler: ConversationHandler, job: ProcessConversation, *, attempt: int = 1) -> Done:
    return await handler(context_of("process-conversation", job, attempt=attempt), job)


async def test_a_message_and_its_reply_are_kept_and_the_reply_is_sent(store: ConversationStore) -> None:
    done = await work(ConversationHandler(store, Counting(), 10), asked("Olá", 1))
    (forward,) = done.forward
    assert (forward.stage, forward.tenant) == ("send-client", "shop")
    assert msgspec.to_builtins(forward.payload) == {"to": "5511987654321", "text": "answer 1"}
    kept = await store.history("shop", "5511987654321", 10)
    assert [(message.direction, message.text) for message in kept] == [("in", "Olá"), ("out", "answer 1")]


async def test_a_job_that_comes_again_sends_the_reply_it_had_found_and_keeps_nothing_twice(
    store: ConversationStore,
) -> None:
    responder = Counting()
    handler = ConversationHandler(store, responder, 10)
    first = await work(handler, asked("Olá", 1))
    again = await work(handler, asked("Olá", 1), attempt=2)
    assert again == first
    assert len(responder.histories) == 1
    assert len(await store.history("shop", "5511987654321", 10)) == 2


async def test_of_two_that_look_at_the_same_moment_only_the_earlier_is_answered(store: ConversationStore) -> None:
    class Together(ConversationStore):
        both = asyncio.Barrier(2)

        async def unanswered(self, tenant: str, chat: str, since_ms: int) -> list[Message]:
            found = await super().unanswered(tenant, chat, since_ms)
            await self.both.wait()
            return found

    handler, now = ConversationHandler(Together(store._database), Counting(), 10, patience=60), now_ms()
    one, two = await asyncio.gather(
        work(handler, asked("one", now)), work(handler, asked("two", now + 1)), return_exceptions=True
    )
    assert isinstance(one, Done)
    assert isinstance(two, RetryLater)
    assert 0 < two.seconds <= process.LONGEST_PAUSE


async def test_a_reply_draws_on_what_was_said_before_and_no_more_than_it_should(store: ConversationStore) -> None:
    responder = Counting()
    handler = ConversationHandler(store, responder, 2)
    for number, text in enumerate(("one", "two", "three")):
        await work(handler, asked(text, number))
    assert responder.histories[1][-1] == "two"
    assert "one" in responder.histories[1]
    assert len(responder.histories[2]) <= 3


def forwarded(done: Done) -> dict[str, str]:
    (forward,) = done.forward
    payload: dict[str, str] = msgspec.to_builtins(forward.payload)
    return payload


async def test_a_voice_note_is_answered_with_one_and_a_text_is_not(store: ConversationStore) -> None:
    handler = ConversationHandler(store, Counting(), 10, 0, Speaking())
    sent = {"to": "5511987654321", "text": "answer 1", "audio": "/tts/answer 1.ogg"}
    assert forwarded(await work(handler, asked("Olá", 1, voice=True))) == sent
    assert forwarded(await work(handler, asked("Olá", 1, voice=True), attempt=2)) == sent
    assert "audio" not in forwarded(await work(handler, asked("Olá", 2)))


@pytest.mark.parametrize("error", [RiachoError("no voice"), TimeoutError("no voice"), KeyError("no voice")])
async def test_a_reply_that_cannot_be_spoken_goes_out_as_text(
    store: ConversationStore, caplog: pytest.LogCaptureFixture, error: Exception
) -> None:
    done = await work(ConversationHandler(store, Counting(), 10, 0, Speaking(error)), asked("Olá", 1, voice=True))
    assert forwarded(done) == {"to": "5511987654321", "text": "answer 1"}
    (record,) = [record for record in caplog.records if record.levelno == logging.WARNING]
    assert "no voice" in record.getMessage()
