"""The aiohttp application: which path leads where."""

from aiohttp import web

from api.problems import answer_with_problems, json
from api.queues import QueueEndpoints
from api.whatsapp import WhatsAppWebhook
from config import Settings
from pipeline import Broker


def build_app(broker: Broker, settings: Settings) -> web.Application:
    """The service on an open broker."""
    webhook = WhatsAppWebhook(broker, settings.whatsapp.app_secret, settings.whatsapp.verify_token)
    queues = QueueEndpoints(broker)

    async def alive(_: web.Request) -> web.Response:
        return json({"status": "ok"})

    async def ready(_: web.Request) -> web.Response:
        await broker.ping()
        return json({"status": "ok"})

    app = web.Application(middlewares=[answer_with_problems], client_max_size=settings.http.payload_limit)
    app.add_routes(
        [
            web.get("/webhooks/whatsapp", webhook.handshake, allow_head=False),
            web.post("/webhooks/whatsapp", webhook.receive),
            web.post("/queue/{queue}/jobs", queues.enqueue),
            web.get("/queue/status", queues.status),
            web.get("/queue/job/{queue}/{job_id}", queues.job),
            web.get("/healthz", alive),
            web.get("/readyz", ready),
        ]
    )
    return app
