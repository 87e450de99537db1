"""How many requests a caller may make."""

import ipaddress
import time
from collections.abc import Callable
from functools import lru_cache

FORGET_EVERY = 10.0  # seconds; a caller who rested this long is as good as new
MOST_CALLERS = 10_000  # kept in mind at a time; whoever was heard of least lately is forgotten first
PREFIX_OF_ONE = 64  # bits of an IPv6 address that one network has; the rest it chooses as it likes


class Limit:
    """So many requests a second for each caller, and as many at once as come in `burst` seconds (a request at
    least); 0: any number."""

    def __init__(
        self, per_second: float, clock: Callable[[], float] = time.monotonic, *, burst: float = 1.0
    ) -> None:
        self._every = 1 / per_second if per_second else 0.0
        self._ahead = max(burst, self._every)
        self._clock = clock
        self._paid_until: dict[str, float] = {}  # each request moves it on by what it costs
        self._forgot = clock()

    def wait(self, caller: str) -> float:
        """0 where the request may be made, which then counts; else the seconds after which to try again."""
        if not self._every:
            return 0.0
        now = self._clock()
        self._forget(now)
        paid = max(now, self._paid_until.get(caller, now)) + self._every
        if (over := paid - now - self._ahead) > 1e-9:  # what sums of fractions may be off by
            return over
        self._note(caller, paid)
        return 0.0

    def _note(self, caller: str, paid: float) -> None:
        self._paid_until.pop(caller, None)  # so that it comes last
        self._paid_until[caller] = paid
        if len(self._paid_until) > MOST_CALLERS:
            del self._paid_until[next(iter(self._paid_until))]

    def _forget(self, now: float) -> None:
        """Bounds the memory by the callers of a few seconds."""
        if now - self._forgot > FORGET_EVERY:
            self._paid_until = {caller: paid for caller, paid in self._paid_until.items() if paid > now}
            self._forgot = now


@lru_cache(1024)
def place_of(address: str) -> str:
    """Who an address is counted as: itself, or the /64 of IPv6, of which one machine may have every address."""
    try:
        known = ipaddress.ip_address(address)
    except ValueError:  # no socket of the network
        return address
    if isinstance(known, ipaddress.IPv4Address):
        return address
    if known.ipv4_mapped:  # a socket for both
        return str(known.ipv4_mapped)
    return str(ipaddress.ip_network((int(known), PREFIX_OF_ONE), strict=False))
