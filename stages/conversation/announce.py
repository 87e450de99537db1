"""Voice notes announced to their conversation, so that what is said after them waits for their words."""

from pipeline import Context, Done, Permanent, Retry
from pipeline.stage import Handler
from stages.jobs import Transcribe
from stages.ports import Conversations, Message


class Announced:
    """A handler of voice notes whose conversation knows of each from its start on.

    The note stays in the conversation without a text until it is transcribed, and is dismissed where it turns out
    that there is nothing to hand on: nobody is to wait for it then.
    """

    def __init__(self, handler: Handler, conversations: Conversations) -> None:
        self._handler = handler
        self._conversations = conversations

    async def __call__(self, ctx: Context, job: Transcribe) -> object:
        if job.message is None:
            return await self._handler(ctx, job)
        note = Message.incoming(ctx.tenant, job.message, "", voice=True)
        await self._conversations.record([note])
        try:
            outcome = await self._handler(ctx, job)
        except Permanent:
            await self._conversations.dismiss(note)
            raise
        if not isinstance(outcome, Retry) and not (isinstance(outcome, Done) and outcome.forward):
            await self._conversations.dismiss(note)
        return outcome
