"""Why a shop did not answer as asked, by what there is to do about it.

ShopError
├── ShopAway        it cannot be reached, is slow, or has too much to do: later
├── ShopClosed      a matter for a person: the address, the login, or what the login may do
├── RecordUnknown   there is no such record, or no longer
└── RecordRefused   the shop finds something wrong with what it was sent
"""

from pipeline import RiachoError
from pipeline.message import now_ms

FIRST_PAUSE = 2.0  # seconds
LONGEST_PAUSE = 900.0  # the pull every quarter of an hour has what a webhook told then anyway


def pause_since(since_ms: int) -> float:
    """Seconds before something is tried again that is tried since then: half as much as it has waited."""
    return min(max((now_ms() - since_ms) / 2_000, FIRST_PAUSE), LONGEST_PAUSE)


class ShopError(RiachoError):
    """The message names the shop, and has no secrets."""


class ShopAway(ShopError):
    """Something passing. `after`: how many seconds the shop wants to be left alone; None where it did not say."""

    def __init__(self, message: str, after: float | None = None) -> None:
        super().__init__(message)
        self.after = after

    def pause(self, since_ms: int) -> float:
        """Seconds before a job tries again that is there since then: the shop's own, or more and more of them."""
        return min(self.after or pause_since(since_ms), LONGEST_PAUSE)


class ShopClosed(ShopError):
    """It stays so until somebody changes a setting, here or in the shop."""


class RecordUnknown(ShopError):
    """Nothing is found under this id."""


class RecordRefused(ShopError):
    """`code` is the shop's own for what was wrong."""

    def __init__(self, message: str, code: str) -> None:
        super().__init__(message)
        self.code = code
