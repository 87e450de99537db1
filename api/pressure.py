"""GET /queue/status, /backpressure and /metrics: the same look in three forms."""

import msgspec
from aiohttp import web
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4

from api.load import Load, QueueLoad
from api.metrics import exposition
from api.operations import Answer, Operation
from api.problems import json
from api.watching import Watch


class Queues(msgspec.Struct, frozen=True):
    """Every queue with its stages."""

    queues: list[QueueLoad]


class PressureEndpoints:
    """Each answers 503 within a second where Redis does not. `own` has the process's own figures."""

    def __init__(self, watch: Watch, own: CollectorRegistry | None = None) -> None:
        self._watch, self._own = watch, own

    def operations(self) -> list[Operation]:
        """Everything that is here, as it is reached over HTTP."""
        return [
            Operation(
                method="GET",
                path="/queue/status",
                handler=self.status,
                scope="read",
                group="look",
                name="status",
                summary="The depth, rates and state of every queue and stage",
                description="Counts are exact at the moment of asking.",
                answers={200: Answer(description="By queue.", form=Queues)},
            ),
            Operation(
                method="GET",
                path="/backpressure",
                handler=self.backpressure,
                scope="read",
                group="look",
                name="backpressure",
                summary="Whether work is taken in, and how busy everything is",
                answers={200: Answer(description="As /queue/status, with what is common to all.", form=Load)},
            ),
            Operation(
                method="GET",
                path="/metrics",
                handler=self.metrics,
                scope="read",
                group="look",
                name="metrics",
                summary="The same for Prometheus, with this process's own figures",
                answers={
                    200: Answer(
                        description="Prometheus' text format.", form=str, content_types=(CONTENT_TYPE_PLAIN_0_0_4,)
                    )
                },
            ),
        ]

    async def status(self, _: web.Request) -> web.Response:
        """GET /queue/status."""
        return json(Queues((await self._watch.seen()).load.queues))

    async def backpressure(self, _: web.Request) -> web.Response:
        """GET /backpressure."""
        return json((await self._watch.seen()).load)

    async def metrics(self, _: web.Request) -> web.Response:
        """GET /metrics."""
        body = exposition(await self._watch.seen(), self._own)
        return web.Response(body=body, headers={"Content-Type": CONTENT_TYPE_PLAIN_0_0_4})
