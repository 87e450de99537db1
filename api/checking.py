"""The health checks, made of the settings."""

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

from api.notifying import sender_of, sends_by_whatsapp
from config import Settings
from pipeline import Broker, Pipeline
from stages.health.check import Checking
from stages.health.finding import Check
from stages.health.places import BucketCheck, FolderCheck, ModelCheck, SpaceCheck, StoreCheck
from stages.health.senders import EmailCheck, WhatsAppCheck
from stages.health.server import ServerCheck
from stages.health.shops import ShopsCheck
from stages.health.states import HealthLog
from stages.health.work import DeadLettersCheck, PausedCheck, WorkCheck
from stages.notification.cloud_api import Sender
from stages.notification.parts import Notifying
from stages.store import Database
from stages.sync.rest import Shop

ANSWERS = 15.0  # seconds: above the time-outs of Redis and the database themselves
LONG = 40.0  # for what asks several others, or reads the weights
OWN_SERVER = "start it with 'riacho up' on this data folder, or set REDIS_URL to a server of yours"
OTHER_SERVER = "start Redis there, or set REDIS_URL (or REDIS_HOST, REDIS_PORT, REDIS_PASSWORD)"


class Checks:
    """Makes `parts`; to be opened where they are asked, as a broker belongs to an event loop."""

    def __init__(
        self,
        settings: Settings,
        database: Database,
        notifying: Notifying,
        folder: Path,
        shops: Mapping[str, Shop],
    ) -> None:
        self._settings, self._database, self._shops = settings, database, shops
        self._notifying, self._folder = notifying, folder
        self._log = HealthLog(database)
        self._opened: Broker | None = None
        self._pipeline: Callable[[], Pipeline]
        checks = [*self._of_redis(), *self._of_stores(), *self._of_senders(), *self._of_places()]
        self.parts = Checking(checks, self._log, notifying.alert_channels)

    @asynccontextmanager
    async def opened(self, pipeline: Callable[[], Pipeline]) -> AsyncIterator[None]:
        """Have a broker to look with; it connects when it is first used."""
        self._pipeline = pipeline
        try:
            yield
        finally:
            if self._opened:
                await self._opened.close()

    async def buried(self, since_ms: int, until_ms: int) -> Mapping[str, int]:
        """How many jobs were buried in that time, by tenant."""
        return await self._broker().buried_between(since_ms, until_ms)

    def _broker(self) -> Broker:
        if self._opened is None:
            redis = self._settings.redis
            url, names = redis.url.reveal(), redis.namespace
            self._opened = Broker(url, self._pipeline(), namespace=names, partitions=redis.partitions)
        return self._opened

    def _of_redis(self) -> list[Check]:
        url, health = self._settings.redis.url.reveal(), self._settings.health
        remedy = OTHER_SERVER if url and not url.startswith("unix:") else OWN_SERVER
        server = ServerCheck(self._broker, health.latency, health.memory, remedy)
        work = WorkCheck(self._broker, health.waiting, health.active, self._settings.worker.lease)
        return [
            Check("redis", server, ANSWERS),
            Check("work", work, ANSWERS),
            Check("dead", DeadLettersCheck(self._broker, self._last_figure), ANSWERS),
        ]

    def _of_stores(self) -> list[Check]:
        audio = self._settings.audio
        model = ModelCheck(audio.model, audio.cache, audio.device, audio.compute_type)
        return [
            Check("store", StoreCheck(self._database, self._there), ANSWERS),
            Check("space", SpaceCheck(self._folder)),
            Check("model", model, LONG),
        ]

    def _of_senders(self) -> list[Check]:
        whatsapp = WhatsAppCheck(self._senders(), outbox=not sends_by_whatsapp(self._settings))
        checks = [
            Check("whatsapp", whatsapp, LONG),
            Check("senders", PausedCheck(self._notifying.log, self._there), ANSWERS),
        ]
        if email := self._notifying.email:
            checks.append(Check("email", EmailCheck(email), min(self._settings.email.timeout + 1, LONG)))
        if self._shops:
            checks.append(Check("shops", ShopsCheck(self._shops), LONG))
        return checks

    def _of_places(self) -> list[Check]:
        speech, s3 = self._settings.speech, self._settings.s3
        checks = [
            Check(f"bucket.{bucket}", BucketCheck(f"bucket.{bucket}", s3.endpoint, bucket))
            for bucket in dict.fromkeys(s3.buckets)
        ]
        if speech.engine == "off":
            return checks
        cache = speech.cache or str(self._folder / "tts")
        if cache.startswith("s3://"):
            place = cache.removeprefix("s3://").rstrip("/")
            return [*checks, Check("speech", BucketCheck("speech", s3.endpoint, place))]
        return [*checks, Check("speech", FolderCheck("speech", Path(cache).expanduser().resolve()))]

    def _senders(self) -> dict[str, Sender]:
        """Those with a number to ask for, by tenant."""
        whatsapp = self._settings.whatsapp
        common = [""] if whatsapp.phone_number_id else []
        senders = {tenant: sender_of(whatsapp, tenant) for tenant in [*common, *whatsapp.senders]}
        return {tenant or sender.phone_number_id: sender for tenant, sender in senders.items()}

    def _there(self) -> bool:
        """Whether there is a database: to look into one would make it."""
        file = self._database.file
        return file is None or file.exists()

    async def _last_figure(self, name: str) -> int | None:
        return await self._log.figure(name) if self._there() else None
