"""Names of what spans and metrics tell of work: OTel's (semantic conventions 1.44; those of messaging are still in
development, and may change), then ours."""

SYSTEM = "messaging.system"
OPERATION = "messaging.operation.name"
OPERATION_TYPE = "messaging.operation.type"
DESTINATION = "messaging.destination.name"
PARTITION = "messaging.destination.partition.id"
GROUP = "messaging.consumer.group.name"
MESSAGE = "messaging.message.id"
CONVERSATION = "messaging.message.conversation_id"
BATCH = "messaging.batch.message_count"

ERROR = "error.type"
METHOD = "http.request.method"
ROUTE = "http.route"
STATUS = "http.response.status_code"
HOST = "server.address"
PORT = "server.port"
PEER = "peer.service"

ATTEMPT = "riacho.attempt"
OUTCOME = "riacho.outcome"  # completed, retrying, deferred, throttled, cancelled, dead
REASON = "riacho.reason"
WAITED = "riacho.waited"  # seconds before a try, since it could have run; the name of an event, too
RETRY_AFTER = "riacho.retry_after"  # seconds
KEPT = "riacho.kept"  # why a span is exported that was not sampled

REDIS_STREAMS = "redis_streams"


def messaging(operation: str, destination: str) -> dict[str, str]:
    """What is said of an operation (send, process) on a stage, `destination` being its full name."""
    return {SYSTEM: REDIS_STREAMS, OPERATION: operation, DESTINATION: destination}
