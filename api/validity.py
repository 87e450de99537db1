"""From when until when a certificate holds, as nothing of the standard library tells of one's own."""

import ssl
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import NamedTuple

BEGIN, END = "-----BEGIN CERTIFICATE-----", "-----END CERTIFICATE-----"
SOON = timedelta(days=7)
SHARE = 4  # a short-lived one is renewed later: it ends soon in the last quarter of its time
SEQUENCE = 0x30
FORMATS = {0x17: "%y%m%d%H%M%SZ", 0x18: "%Y%m%d%H%M%SZ"}  # UTCTime, GeneralizedTime (RFC 5280, 4.1.2.5)


class Validity(NamedTuple):
    """When a certificate begins and ends to hold."""

    begins: datetime
    ends: datetime

    def fault(self, now: datetime) -> str:
        """What is wrong with it, or will be soon; '' if nothing is."""
        if now < self.begins:
            return f"does not hold before {self.begins:%Y-%m-%d %H:%M} UTC"
        if now >= self.ends:
            return f"expired on {self.ends:%Y-%m-%d %H:%M} UTC"
        if self.ends - now < min(SOON, (self.ends - self.begins) / SHARE):
            return f"expires on {self.ends:%Y-%m-%d %H:%M} UTC"
        return ""


def validity(path: Path) -> Validity | None:
    """Of the first certificate in a file in PEM; None where it cannot be told."""
    try:
        text = path.read_text("ascii", "replace")
        body = text[text.index(BEGIN) : text.index(END) + len(END)]
        begins, ends = _times(ssl.PEM_cert_to_DER_cert(body))
    except (OSError, ValueError, LookupError, StopIteration):
        return None
    return Validity(begins, ends)


def _times(der: bytes) -> Iterator[datetime]:
    (_, certificate), *_ = _parts(der)
    (_, signed), *_ = _parts(certificate)
    # Of what is signed, the third sequence, after the algorithm and the issuer (RFC 5280, 4.1).
    found = [content for tag, content in _parts(signed) if tag == SEQUENCE][2]
    for tag, content in _parts(found):
        yield datetime.strptime(content.decode("ascii"), FORMATS[tag]).replace(tzinfo=UTC)


def _parts(der: bytes) -> Iterator[tuple[int, bytes]]:
    """Tags and contents that stand one after the other (X.690, 8.1)."""
    at = 0
    while at < len(der):
        tag, length, at = der[at], der[at + 1], at + 2
        if length > 0x7F:
            size = length & 0x7F
            length, at = int.from_bytes(der[at : at + size], "big"), at + size
        yield tag, der[at : at + length]
        at += length
