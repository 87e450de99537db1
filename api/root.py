"""The composition root: settings in, the parts put together out."""

import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, nullcontext

from config import Settings
from pipeline import Broker, Pipeline, RiachoError
from pipeline.errors import ServerUnavailable
from stages import Limits, build_pipeline
from stages.audio.sources import AudioSources, GraphApi
from stages.audio.whisper import WhisperTranscriber
from stages.conversation.rules import RuleResponder
from stages.conversation.store import ConversationStore, sqlite_file
from stages.notification.outbox import Outbox
from stages.ports import Ports
from stages.speech.cache import CachedSynthesizer
from stages.speech.program import SpeechProgram

log = logging.getLogger(__name__)


class DataFolderUnusable(RiachoError):
    """The setting data.folder names no folder that can be written to."""


class Adapters:
    """The real parts behind the ports. Nothing is opened, loaded or connected before it is entered or used."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        audio, whatsapp = settings.audio, settings.whatsapp
        self.source = AudioSources(
            graph=GraphApi(whatsapp.graph_url, whatsapp.version, whatsapp.access_token.reveal()),
            roots=audio.roots,
            byte_limit=audio.byte_limit,
        )
        self.transcriber = WhisperTranscriber(
            model=audio.model,
            device=audio.device,
            compute_type=audio.compute_type,
            language=audio.language,
            beam_size=audio.beam_size,
            threads=audio.threads,
            workers=2,
            cache=audio.cache,
            duration_limit=audio.duration_limit,
        )
        self._folder = settings.data.folder.resolve()
        self.conversations = ConversationStore(
            settings.store.url.reveal() or sqlite_file(self._folder / "riacho.db")
        )
        self.messenger = Outbox(self._folder / "outbox.jsonl")
        self.synthesizer = self._synthesizer() if settings.speech.engine != "off" else None

    def _synthesizer(self) -> CachedSynthesizer:
        speech = self._settings.speech
        return CachedSynthesizer(
            SpeechProgram(speech.engine, speech.voice),
            speech.cache or str(self._folder / "tts"),
            endpoint=self._settings.s3.endpoint,
        )

    def pipeline(self) -> Pipeline:
        """The stages on these adapters."""
        settings = self._settings
        ports = Ports(
            self.source,
            self.transcriber,
            self.conversations,
            RuleResponder(),
            self.messenger,
            self.synthesizer,
        )
        limits = Limits(
            transcribe=settings.audio.concurrency,
            transcribe_timeout=settings.audio.timeout
            + settings.audio.timeout_factor * settings.audio.duration_limit,
            conversation=settings.conversation.concurrency,
            conversation_context=settings.conversation.context,
            notification=settings.notification.concurrency,
            tenant_rounds=settings.tenants.rounds,
        )
        return build_pipeline(ports, limits)

    @asynccontextmanager
    async def opened(self) -> AsyncIterator[None]:
        """For a process that works the stages; one that only takes jobs in leaves them closed."""
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise DataFolderUnusable(f"cannot keep data in {self._folder}: {error.strerror}") from error
        async with self.source, self.conversations, self.synthesizer or nullcontext():
            yield


def connector(settings: Settings, pipeline: Pipeline) -> Callable[[], Broker]:
    """Makes brokers: each event loop needs its own."""
    redis = settings.redis
    return lambda: Broker(
        redis.url.reveal(),
        pipeline,
        namespace=redis.namespace,
        partitions=redis.partitions,
        memory_share=redis.memory_share,
    )


@asynccontextmanager
async def open_broker(settings: Settings) -> AsyncIterator[Broker]:
    """A broker for a process that takes jobs in or looks at them; warns of what is unsafe about the server.

    Raises ServerUnavailable saying what was tried and what to do.
    """
    await check(settings)
    async with connector(settings, Adapters(settings).pipeline())() as broker:
        yield broker


async def check(settings: Settings) -> None:
    """Refuse a server that cannot be used, warn loudly of one that may lose jobs."""
    async with connector(settings, Pipeline([]))() as broker:
        try:
            server = await broker.check()
        except ServerUnavailable as error:
            raise ServerUnavailable(
                f"cannot reach {error}. Start Redis there, or set REDIS_URL (or REDIS_HOST, REDIS_PORT, "
                "REDIS_PASSWORD); 'riacho up' with none of them set brings its own server"
            ) from error
        for warning in server.warnings:
            log.warning("WARNING: jobs may be lost. Redis at %s: %s", broker.address, warning)
