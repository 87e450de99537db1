"""A service that answers the page as its endpoints do, and does what a real one hardly can be made to do."""

import asyncio
import json
from typing import Any

from aiohttp import web

from api.headers import add_safe_headers
from api.page import Page, PageSettings
from api.problems import Problem, answer_with_problems

Answers = dict[str, Any]
TRACE = "0af7651916cd43dd8448eb211c80319c"
EVIL = "<img src=x onerror=\"document.title='stolen'\"><script>document.title='stolen'</script>"
STAGES = {
    "audio": ["transcribe", "process-conversation"],
    "notification": ["send-vendor", "send-client", "fallback", "alert", "receipt"],
    "cleanup": ["tts-cache", "conversations", "logs", "stats", "health"],
}
STATES = ["ok", "throttling", "shedding"]
RATES = {"in1m": 0.0, "in5m": 0.0, "out1m": 0.0, "out5m": 0.0}
DEPTHS = {"waiting": 0, "delayed": 0, "active": 0, "retrying": 0, "dead": 0}


def stage(queue: str, name: str, **other: Any) -> Answers:
    """A stage as /backpressure tells of it, idle but for `other`."""
    steered = {"paused": False, "draining": False, "oldestWaiting": None}
    works = {"workers": 1, "slots": 5, "utilisation": 0.0, "drainSeconds": 0.0, "highWater": 100_000}
    return {"queue": queue, "stage": name, "state": "ok"} | DEPTHS | RATES | steered | works | other


def worst(parts: list[Answers]) -> str:
    """The worst state among them."""
    return STATES[max(STATES.index(part["state"]) for part in parts)]


def letter(number: int, **other: Any) -> Answers:
    """A dead letter."""
    job = f"send-client.0.1795395400{number:03}-0"
    about = {"reason": "gave up after 4 tries", "error": "WhatsAppDown: 503 after 20 s", "attempt": 4}
    return {"jobId": job, "letter": f"{number}-0", **about, "buriedAt": 1_795_395_400_000} | other


class Service:
    """What a test sets goes into the answers; `asked` is what was asked that changes something."""

    def __init__(self) -> None:
        self.stages: dict[str, Answers] = {}
        self.letters: list[Answers] = []
        self.jobs: dict[str, Answers] = {}
        self.asked: list[str] = []
        self.key = ""  # that is wanted
        self.scopes = ["admin"]
        self.away = False
        self.resumed_from: list[str | None] = []
        self.told: list[bytes] = []  # of events, one connection each
        self.closing = asyncio.Event()
        self.slow: dict[tuple[str, bool], asyncio.Event] = {}  # answers about dead letters, to be waited for
        self.free = asyncio.Event()
        self.free.set()
        self.refuse, self.refusing = self.free, 0  # requests without the key, and how many wait to be told

    def app(self) -> web.Application:
        """The application."""
        page = Page(PageSettings("http://127.0.0.1:16686/trace/{traceId}"))
        app = web.Application(middlewares=[answer_with_problems, self.guard])
        app.on_response_prepare.append(add_safe_headers)
        app.on_shutdown.append(self.close)
        app.add_routes(
            [
                web.get("/", page.index),
                web.get("/page/{file}", page.file),
                web.get("/backpressure", self.backpressure),
                web.get("/queue/events", self.events),
                web.get("/queue/dead", self.dead),
                web.get("/queue/workers", self.workers),
                web.get("/queue/scheduled-jobs", self.schedules),
                web.get("/queue/job/{queue}/{job}", self.job),
                web.post("/queue/{what:retry|pause|resume|cancel}/{name}", self.steer),
                web.post("/queue/schedule/{name}/{what}", self.steer),
            ]
        )
        return app

    @web.middleware
    async def guard(self, request: web.Request, handler: Any) -> web.StreamResponse:
        if request.path.startswith(("/queue", "/back")):
            await self._wait_to_refuse(request)
            self._admit(request)
        answer: web.StreamResponse = await handler(request)
        return answer

    async def _wait_to_refuse(self, request: web.Request) -> None:
        if self.key and request.headers.get("Authorization") != f"Bearer {self.key}":
            self.refusing += 1
            await self.refuse.wait()
            self.refusing -= 1

    def _admit(self, request: web.Request) -> None:
        if self.key and request.headers.get("Authorization") != f"Bearer {self.key}":
            raise Problem(401, "Unauthorized", "This takes an API key.", {"WWW-Authenticate": "Bearer"})
        if request.method == "POST" and "admin" not in self.scopes:
            challenge = 'Bearer realm="riacho", error="insufficient_scope", scope="admin"'
            raise Problem(
                403, "Forbidden", "This takes a key with the scope admin.", {"WWW-Authenticate": challenge}
            )

    async def close(self, _: web.Application) -> None:
        self.closing.set()

    async def backpressure(self, _: web.Request) -> web.Response:
        if self.away:
            raise Problem(503, "Service unavailable", "The queue's server does not answer.")
        queues = [self._queue(queue, names) for queue, names in STAGES.items()]
        return web.json_response({"state": worst(queues), "memory": 0.12, "at": 0, "queues": queues})

    def _queue(self, queue: str, names: list[str]) -> Answers:
        stages = [stage(queue, name, **self.stages.get(name, {})) for name in names]
        sums = {name: sum(each[name] for each in stages) for name in [*DEPTHS, *RATES]}
        return {"queue": queue, "state": worst(stages), "drainSeconds": 0.0, "stages": stages} | sums

    async def dead(self, request: web.Request) -> web.Response:
        after, limit = request.query.get("after", ""), int(request.query["limit"])
        await self.slow.get((request.query.get("stage", ""), bool(after)), self.free).wait()
        found = [each for each in self.letters if each["jobId"] > after]
        if wanted := request.query.get("stage"):
            found = [each for each in found if each["jobId"].startswith(wanted)]
        following = found[limit - 1]["jobId"] if len(found) > limit else None
        return web.json_response({"letters": found[:limit], "next": following})

    async def workers(self, _: web.Request) -> web.Response:
        names = [f"{queue}.{name}" for queue, names in STAGES.items() for name in names]
        one = {"worker": "shop-1.4711.0", "stages": names[1:], "active": 3, "silentSeconds": 0.4}
        other = {"worker": "shop-1.4712.1", "stages": names[:1], "active": 8, "silentSeconds": 21.0}
        return web.json_response({"workers": [one, other]})

    async def schedules(self, _: web.Request) -> web.Response:
        asleep = {"next": None, "last": None, "missed": 0, "paused": True}
        return web.json_response(
            {"schedules": [{"name": "tts-cache", "cron": "0 2 * * *", "zone": "UTC", "paused": False} | asleep]}
        )

    async def job(self, request: web.Request) -> web.Response:
        found = self.jobs.get(request.match_info["job"])
        if found is None:
            raise Problem(404, "Not found", "No such job.")
        return web.json_response(found)

    async def steer(self, request: web.Request) -> web.Response:
        self.asked.append(request.path)
        name = request.match_info["name"]
        match request.match_info["what"]:
            case "retry":
                self.letters = [each for each in self.letters if each["jobId"] != name]
                return web.json_response({"jobId": f"{name}1"}, status=202)
            case what:
                self.stages.setdefault(name, {})["paused"] = what == "pause"
                return web.json_response({"stages": [name]})

    async def events(self, request: web.Request) -> web.StreamResponse:
        if self.away:
            raise Problem(503, "Service unavailable", "The queue's server does not answer.")
        self.resumed_from.append(request.headers.get("Last-Event-ID"))
        answer = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await answer.prepare(request)
        if not self.told:
            await self.closing.wait()
            return answer
        half = len(self.told[0]) // 2  # events come in pieces
        await answer.write(self.told[0][:half])
        await answer.write(self.told.pop(0)[half:])
        return answer


def event(cursor: str, job: str, state: str, kind: str = "job") -> bytes:
    """An event on its way."""
    about = {
        "jobId": job,
        "queue": "notification",
        "stage": "send-client",
        "state": state,
        "at": 1_795_395_400_000,
    }
    return f": quiet\n\nid: {cursor}\nevent: {kind}\ndata: {json.dumps(about)}\n\n".encode()
