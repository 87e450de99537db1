"""What goes wrong with a database."""

from pipeline import RiachoError


class StoreUnavailable(RiachoError):
    """The database cannot be reached or written."""


class WriteRefused(StoreUnavailable):
    """It is there, and did not take this: for what is in it, or for who else writes the same."""
