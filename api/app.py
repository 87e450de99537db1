"""The aiohttp application: which path leads where."""

from aiohttp import web

from api.health import Health
from api.notifying import tenants_of
from api.problems import answer_with_problems
from api.queues import QueueEndpoints
from api.schedules import ScheduleEndpoints, configured_schedules
from api.whatsapp import WhatsAppWebhook
from config import Settings
from pipeline import Broker
from stages.notification.log import NotificationLog


def build_app(
    broker: Broker, settings: Settings, notifications: NotificationLog, *, with_workers: bool = False
) -> web.Application:
    """The service on an open broker; `with_workers` it is not ready before every stage has one."""
    whatsapp = settings.whatsapp
    webhook = WhatsAppWebhook(broker, whatsapp.app_secret, whatsapp.verify_token, tenants_of(whatsapp))
    queues = QueueEndpoints(broker, notifications)
    schedules = ScheduleEndpoints(broker, configured_schedules(settings))
    health = Health(broker, settings.worker.lease if with_workers else None)
    app = web.Application(middlewares=[answer_with_problems], client_max_size=settings.http.payload_limit)
    app.add_routes(
        [
            web.get("/webhooks/whatsapp", webhook.handshake, allow_head=False),
            web.post("/webhooks/whatsapp", webhook.receive),
            web.post("/queue/{queue}/jobs", queues.enqueue),
            # Of two paths the one that begins with more fixed text is asked first: jobs are the line above's.
            web.post("/queue/cleanup/{task:(?!jobs$)[^/]+}", queues.clean_up),
            web.post("/queue/retry/{job_id}", queues.retry),
            web.get("/queue/status", queues.status),
            web.get("/queue/scheduled-jobs", schedules.list),
            web.get("/queue/job/{queue}/{job_id}", queues.job),
            web.get("/healthz", health.alive),
            web.get("/readyz", health.ready),
        ]
    )
    return app
