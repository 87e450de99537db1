"""The domain: what happens to a chat message on its way. `build_pipeline` is the whole map."""

import msgspec

from pipeline import Pipeline, Stage
from stages.audio.transcribe import TranscribeHandler
from stages.conversation.announce import Announced
from stages.conversation.process import ConversationHandler
from stages.jobs import ProcessConversation, SendClient, Transcribe
from stages.notification.client import ClientHandler
from stages.ports import Ports

KEEP_RESULTS = 86_400.0  # seconds a finished job can still be looked up


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
    tenant_rounds: int

    def of_tenant(self, concurrency: int) -> int:
        """How many unfinished jobs one shop may have in the stream of a stage of this concurrency.

        Whatever more it has waits in a line of its own, so another shop's message has no more than this in front
        of it: as many rounds of jobs as a worker runs at a time, however many a flood brings. A stage holds up to
        two rounds in each worker, so fewer than three would leave one shop's worker waiting for the next job. Jobs
        that back off count. 0: any number.
        """
        return self.tenant_rounds * concurrency


def build_pipeline(ports: Ports, limits: Limits) -> Pipeline:
    """Every stage. A voice note goes transcribe → process-conversation → send-client, a text skips the first."""
    return Pipeline(
        [
            Stage(
                queue="audio",
                name="transcribe",
                payload=Transcribe,
                handler=Announced(
                    TranscribeHandler(ports.source, ports.transcriber, limits.vocabulary), ports.conversations
                ),
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
                ),
                concurrency=limits.conversation,
                tenant_limit=limits.of_tenant(limits.conversation),
                prefetch=limits.conversation,
                timeout=limits.conversation_timeout,
                keep_results=KEEP_RESULTS,
            ),
            Stage(
                queue="notification",
                name="send-client",
                payload=SendClient,
                handler=ClientHandler(ports.messenger),
                concurrency=limits.notification,
                tenant_limit=limits.of_tenant(limits.notification),
                prefetch=limits.notification,
                keep_results=KEEP_RESULTS,
            ),
        ]
    )
