"""Why a shop did not answer as asked, by what there is to do about it.

ShopError
├── ShopAway        it cannot be reached, is slow, or has too much to do: later
├── ShopClosed      a matter for a person: the address, the login, or what the login may do
├── RecordUnknown   there is no such record, or no longer
└── RecordRefused   the shop finds something wrong with what it was sent
"""

from pipeline import RiachoError

LONGEST_PAUSE = 900.0  # seconds; the pull every quarter of an hour has what a webhook told then anyway


class ShopError(RiachoError):
    """The message names the shop, and has no secrets."""


class ShopAway(ShopError):
    """Something passing. `after`: how many seconds the shop wants to be left alone; None where it did not say."""

    def __init__(self, message: str, after: float | None = None) -> None:
        super().__init__(message)
        self.after = after

    def pause(self, doubled: int) -> float:
        """Seconds before a job tries again: the shop's own, or one that was doubled so often."""
        return min(self.after or 2.0 ** min(doubled, 8), LONGEST_PAUSE)


class ShopClosed(ShopError):
    """It stays so until somebody changes a setting, here or in the shop."""


class RecordUnknown(ShopError):
    """Nothing is found under this id."""


class RecordRefused(ShopError):
    """`code` is the shop's own for what was wrong."""

    def __init__(self, message: str, code: str) -> None:
        super().__init__(message)
        self.code = code
