"""The stage `audio.process-conversation`."""

from pipeline import Context, Done
from pipeline.message import now_ms
from stages.jobs import ProcessConversation, SendClient
from stages.ports import Conversations, Message, Responder


class ConversationHandler:
    """Keep the customer's message, find an answer, keep that, and have it sent.

    Coming a second time changes nothing: both are kept under ids that stay the same.
    """

    def __init__(self, conversations: Conversations, responder: Responder, context: int) -> None:
        self._conversations = conversations
        self._responder = responder
        self._context = context

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
        forward = ctx.forward("send-client", SendClient(to=chat, text=reply.text))
        return Done({"reply": reply.text}, forward=(forward,))
