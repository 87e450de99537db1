"""Which calls fail, and how: by script, else by chance that a seed decides."""

import math
from collections import Counter, deque
from collections.abc import Mapping, Sequence
from hashlib import blake2b

from tests.cloud_api.config import Config
from tests.cloud_api.errors import ERRORS

_ONE = 2**64


class Faults:
    """Says for each call what goes wrong with it."""

    def __init__(self, config: Config) -> None:
        for fault in config.faults:
            check(fault)
        self._shares: Mapping[str, float] = config.faults
        self._most = config.in_a_row or math.inf
        self._seed = config.seed
        self._seen: Counter[str] = Counter()
        self._row: Counter[str] = Counter()  # hits since it last got through
        self._scripts: dict[str, deque[str]] = {}
        for recipient, faults in config.scripted.items():
            self.script(recipient, faults)

    def script(self, recipient: str, faults: Sequence[str]) -> None:
        """Let a recipient's next calls fail in this way, one after the other."""
        for fault in faults:
            check(fault)
        self._scripts.setdefault(recipient, deque()).extend(faults)

    def next(self, recipient: str, message: str) -> str:
        """The fault of this call, 'pass' for none. `message` is the same whenever it is sent again."""
        if script := self._scripts.get(recipient):
            return script.popleft()
        return self._by_chance(message) if self._shares else "pass"

    def chance(self, *what: object) -> float:
        """A number from 0 to 1 that is always the same for the same thing."""
        digest = blake2b(repr((self._seed, what)).encode(), digest_size=8).digest()
        return int.from_bytes(digest, "big") / _ONE

    def _by_chance(self, message: str) -> str:
        self._seen[message] += 1
        fault = "pass" if self._row[message] >= self._most else self._drawn(message)
        self._row[message] = 0 if fault == "pass" else self._row[message] + 1
        return fault

    def _drawn(self, message: str) -> str:
        left = self.chance(message, self._seen[message])
        for fault, share in self._shares.items():
            left -= share
            if left < 0:
                return fault
        return "pass"


def check(fault: str) -> None:
    """Raise ValueError for a code that is not Meta's."""
    if fault.isdigit() and int(fault) not in ERRORS:
        raise ValueError(f"{fault} is not among the error codes that the stand-in knows")
