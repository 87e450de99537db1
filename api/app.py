"""The aiohttp application: which path leads where, and what it takes to go there."""

from collections.abc import Sequence
from typing import Protocol

from aiohttp import web

from api.accepting import ACCEPTING, Accepting
from api.access import Access
from api.description import DOCUMENT, Description
from api.events import EventEndpoint
from api.headers import add_safe_headers
from api.health import Health
from api.metrics import Observed
from api.notifying import tenants_of
from api.operating import OperatingEndpoints
from api.operations import Operation
from api.page import Page, PageSettings
from api.pressure import PressureEndpoints
from api.probes import ProbeEndpoint
from api.problems import READ_TIMEOUT, answer_with_problems
from api.queues import QueueEndpoints
from api.schedules import ScheduleEndpoints, configured_schedules
from api.signatures import Signatures
from api.timing import http_figures
from api.tracing import trace_posts
from api.watching import Watch
from api.whatsapp import WhatsAppWebhook
from api.woocommerce import WooCommerceWebhook
from config import Settings
from config.metrics import UNMETERED, Metering
from pipeline import Broker, metrics, telemetry
from stages.notification.log import NotificationLog


class Endpoints(Protocol):
    """A part of the service."""

    def operations(self) -> Sequence[Operation]:
        """Everything that is there, as it is reached over HTTP."""


def build_app(
    broker: Broker,
    settings: Settings,
    notifications: NotificationLog,
    *,
    with_workers: bool = False,
    metering: Metering = UNMETERED,
) -> web.Application:
    """The service on an open broker; `with_workers` it is not ready before every stage has one. `metering` is who
    gets the process's own figures."""
    whatsapp = settings.whatsapp
    watch = Watch(broker, settings.worker.lease)
    events = EventEndpoint(broker, settings.http.listeners)
    parts: list[Endpoints] = [
        WhatsAppWebhook(broker, Signatures(whatsapp), whatsapp.verify_token, tenants_of(whatsapp)),
        WooCommerceWebhook(broker, settings.sync.shops),
        QueueEndpoints(broker, notifications),
        PressureEndpoints(watch, metering.registry),
        events,
        ProbeEndpoint(broker, settings.worker.lease),
        ScheduleEndpoints(broker, configured_schedules(settings)),
        OperatingEndpoints(broker),
        Page(PageSettings(settings.http.trace_url)),
        Health(broker, settings.worker.lease if with_workers else None),
    ]
    described = Description([operation for part in parts for operation in part.operations()])
    access = Access(settings.http)
    app = web.Application(
        middlewares=[answer_with_problems, access.guard], client_max_size=settings.http.payload_limit
    )
    figures = http_figures()
    if figures:
        app.middlewares.insert(0, figures.measure)
    if telemetry.enabled():
        app.middlewares.append(trace_posts)
    app.on_response_prepare.append(add_safe_headers)
    app.cleanup_ctx.append(watch.running)
    if metering.pushed:
        app.cleanup_ctx.append(Observed(watch, metrics.meter()).running)
    app.on_shutdown.append(events.close)
    app[READ_TIMEOUT] = settings.http.read_timeout
    ordinary = [queue for queue in broker.pipeline.queues if queue != "cleanup"]
    app[ACCEPTING] = Accepting(broker, access, ordinary, settings.http.payload_limit, figures)
    app[DOCUMENT] = described.body
    app.add_routes([access.route(operation) for operation in described.operations])
    access.check(app)
    return app
