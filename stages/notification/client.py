"""The stage `notification.send-client`."""

from pipeline import Context
from stages.jobs import SendClient
from stages.ports import Messenger, Outgoing


class ClientHandler:
    """Send a text to a customer."""

    def __init__(self, messenger: Messenger) -> None:
        self._messenger = messenger

    async def __call__(self, ctx: Context, job: SendClient) -> dict[str, str]:
        message = Outgoing(tenant=ctx.tenant, to=job.to, text=job.text, audio=job.audio, template=job.template)
        message_id = await self._messenger.send(str(ctx.job_id), message, again=ctx.attempt > 1)
        return {"messageId": message_id}
