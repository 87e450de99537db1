"""What the cleanup stages are made of."""

import msgspec

from stages.cleanup.collect import Buried
from stages.cleanup.retention import Retention
from stages.cleanup.speech import SpeechCache
from stages.store import Database


class Cleaning(msgspec.Struct, frozen=True, kw_only=True):
    """How long `conversations` and the `logs` of notifications are kept, and spoken replies, in days; `speech` is
    where those are, None where there are none. `buried` counts the jobs that failed, for the statistics."""

    database: Database
    conversations: Retention
    logs: Retention
    speech: SpeechCache | None
    speech_days: float
    buried: Buried
