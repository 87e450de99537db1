"""Which job runs here: noted before a handler runs, read by whoever tells of what happens there (the log)."""

from contextvars import ContextVar

from pipeline.message import Delivery, trace_id_of

_NOBODYS = Delivery("", 0, b"", b"", 0)
_delivery: ContextVar[Delivery] = ContextVar("delivery", default=_NOBODYS)

# Of the delivery whose handler is about to run, with its `tenant` set until it has run. As it is called for every
# job, it is no function of ours, and nobody goes back: the delivery itself says when its handler is through.
note = _delivery.set


def facts() -> dict[str, str | int]:
    """What is known of the job in whose handler this is called, or in tasks and threads that it started and that
    have not outlived it: job_id, stage, attempt, and tenant and trace_id where it has them. Else empty."""
    delivery = _delivery.get()
    if (tenant := delivery.tenant) is None:
        return {}
    named = {"trace_id": trace_id_of(delivery.trace), "job_id": str(delivery.id), "stage": delivery.stage}
    known: dict[str, str | int] = {name: value for name, value in (named | {"tenant": tenant}).items() if value}
    return known | {"attempt": delivery.attempt}
