"""The real parts of the cleanup stages, made of the settings."""

from config.settings import Cleanup
from stages.cleanup.collect import Buried
from stages.cleanup.parts import Cleaning
from stages.cleanup.retention import Retention
from stages.cleanup.speech import SpeechCache
from stages.store import Database


def cleaning_of(settings: Cleanup, database: Database, speech: SpeechCache | None, buried: Buried) -> Cleaning:
    """The parts for these settings on a database; `speech` is opened by whoever speaks."""
    held, own = frozenset(settings.held), settings.retention
    conversations = {tenant: kept.conversations for tenant, kept in own.items() if kept.conversations}
    logs = {tenant: kept.logs for tenant, kept in own.items() if kept.logs}
    return Cleaning(
        database=database,
        conversations=Retention(settings.conversations, conversations, held),
        logs=Retention(settings.logs, logs, held),
        speech=speech,
        speech_days=settings.tts,
        buried=buried,
    )
