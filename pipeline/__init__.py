"""The engine: jobs on Redis Streams. It knows Redis, and nothing of WhatsApp or Whisper.

A producer needs `Broker.add`, a stage `Stage`, `Context` and the outcomes, a process `Worker`.
"""

from pipeline.broker import Broker
from pipeline.errors import Permanent, RetryLater, RiachoError
from pipeline.message import Job, JobId
from pipeline.outcome import Bury, Done, Outcome, Retry
from pipeline.retry import RetryPolicy
from pipeline.schedule import Schedule
from pipeline.stage import Context, Pipeline, Stage
from pipeline.worker import Worker

__all__ = [
    "Broker",
    "Bury",
    "Context",
    "Done",
    "Job",
    "JobId",
    "Outcome",
    "Permanent",
    "Pipeline",
    "Retry",
    "RetryLater",
    "RetryPolicy",
    "RiachoError",
    "Schedule",
    "Stage",
    "Worker",
]
