"""/healthz and /readyz: does the service live, and should it be sent work?"""

from typing import Any, Literal

import msgspec
from aiohttp import web

from api.operations import Answer, Operation
from api.problems import RETRY_AFTER, Problem, json
from pipeline import Broker


class Fine(msgspec.Struct, frozen=True):
    """All is well."""

    status: Literal["ok"]


class Health:
    """With `lease` (seconds) the service is not ready before every stage has had a worker, whose model is loaded
    by then. After that, as without it, it takes work in whenever Redis answers: jobs wait for a worker.
    """

    def __init__(self, broker: Broker, lease: float | None) -> None:
        self._broker = broker
        self._lease = lease

    def operations(self) -> list[Operation]:
        """Everything that is here, as it is reached over HTTP."""
        common: dict[str, Any] = {"method": "GET", "scope": None, "group": "health"}
        answers = {200: Answer(description="It does.", form=Fine, example={"status": "ok"})}
        return [
            Operation(
                **common,
                path="/healthz",
                handler=self.alive,
                name="alive",
                summary="Whether the service lives",
                answers=answers,
                asks_redis=False,
            ),
            Operation(
                **common,
                path="/readyz",
                handler=self.ready,
                name="ready",
                summary="Whether the service should be sent work",
                answers=answers,
            ),
        ]

    async def alive(self, _: web.Request) -> web.Response:
        """GET /healthz."""
        return json(Fine("ok"))

    async def ready(self, _: web.Request) -> web.Response:
        """GET /readyz."""
        await self._broker.ping()
        if self._lease is not None:
            workers = await self._broker.workers(self._lease)
            if missing := [stage for stage, count in workers.items() if not count]:
                detail = f"No worker is ready yet for {', '.join(missing)}."
                raise Problem(503, "Service unavailable", detail, RETRY_AFTER)
            self._lease = None
        return json(Fine("ok"))
