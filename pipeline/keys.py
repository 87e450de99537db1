"""Every key in Redis. All keys of one partition share a hash tag, so one script may touch them together."""

from pipeline.message import JobId

GROUP = b"riacho"

# Pseudo-consumers that own parked entries; the scripts know them by the '~'.
RETRYING = b"~retry"
RELEASED = b"~released"


class Keys:
    """The key names of one namespace (`riacho`, or one of its own for each test)."""

    def __init__(self, namespace: str = "riacho") -> None:
        self._namespace = namespace

    def _key(self, partition: int, kind: str, name: str) -> str:
        return f"{{{self._namespace}:{partition}}}:{kind}:{name}"

    def stream(self, stage: str, partition: int) -> str:
        """STREAM: the stage's entries; deleted when settled, so its length is the unfinished work."""
        return self._key(partition, "stream", stage)

    def due(self, stage: str, partition: int) -> str:
        """ZSET: parked entry ids by the ms they are due."""
        return self._key(partition, "due", stage)

    def dead(self, stage: str, partition: int) -> str:
        """STREAM: dead letters (`id`, `e` envelope, `record`)."""
        return self._key(partition, "dead", stage)

    def job(self, job: JobId) -> str:
        """HASH with a TTL: `record`, and `next`, the ids it was handed on to."""
        return self._key(job.partition, "job", f"{job.stage}:{job.entry}")

    def dedup(self, stage: str, partition: int, dedup: str) -> str:
        """STRING with a TTL: the entry id first added under this dedup id."""
        return self._key(partition, "dedup", f"{stage}:{dedup}")
