"""The stage `audio.process-conversation`."""

import logging

from pipeline import Context, Done, RetryLater
from pipeline.message import now_ms
from stages.conversation.proof import Proofs
from stages.jobs import ProcessConversation, SendClient
from stages.ports import REPLY, Conversations, Message, Responder, Synthesizer

log = logging.getLogger(__name__)

SHORTEST_PAUSE, LONGEST_PAUSE = 0.1, 1.0  # seconds


class ConversationHandler:
    """Keep the customer's message, wait for its turn, find an answer, keep that, and have it sent: spoken, too,
    where they spoke.

    It is a message's turn when the earlier ones of its chat that are known have been answered, or were sent more
    than `patience` seconds ago, or it has itself waited that long. Coming a second time changes nothing: message
    and reply are kept under ids that stay the same.
    """

    def __init__(
        self,
        conversations: Conversations,
        responder: Responder,
        context: int,
        patience: float = 0.0,
        synthesizer: Synthesizer | None = None,
        proofs: Proofs | None = None,
    ) -> None:
        self._conversations = conversations
        self._responder = responder
        self._context = context
        self._patience = patience
        self._synthesizer = synthesizer
        self._proofs = proofs

    async def __call__(self, ctx: Context, job: ProcessConversation) -> Done:
        asked = Message.incoming(ctx.tenant, job.message, job.text, voice=job.voice)
        reply = await self._conversations.find(asked.tenant, asked.chat, REPLY + asked.id)
        if reply is None:
            reply = await self._answer(ctx, job, asked)
        audio = await self._spoken(reply.text) if job.voice else None
        forward = ctx.forward("send-client", SendClient(to=asked.chat, text=reply.text, audio=audio))
        return Done({"reply": reply.text}, forward=(forward,))

    async def _answer(self, ctx: Context, job: ProcessConversation, asked: Message) -> Message:
        """Answer a message if it is its turn, and keep both. Raises RetryLater if it is not."""
        # Kept before looking: of two that look at the same time, the later one sees the other.
        await self._conversations.record([asked])
        later = await self._wait_for_turn(asked, waited=(now_ms() - ctx.enqueued_ms) / 1000)
        history = await self._conversations.history(asked.tenant, asked.chat, self._context, without=later)
        told = [*history, asked]
        text = await self._proofs.take(ctx, job, told) if self._proofs else ""
        text = text or await self._responder.reply(told)
        sent_ms = max(now_ms(), asked.sent_ms + 1)  # after the message, whatever the sender's clock says
        reply = Message(asked.tenant, asked.chat, REPLY + asked.id, "out", text, sent_ms)
        await self._conversations.record([reply])
        return reply

    async def _wait_for_turn(self, asked: Message, waited: float) -> list[str]:
        """The ids of the message and the later ones that wait for it. Raises RetryLater if it has to wait too."""
        oldest = now_ms() - int(self._patience * 1000)
        waiting = await self._conversations.unanswered(asked.tenant, asked.chat, min(oldest, asked.sent_ms))
        earlier = [message for message in waiting if message.order < asked.order and message.sent_ms > oldest]
        if earlier and waited < self._patience:
            pause = min(max(waited / 4, SHORTEST_PAUSE), LONGEST_PAUSE)
            raise RetryLater(pause, "an earlier message of the chat is still to be answered")
        return [message.id for message in waiting if message.order >= asked.order]

    async def _spoken(self, text: str) -> str | None:
        if self._synthesizer is None:
            return None
        try:
            return await self._synthesizer.speak(text)
        except Exception as error:  # noqa: BLE001 - nothing that befalls speech is worth the reply
            log.warning("a reply goes out as text alone: %s", error)
            return None
