"""`riacho demo`: the whole pipeline on this machine, a sample chat sent through it, each step as it happens."""

import asyncio
import secrets
import socket
import time
from collections.abc import Coroutine, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import aiohttp
import msgspec
from rich.console import Console
from rich.table import Table

from api import stand_in, stand_in_shop
from api.load import QueueLoad
from api.processes import ProcessTree, stop_signal
from api.queues import NotificationView
from api.signatures import sign
from api.stand_in import StandIn
from api.stand_in_shop import StandInShop
from api.status import status_table
from config import Secret, Settings, replaced, telemetry
from config.settings import Shop
from pipeline.views import JobView

PHONE_NUMBER_ID = "106540352242922"  # ours; the tenant of the sample chat
START_DEADLINE = 120.0  # the model is put together and loaded
JOB_DEADLINE = 120.0
RECEIPT_DEADLINE = 20.0


class Said(NamedTuple):
    """One message of the sample chat: a text, or a voice note from samples/, and to which number of ours."""

    customer: str
    text: str = ""
    voice: str = ""
    number: str = PHONE_NUMBER_ID


CHAT = (
    Said("5511987654321", text="Olá, boa noite!"),
    Said("5511987654321", voice="pedido-pizzas.ogg"),
    Said("14155550123", text="Hello, how much is a large pizza?"),
    Said("34655501234", text="Hola, ya hice la transferencia, le mando el comprobante."),
    Said("5511987654321", text="Quanto custa a pizza de calabresa?"),
    Said("5511987654321", text="E cadê o meu pedido?"),
    Said("5511987654321", voice="obrigado.ogg"),
)


class StepFailed(Exception):
    """A step did not happen; the message says which and why."""


class Show:
    """Prints lines with the seconds since the start; colours on a terminal, plain text elsewhere."""

    def __init__(self) -> None:
        self._console = Console(highlight=False, soft_wrap=True)
        self._started = time.monotonic()

    def step(self, text: str, style: str = "") -> None:
        self._console.print(f"{time.monotonic() - self._started:6.2f} s  {text}", style=style, markup=False)

    def table(self, table: Table) -> None:
        self._console.print(table)


async def run(settings: Settings) -> bool:
    """The demo on a server that runs; True when every reply has gone out."""
    show = Show()
    try:
        whatsapp, shop = StandIn(samples()), StandInShop(CHAT[0].customer)
        async with whatsapp.running() as graph_url, shop.running() as shop_url:
            settings = _own(settings, graph_url, shop_url)
            whatsapp.webhook = f"{_address(settings)}/webhooks/whatsapp"
            whatsapp.app_secret = settings.whatsapp.app_secret.reveal()
            show.step("starting API, worker and transcriber")
            async with ProcessTree(settings) as tree:
                await _unless_it_ends(tree, _chat(settings, whatsapp, show))
    except (StepFailed, aiohttp.ClientError) as error:
        show.step(f"failed: {error}", "bold red")
        return False
    show.step("every reply has gone out, and every process has ended", "bold green")
    return True


async def _unless_it_ends(tree: ProcessTree, steps: Coroutine[Any, Any, None]) -> None:
    crash, stopped = asyncio.create_task(tree.crash()), asyncio.create_task(stop_signal().wait())
    chat = asyncio.create_task(steps)
    await asyncio.wait([crash, stopped, chat], return_when=asyncio.FIRST_COMPLETED)
    for other in (crash, stopped):
        other.cancel()
    if not chat.done():
        chat.cancel()
        raise StepFailed("stopped" if stopped.done() else "one of the processes crashed; the line above says why")
    chat.result()


async def _chat(settings: Settings, whatsapp: StandIn, show: Show) -> None:
    async with aiohttp.ClientSession(_address(settings)) as http:
        await wait_until_ready(http)
        show.step(f"API answers on {_address(settings)}")
        for kind in ("products", "orders"):
            await _pull(http, kind, show)
        secret = settings.whatsapp.app_secret.reveal()
        following = [await _say(http, secret, said, show) for said in CHAT]
        ends = await asyncio.gather(*(_follow(http, jobs, said, show) for jobs, said in following))
        await _show_end(http, whatsapp, [job for jobs in ends for job in jobs], show)
        if url := settings.http.trace_url or telemetry.trace_url():
            for (job, *_), said in following:
                await _show_trace(http, job, said, url, show)


def _own(settings: Settings, graph_url: str, shop_url: str) -> Settings:
    """Settings of this demo: made-up secrets, a free port, our stand-ins in WhatsApp's and the shop's places."""
    shop = Shop(url=shop_url, key=Secret(stand_in_shop.KEY), secret=Secret(stand_in_shop.SECRET))
    return replaced(
        settings,
        # Apart from whatever else a configured Redis holds: the demo must not work other people's jobs.
        redis={"namespace": f"{settings.redis.namespace}-demo"},
        # Open on loopback: its client has no key.
        http={"host": "127.0.0.1", "port": free_port(), "keys": {}, "requests_per_second": 0.0}
        | {"tls_certificate": "", "tls_key": "", "tls_client_ca": ""},
        audio={"keep_transcripts": 0.0},  # the second time, too, it is to be seen how notes are transcribed
        whatsapp={
            "app_secret": Secret(secrets.token_hex(16)),
            "verify_token": Secret(secrets.token_hex(16)),
            "access_token": Secret(secrets.token_hex(16)),
            "senders": {},
            "graph_url": graph_url,
        },
        notification={"channel": "whatsapp"},
        sync={"shops": {PHONE_NUMBER_ID: shop}},
        # Nobody is to hear of a demo, and its messages are no customers'.
        email={"host": ""},
        fallback={"url": Secret("")},
        alerts={"to": []},
        store={"url": Secret("")},
    )


def free_port() -> int:
    """A loopback port nobody listens on."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
        return port


def samples() -> Path:
    """The folder of sample voice notes."""
    return Path(__file__).parent / "samples"


def _address(settings: Settings) -> str:
    return f"http://{settings.http.host}:{settings.http.port}"


async def wait_until_ready(http: aiohttp.ClientSession) -> None:
    """Wait for the API to answer. Raises StepFailed after START_DEADLINE seconds."""
    end = time.monotonic() + START_DEADLINE
    while time.monotonic() < end:
        try:
            async with http.get("/readyz") as answer:
                if answer.status == 200:
                    return
        except aiohttp.ClientConnectionError:
            pass
        await asyncio.sleep(0.05)
    raise StepFailed(f"the API did not come up within {START_DEADLINE:g} s")


async def _pull(http: aiohttp.ClientSession, kind: str, show: Show) -> None:
    """What the shop has, into the database."""
    request = {"kind": kind, "tenant": PHONE_NUMBER_ID, "payload": {"full": True}}
    async with http.post("/queue/sync/jobs", json=request) as answer:
        if answer.status != 202:
            raise StepFailed(f"POST /queue/sync/jobs answered {answer.status}: {await answer.text()}")
        job_id = (await answer.json())["jobId"]
    view = await _finished(http, f"/queue/job/sync/{job_id}", show)
    show.step(f"{job_id} the shop's {kind} are known: {view.result['kept']}")


async def _say(http: aiohttp.ClientSession, secret: str, said: Said, show: Show) -> tuple[list[str], Said]:
    """Post a signed webhook; returns the ids of the jobs it became."""
    body = msgspec.json.encode(event(said))
    started = time.perf_counter()
    async with http.post(
        "/webhooks/whatsapp", data=body, headers={"X-Hub-Signature-256": sign(body, secret)}
    ) as r:
        answer = await r.read()
        took = (time.perf_counter() - started) * 1000
        if r.status != 200:
            raise StepFailed(f"the webhook answered {r.status}: {answer.decode()}")
    jobs: list[str] = msgspec.json.decode(answer)["jobs"]
    what = f"voice note {said.voice}" if said.voice else f"text {said.text!r}"
    show.step(f"{said.customer} sends {what}: durable and answered in {took:.1f} ms as {', '.join(jobs)}")
    return jobs, said


def event(said: Said) -> dict[str, Any]:
    """A webhook event as WhatsApp sends it for this message."""
    message: dict[str, Any] = {
        "from": said.customer,
        "id": f"wamid.demo.{secrets.token_hex(12)}",
        "timestamp": str(int(time.time())),
    }
    if said.voice:
        audio = {"id": said.voice.removesuffix(".ogg"), "mime_type": "audio/ogg; codecs=opus", "voice": True}
        message |= {"type": "audio", "audio": audio}
    else:
        message |= {"type": "text", "text": {"body": said.text}}
    return stand_in.event(said.number, messages=[message])


async def _follow(http: aiohttp.ClientSession, jobs: Sequence[str], said: Said, show: Show) -> list[str]:
    """See a message's jobs through; returns the last ones."""
    last: list[str] = []
    for job_id in jobs:
        view = await _finished(http, _path(job_id), show)
        _show_result(view, said, show)
        last += await _follow(http, view.next, said, show) if view.next else [job_id]
    return last


def _path(job_id: str) -> str:
    queue = {"send-client": "notification"}.get(job_id.partition(".")[0], "audio")
    return f"/queue/job/{queue}/{job_id}"


async def _finished(http: aiohttp.ClientSession, path: str, show: Show) -> JobView:
    end, state, doing = time.monotonic() + JOB_DEADLINE, "", ""
    while time.monotonic() < end:
        async with http.get(path) as answer:
            if answer.status != 200:
                raise StepFailed(f"GET {path} answered {answer.status}: {await answer.text()}")
            view = msgspec.json.decode(await answer.read(), type=JobView)
        now = view.doing or ("retrying" if view.state == "retrying" else "")
        if now and now != doing:
            show.step(f"{view.job_id} is {now}{f' after {view.error}' if view.error else ''}", "dim")
        state, doing = view.state, now
        if state == "failed":
            raise StepFailed(f"{view.job_id} failed: {view.reason} {view.error}")
        if state == "completed":
            return view
        await asyncio.sleep(0.05)
    raise StepFailed(f"{path} was still {state} after {JOB_DEADLINE:g} s; the lines above may say why")


def _show_result(view: JobView, said: Said, show: Show) -> None:
    match view.stage:
        case "transcribe":
            text, duration = view.result["text"], view.result["duration"]
            show.step(f"{view.job_id} transcript of {said.voice} ({duration} s): {text!r}", "cyan")
        case "process-conversation":
            show.step(f"{view.job_id} reply to {said.customer}: {view.result['reply']!r}", "green")
        case _:
            show.step(f"{view.job_id} reply is out: {view.result['messageId']}")


async def _show_end(http: aiohttp.ClientSession, whatsapp: StandIn, sent: list[str], show: Show) -> None:
    for job_id in sent:
        await _delivered(http, job_id)
    if len(whatsapp.taken) != len(CHAT):
        raise StepFailed(f"WhatsApp was given {len(whatsapp.taken)} replies, not {len(CHAT)}")
    async with http.get("/queue/status") as answer:
        queues = msgspec.json.decode(await answer.read(), type=dict[str, list[QueueLoad]])["queues"]
    show.table(status_table(queues))
    show.step(f"WhatsApp took all {len(sent)} replies, and says that they were delivered")


async def _show_trace(http: aiohttp.ClientSession, job_id: str, said: Said, url: str, show: Show) -> None:
    view = await _finished(http, _path(job_id), show)
    show.step(f"trace of {said.voice or repr(said.text)}: {url.format(traceId=view.trace_id)}", "magenta")


async def _delivered(http: aiohttp.ClientSession, job_id: str) -> None:
    end = time.monotonic() + RECEIPT_DEADLINE
    while time.monotonic() < end:
        async with http.get(f"/queue/job/notification/{job_id}") as answer:
            view = msgspec.json.decode(await answer.read(), type=NotificationView)
        if view.delivery and view.delivery.status == "delivered":
            return
        await asyncio.sleep(0.05)
    raise StepFailed(f"nobody told within {RECEIPT_DEADLINE:g} s that {job_id} was delivered: {view.delivery}")
