"""The real parts behind the ports, made of the settings."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, nullcontext
from urllib.parse import urlsplit

from api.checking import Checks
from api.cleaning import cleaning_of
from api.notifying import Notifications, sender_of
from api.shops import syncing_of
from config import Settings
from config.settings import Audio
from config.settings import Responder as ResponderSettings
from pipeline import Pipeline, RiachoError
from stages import Limits, build_pipeline
from stages.audio.media import MediaStore
from stages.audio.model import SpeechModel
from stages.audio.remembered import RememberingTranscriber
from stages.audio.sources import AudioSources, GraphApi, ObjectStore
from stages.audio.transcripts import TranscriptStore
from stages.audio.whisper import WhisperTranscriber
from stages.conversation.language_model import LanguageModel, longest
from stages.conversation.rules import RuleResponder
from stages.conversation.shop import ShopAnswers
from stages.conversation.store import ConversationStore
from stages.notification.cloud_api import Sender
from stages.ports import Ports
from stages.speech.cache import CachedSynthesizer
from stages.speech.program import SpeechProgram
from stages.store import Database, sqlite_file

TIMEOUT = 30.0  # seconds a job of a stage may take that does not wait for a model


class ResponderUnusable(RiachoError):
    """The settings of the responder do not go together."""


class DataFolderUnusable(RiachoError):
    """The setting data.folder names no folder that can be written to."""


class Adapters:
    """The real parts behind the ports. Nothing is opened, loaded or connected before it is entered or used."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        audio, whatsapp = settings.audio, settings.whatsapp
        self.source = AudioSources(
            graph=_graph(sender_of(whatsapp, "")),
            graphs={tenant: _graph(sender_of(whatsapp, tenant)) for tenant in whatsapp.senders},
            store=ObjectStore(settings.s3.endpoint, frozenset(settings.s3.buckets)),
            roots=audio.roots,
            networks=audio.networks,
            byte_limit=audio.byte_limit,
        )
        self._folder = settings.data.folder.resolve()
        self.database = Database(settings.store.url.reveal() or sqlite_file(self._folder / "riacho.db"))
        kept = TranscriptStore(self.database, audio.keep_transcripts)
        self.transcriber = RememberingTranscriber(transcriber(audio, speech_model(audio)), kept)
        self.conversations = ConversationStore(self.database)
        self.media = MediaStore(self.database)
        self.syncing = syncing_of(settings, self.database)
        shop = ShopAnswers(self.syncing.store, self.syncing.shops)
        self.responder = _responder(settings.responder, shop)
        self.synthesizer = self._synthesizer() if settings.speech.engine != "off" else None
        self.notifications = Notifications(
            settings,
            self.database,
            self._folder / "outbox.jsonl",
            self.synthesizer.read if self.synthesizer else None,
        )
        self.checks = Checks(settings, self.database, self.notifications.parts, self._folder, self.syncing.shops)
        self.cleaning = cleaning_of(settings.cleanup, self.database, self.synthesizer, self.checks.buried)

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
            self.source, self.transcriber, self.conversations, self.responder, self.synthesizer, self.media
        )
        responder = settings.responder
        asking = 0.0 if responder.kind == "rules" else longest(responder.timeout, responder.attempts)
        limits = Limits(
            transcribe=settings.audio.concurrency,
            transcribe_batch=settings.audio.batch_size,
            vocabulary=settings.audio.vocabulary,
            transcribe_timeout=_longest_transcription(settings.audio),
            conversation=settings.conversation.concurrency,
            conversation_context=settings.conversation.context,
            conversation_patience=settings.conversation.patience,
            conversation_timeout=TIMEOUT + asking,
            notification=settings.notification.concurrency,
            notification_timeout=_longest_notification(settings),
            tenant_rounds=settings.tenants.rounds,
        )
        return build_pipeline(
            ports, limits, self.notifications.parts, self.cleaning, self.checks.parts, self.syncing
        )

    @asynccontextmanager
    async def opened(self) -> AsyncIterator[None]:
        """For a process that works the stages; one that only takes jobs in leaves them closed."""
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise DataFolderUnusable(f"cannot keep data in {self._folder}: {error.strerror}") from error
        responder = self.responder if isinstance(self.responder, LanguageModel) else nullcontext()
        async with (
            self.source,
            self.database,
            responder,
            self.synthesizer or nullcontext(),
            self.notifications.opened(),
            self.syncing.wordpress,
            self.checks.opened(self.pipeline),
        ):
            yield


def _graph(sender: Sender) -> GraphApi:
    return GraphApi(sender.url, sender.version, sender.token)


def _longest_transcription(audio: Audio) -> float:
    """Seconds for a job in all: the model's for the longest note, and as long for those in front of it. A note's
    download and its time with the model have bounds of their own."""
    return 2 * (audio.timeout + audio.timeout_factor * audio.duration_limit)


def _longest_notification(settings: Settings) -> float:
    """Seconds for a job in all: two calls, as of a voice note and its message, or of a text and its template; and
    the log. One that is cut off when its message is out might send it again."""
    return TIMEOUT + max(2 * settings.whatsapp.timeout, settings.email.timeout)


def speech_model(audio: Audio) -> SpeechModel:
    """The Whisper model of these settings, not loaded yet."""
    return SpeechModel(
        name=audio.model,
        device=audio.device,
        compute_type=audio.compute_type,
        beam_size=audio.beam_size,
        threads=audio.threads,
        cache=audio.cache,
        vad=audio.vad,
        word_timestamps=audio.word_timestamps,
    )


def transcriber(audio: Audio, model: SpeechModel) -> WhisperTranscriber:
    """The Transcriber of these settings on a model; nothing is remembered."""
    return WhisperTranscriber(
        model,
        language=audio.language,
        batch_size=audio.batch_size,
        batch_wait=audio.batch_wait,
        timeout=audio.timeout,
        timeout_factor=audio.timeout_factor,
        duration_limit=audio.duration_limit,
    )


def _responder(chosen: ResponderSettings, shop: ShopAnswers) -> RuleResponder | LanguageModel:
    if chosen.kind == "rules":
        return RuleResponder(shop)
    _check_responder(chosen)
    return LanguageModel(
        chosen.kind,
        chosen.url,
        model=chosen.model,
        api_key=chosen.api_key.reveal(),
        timeout=chosen.timeout,
        attempts=chosen.attempts,
        prompt=chosen.prompt,
        prompts=chosen.prompts,
        fallback=RuleResponder(shop),
        shop=shop,
    )


def _check_responder(chosen: ResponderSettings) -> None:
    """Early, and without showing what may be secret."""
    needs = f"responder.kind = {chosen.kind!r} needs"
    if not _is_http(chosen.url):
        raise ResponderUnusable(
            f"{needs} responder.url (RIACHO_RESPONDER_URL), as in http://127.0.0.1:11434: http:// or https://, "
            "a host, and no login (a key goes into RIACHO_RESPONDER_API_KEY)"
        )
    if not chosen.model:
        raise ResponderUnusable(f"{needs} responder.model (RIACHO_RESPONDER_MODEL), as the server names it")
    key = chosen.api_key.reveal()
    if not (key.isascii() and key.isprintable()):
        raise ResponderUnusable("responder.api_key (RIACHO_RESPONDER_API_KEY) has characters no header can carry")


def _is_http(url: str) -> bool:
    try:
        parts = urlsplit(url)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and "@" not in parts.netloc
    except ValueError:
        return False
