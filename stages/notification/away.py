"""What a job does while the log cannot be reached: it waits, and uses up no try."""

from collections.abc import Iterator
from contextlib import contextmanager

from pipeline import Context, RetryLater
from stages.store import StoreUnavailable

AWAY = 5.0  # seconds until a log that is away is asked again
LONGEST_AWAY = 86_400_000  # ms: a job this old uses up its tries


@contextmanager
def waiting_for_log(ctx: Context, now: int) -> Iterator[None]:
    """Raises RetryLater for StoreUnavailable, but for a job that has waited for a day at `now`."""
    try:
        yield
    except StoreUnavailable as error:
        if waited_long(ctx, now):
            raise
        raise RetryLater(AWAY, str(error)) from None


def waited_long(ctx: Context, now: int) -> bool:
    """Whether a job waits for something else than a database that will be back."""
    return now - ctx.enqueued_ms > LONGEST_AWAY
