"""The stage `audio.process-conversation`."""

import logging

from pipeline import Context, Done
from pipeline.message import now_ms
from stages.jobs import ProcessConversation, SendClient
from stages.ports import Conversations, Message, Responder, Synthesizer

log = logging.getLogger(__name__)


class ConversationHandler:
    """Keep the customer's message, find an answer, keep that, and have it sent: spoken, too, where they spoke.

    Coming a second time changes nothing: both are kept under ids that stay the same.
    """

    def __init__(
        self,
        conversations: Conversations,
        responder: Responder,
        context: int,
        synthesizer: Synthesizer | None = None,
    ) -> None:
        self._conversations = conversations
        self._responder = responder
        self._context = context
        self._synthesizer = synthesizer

    async def __call__(self, ctx: Context, job: ProcessConversation) -> Done:
        tenant, chat = ctx.tenant, job.message.chat
        reply_id = f"reply:{job.message.id}"
        reply = await self._conversations.find(tenant, chat, reply_id)
        if reply is None:
            asked = Message(tenant, chat, job.message.id, "in", job.text, job.message.sent_ms, job.voice)
            earlier = await self._conversations.history(tenant, chat, self._context)
            text = await self._responder.reply([*(m for m in earlier if m.id != asked.id), asked])
            reply = Message(tenant, chat, reply_id, "out", text, now_ms())
            await self._conversations.record([asked, reply])
        audio = await self._spoken(reply.text) if job.voice else None
        forward = ctx.forward("send-client", SendClient(to=chat, text=reply.text, audio=audio))
        return Done({"reply": reply.text}, forward=(forward,))

    async def _spoken(self, text: str) -> str | None:
        if self._synthesizer is None:
            return None
        try:
            return await self._synthesizer.speak(text)
        except Exception as error:  # noqa: BLE001 - nothing that befalls speech is worth the reply
            log.warning("a reply goes out as text alone: %s", error)
            return None
