"""The domain: what happens to a chat message on its way. `build_pipeline` is the whole map."""

from typing import Any

import msgspec

from pipeline import Pipeline, RetryPolicy, Stage
from pipeline.stage import Batch, Handler
from stages.audio.referenced import Referenced
from stages.audio.transcribe import TranscribeHandler
from stages.cleanup.collect import StatisticsHandler, with_day
from stages.cleanup.conversations import ConversationsHandler
from stages.cleanup.logs import LogsHandler
from stages.cleanup.parts import Cleaning
from stages.cleanup.speech import SpeechCacheHandler
from stages.conversation.announce import Announced
from stages.conversation.process import ConversationHandler
from stages.conversation.proof import Proofs
from stages.conversation.shop import ShopAnswers
from stages.health.check import Checking, HealthHandler
from stages.jobs import (
    Alert,
    Changed,
    CheckHealth,
    CollectStatistics,
    Fallback,
    ProcessConversation,
    Proof,
    Prune,
    Pull,
    PushOrder,
    Receipt,
    SendClient,
    SendVendor,
    Transcribe,
)
from stages.notification.alerts import AlertHandler
from stages.notification.courier import Courier
from stages.notification.fallback import FallbackHandler
from stages.notification.logged import LoggedAlert, LoggedFallback
from stages.notification.parts import Notifying
from stages.notification.receipts import ReceiptHandler
from stages.notification.rescue import Rescue, of_buried, of_buried_fallback
from stages.notification.send import Addressed, ClientHandler, VendorHandler, rates_of
from stages.ports import AudioSource, Ports
from stages.sync.changed import ChangedHandler
from stages.sync.paid import Paid
from stages.sync.parts import Syncing
from stages.sync.proof import ProofHandler
from stages.sync.pull import PRODUCTS, PullHandler, orders_feed
from stages.sync.push import PushHandler

KEEP_RESULTS = 86_400.0  # seconds a finished job can still be looked up
# What waits for a token has one of its tenant's places and holds up nobody else: so many more of them keep one
# recipient who gets too much from holding up the tenant's others.
PACED_ROUNDS = 20
PATIENT = RetryPolicy(attempts=12, base=1.0, cap=60.0)  # six minutes, for what only needs the database
HEALTH_TIMEOUT = 90.0  # seconds, above those of its checks
# One run at a time over all workers: two would only wait for each other. Those of a week can be compared.
CLEANUP: dict[str, Any] = {"queue": "cleanup", "shared_limit": 1, "keep_results": 8 * 86_400.0}
CLEANING: dict[str, Any] = {**CLEANUP, "timeout": 3600.0, "retry": PATIENT}
PULLING: dict[str, Any] = {"payload": Pull, "concurrency": 4, "timeout": 3600.0, "retry": PATIENT}
SHOPS = 10  # that a worker asks at a time; one that does not answer holds up no other
ASKS = 4  # calls that the time of a job is enough for
FETCHED = 120.0  # seconds more, for WhatsApp's file
PUSHES = Batch(50, 0.2)  # the shop changes all of them in one call
RECEIPTS = Batch(500, 0.05)  # what WhatsApp tells comes in crowds, and is written at once


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """How much at a time; each field's default is in config/default.toml."""

    transcribe: int
    transcribe_batch: int
    transcribe_timeout: float
    vocabulary: dict[str, str]
    conversation: int
    conversation_context: int
    conversation_patience: float
    conversation_timeout: float
    notification: int
    notification_timeout: float
    tenant_rounds: int

    def of_tenant(self, concurrency: int) -> int:
        """How many unfinished jobs one shop may have in the stream of a stage of this concurrency.

        Whatever more it has waits in a line of its own, so another shop's message has no more than this in front
        of it: as many rounds of jobs as a worker runs at a time, however many a flood brings. A stage holds up to
        two rounds in each worker, so fewer than three would leave one shop's worker waiting for the next job. Jobs
        that back off count. 0: any number.
        """
        return self.tenant_rounds * concurrency


def build_pipeline(
    ports: Ports, limits: Limits, notifying: Notifying, cleaning: Cleaning, checking: Checking, syncing: Syncing
) -> Pipeline:
    """Every stage. A voice note goes transcribe → process-conversation → send-client, a text skips the first; what
    cannot be sent goes to fallback, and alert says so. Orders paid in a shop go to send-vendor, and payment proofs
    of a chat by proof to push-order. The stages of cleanup are on their own."""
    return Pipeline(
        [
            *_audio(ports, limits, syncing),
            *_sending(notifying, limits),
            *_rescuing(notifying, limits),
            *_cleaning(cleaning),
            *_checking(checking),
            *_syncing(syncing, ports.source, _addressed(notifying), limits),
        ]
    )


def _audio(ports: Ports, limits: Limits, syncing: Syncing) -> list[Stage]:
    return [
        Stage(
            queue="audio",
            name="transcribe",
            payload=Transcribe,
            handler=Announced(_transcribing(ports, limits), ports.conversations),
            prepare=ports.transcriber.prepare,
            concurrency=limits.transcribe,
            tenant_limit=limits.of_tenant(limits.transcribe_batch),
            timeout=limits.transcribe_timeout,
            keep_results=KEEP_RESULTS,
        ),
        Stage(
            queue="audio",
            name="process-conversation",
            payload=ProcessConversation,
            handler=ConversationHandler(
                ports.conversations,
                ports.responder,
                limits.conversation_context,
                limits.conversation_patience,
                ports.synthesizer,
                Proofs(ShopAnswers(syncing.store, syncing.shops)),
            ),
            concurrency=limits.conversation,
            tenant_limit=limits.of_tenant(limits.conversation),
            prefetch=limits.conversation,
            timeout=limits.conversation_timeout,
            keep_results=KEEP_RESULTS,
        ),
    ]


def _transcribing(ports: Ports, limits: Limits) -> Handler:
    handler = TranscribeHandler(ports.source, ports.transcriber, limits.vocabulary)
    return Referenced(handler, ports.media) if ports.media else handler


def _sending(notifying: Notifying, limits: Limits) -> list[Stage]:
    courier = Courier(notifying.log, notifying.messenger, notifying.care)
    addressed = _addressed(notifying)
    rates = rates_of(notifying.pace, notifying.number_of) if notifying.pace else None
    common: dict[str, Any] = {
        "queue": "notification",
        "rates": rates,
        "buried": Rescue(notifying.has_fallback).of_buried,
        "concurrency": limits.notification,
        "tenant_limit": limits.of_tenant(limits.notification) * (PACED_ROUNDS if rates else 1),
        "prefetch": limits.notification,
        "timeout": limits.notification_timeout,
        "keep_results": KEEP_RESULTS,
    }
    return [
        Stage(
            name="send-vendor",
            payload=SendVendor,
            handler=VendorHandler(courier),
            check=addressed.vendor,
            **common,
        ),
        Stage(
            name="send-client",
            payload=SendClient,
            handler=ClientHandler(courier),
            check=addressed.client,
            **common,
        ),
    ]


def _addressed(notifying: Notifying) -> Addressed:
    return Addressed(notifying.region, notifying.vendors, notifying.number_of if notifying.pace else None)


def _rescuing(notifying: Notifying, limits: Limits) -> list[Stage]:
    fallback = FallbackHandler(
        email=notifying.email,
        webhook=notifying.webhook,
        default=notifying.fallback_email,
        by_tenant=notifying.fallback_emails,
    )
    return [
        Stage(
            queue="notification",
            name="fallback",
            payload=Fallback,
            handler=LoggedFallback(fallback, notifying.log),
            buried=of_buried_fallback,
            concurrency=limits.notification,
            tenant_limit=limits.of_tenant(limits.notification),
            timeout=limits.notification_timeout,
            keep_results=KEEP_RESULTS,
        ),
        Stage(
            queue="notification",
            name="alert",
            payload=Alert,
            handler=LoggedAlert(AlertHandler(notifying.alerts, notifying.alert_channels), notifying.log),
            timeout=limits.notification_timeout,
            retry=PATIENT,
        ),
        Stage(
            queue="notification",
            name="receipt",
            payload=Receipt,
            handler=ReceiptHandler(notifying.log, Rescue(notifying.has_fallback)),
            batch=RECEIPTS,
            retry=PATIENT,
            prefetch=RECEIPTS.size,
        ),
    ]


def _cleaning(cleaning: Cleaning) -> list[Stage]:
    database = cleaning.database
    return [
        Stage(
            name="tts-cache",
            payload=Prune,
            handler=SpeechCacheHandler(cleaning.speech, cleaning.speech_days),
            **CLEANING,
        ),
        Stage(
            name="conversations",
            payload=Prune,
            handler=ConversationsHandler(database, cleaning.conversations),
            **CLEANING,
        ),
        Stage(
            name="logs",
            payload=Prune,
            handler=LogsHandler(database, cleaning.logs),
            **CLEANING,
        ),
        Stage(
            name="stats",
            payload=CollectStatistics,
            handler=StatisticsHandler(database, cleaning.buried),
            check=with_day,
            **CLEANING,
        ),
    ]


def _checking(checking: Checking) -> list[Stage]:
    return [
        Stage(
            name="health",
            payload=CheckHealth,
            handler=HealthHandler(checking),
            timeout=HEALTH_TIMEOUT,
            **CLEANUP,
        )
    ]


def _syncing(syncing: Syncing, source: AudioSource, addressed: Addressed, limits: Limits) -> list[Stage]:
    paid = Paid(syncing.store, addressed.paid)
    feeds = {feed.kind: feed for feed in (PRODUCTS, orders_feed(syncing.region, syncing.keep_orders))}
    shops, wordpress, store = syncing.shops, syncing.wordpress, syncing.store
    common: dict[str, Any] = {"queue": "sync", "buried": of_buried, "keep_results": KEEP_RESULTS}
    pulls = {
        kind: PullHandler(feed, shops, wordpress, store, syncing.full_every, paid if kind == "orders" else None)
        for kind, feed in feeds.items()
    }
    return [
        Stage(name="products", handler=pulls["products"], **PULLING, **common),
        Stage(name="orders", handler=pulls["orders"], **PULLING, **common),
        Stage(
            name="changed",
            payload=Changed,
            handler=ChangedHandler(feeds, shops, wordpress, store, paid),
            concurrency=SHOPS,
            tenant_limit=limits.of_tenant(SHOPS),
            timeout=ASKS * wordpress.timeout,
            **common,
        ),
        Stage(
            name="push-order",
            payload=PushOrder,
            handler=PushHandler(shops, wordpress),
            batch=PUSHES,
            concurrency=SHOPS,
            tenant_limit=limits.of_tenant(PUSHES.size),
            timeout=600.0,
            **common,
        ),
        Stage(
            name="proof",
            payload=Proof,
            handler=ProofHandler(shops, wordpress, store, source, syncing.proof_status),
            concurrency=SHOPS,
            tenant_limit=limits.of_tenant(SHOPS),
            timeout=ASKS * wordpress.timeout + FETCHED,
            **common,
        ),
    ]
