"""GET /queue/status, /backpressure and /metrics: the same look in three forms."""

from aiohttp import web
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4

from api.metrics import exposition
from api.problems import json
from api.watching import Watch


class PressureEndpoints:
    """Each answers 503 within a second where Redis does not."""

    def __init__(self, watch: Watch) -> None:
        self._watch = watch

    async def status(self, _: web.Request) -> web.Response:
        """GET /queue/status."""
        return json({"queues": (await self._watch.seen()).load.queues})

    async def backpressure(self, _: web.Request) -> web.Response:
        """GET /backpressure."""
        return json((await self._watch.seen()).load)

    async def metrics(self, _: web.Request) -> web.Response:
        """GET /metrics."""
        body = exposition(await self._watch.seen())
        return web.Response(body=body, headers={"Content-Type": CONTENT_TYPE_PLAIN_0_0_4})
