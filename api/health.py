"""/healthz and /readyz: does the service live, and should it be sent work?"""

from aiohttp import web

from api.problems import RETRY_AFTER, Problem, json
from pipeline import Broker


class Health:
    """With `lease` (seconds) the service is not ready before every stage has had a worker, whose model is loaded
    by then. After that, as without it, it takes work in whenever Redis answers: jobs wait for a worker.
    """

    def __init__(self, broker: Broker, lease: float | None) -> None:
        self._broker = broker
        self._lease = lease

    async def alive(self, _: web.Request) -> web.Response:
        """GET /healthz."""
        return json({"status": "ok"})

    async def ready(self, _: web.Request) -> web.Response:
        """GET /readyz."""
        await self._broker.ping()
        if self._lease is not None:
            workers = await self._broker.workers(self._lease)
            if missing := [stage for stage, count in workers.items() if not count]:
                detail = f"No worker is ready yet for {', '.join(missing)}."
                raise Problem(503, "Service unavailable", detail, RETRY_AFTER)
            self._lease = None
        return json({"status": "ok"})
