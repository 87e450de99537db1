"""The domain: what happens to a chat message on its way. `build_pipeline` is the whole map."""

import msgspec

from pipeline import Pipeline, Stage
from stages.audio.transcribe import TranscribeHandler
from stages.conversation.process import ConversationHandler
from stages.jobs import ProcessConversation, SendClient, Transcribe
from stages.notification.client import ClientHandler
from stages.ports import Ports

KEEP_RESULTS = 86_400.0  # seconds a finished job can still be looked up


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """How much at a time; each field's default is in config/default.toml."""

    transcribe: int
    transcribe_timeout: float
    conversation: int
    conversation_context: int
    notification: int


def build_pipeline(ports: Ports, limits: Limits) -> Pipeline:
    """Every stage. A voice note goes transcribe → process-conversation → send-client, a text skips the first."""
    return Pipeline(
        [
            Stage(
                queue="audio",
                name="transcribe",
                payload=Transcribe,
                handler=TranscribeHandler(ports.source, ports.transcriber),
                prepare=ports.transcriber.prepare,
                concurrency=limits.transcribe,
                timeout=limits.transcribe_timeout,
                keep_results=KEEP_RESULTS,
            ),
            Stage(
                queue="audio",
                name="process-conversation",
                payload=ProcessConversation,
                handler=ConversationHandler(ports.conversations, ports.responder, limits.conversation_context),
                concurrency=limits.conversation,
                prefetch=limits.conversation,
                keep_results=KEEP_RESULTS,
            ),
            Stage(
                queue="notification",
                name="send-client",
                payload=SendClient,
                handler=ClientHandler(ports.messenger),
                concurrency=limits.notification,
                prefetch=limits.notification,
                keep_results=KEEP_RESULTS,
            ),
        ]
    )
