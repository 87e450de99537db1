"""The stage `notification.send-client`."""

from pipeline import Context
from stages.jobs import SendClient
from stages.ports import Messenger


class ClientHandler:
    """Send a text to a customer."""

    def __init__(self, messenger: Messenger) -> None:
        self._messenger = messenger

    async def __call__(self, ctx: Context, job: SendClient) -> dict[str, str]:
        message_id = await self._messenger.send(
            job_id=str(ctx.job_id),
            tenant=ctx.tenant,
            to=job.to,
            text=job.text,
            redelivered=ctx.attempt > 1,
            audio=job.audio,
        )
        return {"messageId": message_id}
