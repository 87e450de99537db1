"""The aiohttp application: which path leads where, and what it takes to go there."""

from aiohttp import web

from api.accepting import ACCEPTING, Accepting
from api.access import Access
from api.events import EventEndpoint
from api.headers import add_safe_headers
from api.health import Health
from api.notifying import tenants_of
from api.operating import OperatingEndpoints
from api.page import Page, PageSettings
from api.pressure import PressureEndpoints
from api.probes import ProbeEndpoint
from api.problems import READ_TIMEOUT, answer_with_problems
from api.queues import QueueEndpoints
from api.schedules import ScheduleEndpoints, configured_schedules
from api.signatures import Signatures
from api.watching import Watch
from api.whatsapp import WhatsAppWebhook
from config import Settings
from pipeline import Broker
from stages.notification.log import NotificationLog


def build_app(
    broker: Broker, settings: Settings, notifications: NotificationLog, *, with_workers: bool = False
) -> web.Application:
    """The service on an open broker; `with_workers` it is not ready before every stage has one."""
    whatsapp = settings.whatsapp
    webhook = WhatsAppWebhook(broker, Signatures(whatsapp), whatsapp.verify_token, tenants_of(whatsapp))
    queues = QueueEndpoints(broker, notifications)
    operating = OperatingEndpoints(broker)
    schedules = ScheduleEndpoints(broker, configured_schedules(settings))
    probes = ProbeEndpoint(broker, settings.worker.lease)
    health = Health(broker, settings.worker.lease if with_workers else None)
    watch = Watch(broker, settings.worker.lease)
    pressure = PressureEndpoints(watch)
    page = Page(PageSettings(settings.http.trace_url))
    events = EventEndpoint(broker, settings.http.listeners)
    access = Access(settings.http)
    app = web.Application(
        middlewares=[answer_with_problems, access.guard], client_max_size=settings.http.payload_limit
    )
    app.on_response_prepare.append(add_safe_headers)
    app.cleanup_ctx.append(watch.running)
    app.on_shutdown.append(events.close)
    app[READ_TIMEOUT] = settings.http.read_timeout
    ordinary = [queue for queue in broker.pipeline.queues if queue != "cleanup"]
    app[ACCEPTING] = Accepting(broker, access, ordinary, settings.http.payload_limit)
    app.add_routes(
        [
            access.free(web.get("/webhooks/whatsapp", webhook.handshake, allow_head=False)),
            access.free(web.post("/webhooks/whatsapp", webhook.receive)),
            access.needs("admin", web.post("/queue/{queue:cleanup}/jobs", queues.enqueue_cleanup)),
            access.needs("enqueue", web.post("/queue/{queue}/jobs", queues.enqueue)),
            # Of two paths the one that begins with more fixed text is asked first: jobs are the line above's.
            access.needs("admin", web.post("/queue/cleanup/{task:(?!jobs$)[^/]+}", queues.clean_up)),
            access.needs("admin", web.post("/queue/retry/{job_id}", queues.retry)),
            access.needs("read", web.get("/queue/status", pressure.status)),
            access.needs("read", web.get("/queue/events", events.listen, allow_head=False)),
            access.needs("admin", web.post("/queue/test", probes.test)),
            access.needs("read", web.get("/queue/scheduled-jobs", schedules.list)),
            access.needs("admin", web.post("/queue/schedule/{name}/run", schedules.run)),
            access.needs("admin", web.post("/queue/schedule/{name}/pause", schedules.pause)),
            access.needs("admin", web.post("/queue/schedule/{name}/resume", schedules.resume)),
            access.needs("read", web.get("/queue/workers", operating.workers)),
            access.needs("read", web.get("/queue/dead", operating.letters)),
            access.needs("admin", web.get("/queue/dead/{job_id}", operating.letter)),
            access.needs("admin", web.post("/queue/clear/{queue}", operating.clear)),
            access.needs("admin", web.post("/queue/purge/{queue}", operating.purge)),
            access.needs("admin", web.post("/queue/pause/{name}", operating.pause)),
            access.needs("admin", web.post("/queue/resume/{name}", operating.resume)),
            access.needs("admin", web.post("/queue/drain/{name}", operating.drain)),
            access.needs("enqueue", web.post("/queue/cancel/{job_id}", operating.cancel)),
            access.needs("read", web.get("/queue/job/{queue}/{job_id}", queues.job)),
            access.needs("read", web.get("/backpressure", pressure.backpressure)),
            access.needs("read", web.get("/metrics", pressure.metrics)),
            access.free(web.get("/", page.index)),
            access.free(web.get("/page/{file}", page.file)),
            access.free(web.get("/healthz", health.alive)),
            access.free(web.get("/readyz", health.ready)),
        ]
    )
    access.check(app)
    return app
