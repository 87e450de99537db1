"""Why a message did not go out, by what there is to do about it.

NotSent                 what was sent to the channel is known not to have gone out
├── Retryable           another try may help
├── RateLimited         one too many for this number, or this recipient
├── OutsideWindow       the customer was silent for 24 hours: only a template goes out
├── SenderPaused        this number may not send now, or not with this token: it stays so
└── Refused             this message never goes out this way
OutcomeUnknown          the channel was asked, and nobody knows what it made of it
"""

from pipeline import RiachoError


class NotSent(RiachoError):
    """`code` is the channel's own for what was wrong, None where it gave none. The message has no secrets."""

    def __init__(self, message: str, code: int | None = None) -> None:
        super().__init__(message)
        self.code = code


class Retryable(NotSent):
    """Something passing."""


class RateLimited(NotSent):
    """Over a limit of the channel's: the number's, or where `pair` says so the recipient's alone."""

    def __init__(self, message: str, code: int | None = None, *, pair: bool = False) -> None:
        super().__init__(message, code)
        self.pair = pair

    @staticmethod
    def wait(times: int) -> float:
        """Seconds before another try, after so many refusals in a row: 4, 16, 64, and 256 from then on (Meta asks
        for 4^n)."""
        return 4.0 ** min(times, 4)


class OutsideWindow(NotSent):
    """Only an approved template reaches this customer now."""


class SenderPaused(NotSent):
    """A matter for a person: the account, its payment, or its token."""


class Refused(NotSent):
    """Trying it again cannot help."""


class OutcomeUnknown(RiachoError):
    """A time-out, or a connection lost after the request was out."""
