"""What nobody is to read in a log or a span: secrets, phone numbers, e-mail addresses, WhatsApp's message ids.

`masked` is the one way to them. It goes by the secrets it was told of (`know`), and by what such things look like:

| in the text                                                    | is shown as                    |
|----------------------------------------------------------------|--------------------------------|
| a secret it knows, also as in an address, in JSON or in `repr` | `***`                          |
| a login in an address                                          | `redis://user:***@host`        |
| what follows `Bearer`, `access_token=`, `"password":`          | `Bearer ***`, …                |
| an API key of ours, a token of Meta's, an access key of AWS    | `***`                          |
| wamid.HBgN… (the recipient's number is in it)                  | `wamid.#` and 8 digits of its hash |
| an e-mail address                                              | `***@shop.example`             |
| a phone number: `PHONE` digits, with what people put between them | `***` and the last two digits |

Digits that are something else are left as they are: `_KEPT` says which.
"""

import hashlib
import json
import re
from collections.abc import Iterable
from urllib.parse import quote, quote_plus, unquote

MOST = 65_536  # characters of a text that are looked at; what is behind them is left out
SHORTEST = 6  # characters of a secret: a shorter one would be found in half of all words
HIDDEN = "***"

# Digits without '+' or anything between them: fewer are ports, sizes and counts; 15 are WhatsApp's ids of numbers,
# by which tenants are named, and no country's numbers are as long.
PHONE = range(10, 15)
LONGEST_PHONE = 15  # by E.164
SHORTEST_INTERNATIONAL = 8  # after a '+', or 00

_LOGIN = re.compile(r"([A-Za-z][A-Za-z0-9+.-]{0,30}://)([\w.-]{1,32}:)?[^\s/?#\"'<>]+@")
_NAMED = re.compile(
    r"((?:token|secret|passw(?:or)?d|api[_-]?key|signature|credential|authorization)"
    r"[\"'\\]{0,3}\s{0,3}[=:]\s{0,3})"
    r"(?:(\\([\"']))(?:(?!\\\3).){1,2000}"  # quoted, in JSON that is quoted itself
    r"|([bru]?([\"']))(?:\\.|(?!\5)[^\\]){1,2000}"
    r"|((?:bearer|basic)\s{1,3})?[^\s\"'&,;<>)\]}\\]+)",
    re.IGNORECASE,
)
_BEARER = re.compile(r"\b(bearer(?:\s|%20|\+){1,3})[^\s\"'&,;<>)\]}\\]+", re.IGNORECASE)
_KEY = re.compile(
    r"riacho_(?=[a-z_]{0,40}[A-Z0-9-])[\w-]{32,}|(?<![\w-])EAA[\w-]{6,}|\b(?:AKIA|ASIA)[A-Z0-9]{16}\b", re.ASCII
)
_WAMID = re.compile(r"wamid\.([A-Za-z0-9+/=_%-]+(?:\.[A-Za-z0-9+/=_%-]+)*)")
_EMAIL = re.compile(r"(?<![\w.+%*-])[\w.+%*-]++(?:'[\w.+%*-]++){0,2}+@(?=[\w-]++(?:\.[\w-]++)+)")

# Read from the left, each where it begins: what a match takes is no part of a phone number any more.
_HEX = r"[0-9A-Fa-f]"
_HEXADECIMAL = (
    rf"(?<![0-9A-Za-z])(?={_HEX}{{2}})(?:"
    rf"{_HEX}{{8}}-(?:{_HEX}{{4}}-){{3}}{_HEX}{{12}}"  # a UUID
    rf"|{_HEX}{{2}}-{_HEX}{{32}}-{_HEX}{{16}}-{_HEX}{{2}}"  # a traceparent
    rf"|{_HEX}{{16,}}"  # a hash, a trace, a span; also a time in microseconds
    r")(?![0-9A-Za-z])"
)
_NUMERIC = "|".join(
    (
        # A date, with its time; the time alone.
        r"(?:19|20)\d\d-[01]\d-[0-3]\d"
        r"(?:[T ][0-2]\d:[0-5]\d(?::[0-6]\d(?:[.,]\d{1,9})?)?(?:Z|[+-]\d\d:\d\d)?)?(?!\d)",
        r"[0-2]\d:[0-5]\d:[0-6]\d(?:[.,]\d{1,9})?(?!\d)",
        # Milliseconds since the epoch, as they also begin a stream's ids: the numbers of country 1 have 11 digits.
        r"1\d{12}(?:-\d{1,9})?(?!\d)",
        r"20\d{12}(?!\d)",  # 20261123153615: the numbers of country 20 have 12
        r"0\.\d+(?![\d.])",
        r"\d{1,3}(?:,\d{3})+(?!\d)",
        r"\d{10,15}(?= ?(?:bytes|[KMGT]?i?B)\b)",
    )
)
_SECONDS = r"1[6-9]\d{8}(?:\.\d{1,9})?(?!\d)"  # since the epoch
_ALONE = r"(?<![\d+\uff0b])(?=\d)"
_KEPT = rf"{_HEXADECIMAL}|{_ALONE}(?:{_NUMERIC})"
_BETWEEN = (
    r"(?:[ \t\u00a0\u2000-\u200f\u2010-\u2015\u202f\u2060\ufeff()-]"
    r"|%(?:20|28|29|2D)|\\xa0|\\u(?:20[0-6]|feff)[0-9a-f]?){1,6}"
)
_DIGITS = re.compile(
    # Seconds only where nothing is in front: 55 1698765432 is a phone in Brazil.
    rf"(?P<kept>{_KEPT}|{_ALONE}(?:{_SECONDS})|wamid\.#{_HEX}{{8}})"
    rf"|(?P<plus>[+\uff0b]\(?|%2B|(?<!\d)00(?=[1-9]))?(?P<number>\d+(?:{_BETWEEN}(?!{_KEPT})\d+)*+)"
)
_BETWEEN_DIGITS = re.compile(_BETWEEN)
_ENOUGH_DIGITS = re.compile(r"\d(?:\D{0,12}\d){7}")


class _Known:
    """The secrets we were told of."""

    def __init__(self) -> None:
        self.secrets: set[str] = set()
        self.pattern: re.Pattern[str] | None = None
        self.longest = 0


_known = _Known()


def know(secrets: Iterable[str]) -> None:
    """Have these hidden wherever they show, too, but for those of fewer than `SHORTEST` characters."""
    added = {form for secret in secrets if len(secret) >= SHORTEST for form in _forms(secret)}
    if added <= _known.secrets:
        return
    _known.secrets |= added
    longest_first = sorted(_known.secrets, key=len, reverse=True)
    _known.longest = len(longest_first[0])
    _known.pattern = re.compile("|".join(map(re.escape, longest_first)))


def _forms(secret: str) -> set[str]:
    """A secret as it may stand in a text."""
    kept_in_addresses = ("", "/", "/+:@!$&'()*,;=?")  # as by form and library
    encoded = {quote(secret, safe=kept, errors="backslashreplace") for kept in kept_in_addresses}
    encoded.add(quote_plus(secret, errors="backslashreplace"))
    return {
        secret,
        *encoded,
        *(re.sub("%[0-9A-F]{2}", lambda found: found[0].lower(), form) for form in encoded),
        repr(secret)[1:-1],
        json.dumps(secret)[1:-1],
        json.dumps(secret, ensure_ascii=False)[1:-1],
    }


def masked(text: str) -> str:
    """The text fit to be logged; at most `MOST` characters of it. Masking it again changes nothing."""
    if len(text) > MOST:
        # What was cut in half at the end nobody would know for what it is.
        text = text[:MOST]
        return _masked(text)[: -max(_known.longest, 256)] + "…"
    return _masked(text)


def _masked(text: str) -> str:
    if _known.pattern:
        text = _known.pattern.sub(HIDDEN, text)
    if "://" in text:
        text = _LOGIN.sub(_without_password, text)
    text = _NAMED.sub(_without_value, text)
    text = _BEARER.sub(rf"\g<1>{HIDDEN}", text)
    text = _KEY.sub(HIDDEN, text)
    if "wamid." in text:
        text = _WAMID.sub(_short_id, text)
    if "@" in text:
        text = _EMAIL.sub(f"{HIDDEN}@", text)
    return _DIGITS.sub(_short_number, text) if _ENOUGH_DIGITS.search(text) else text


def _without_value(found: re.Match[str]) -> str:
    name, opening_in_json, _, opening, _, scheme = found.groups(default="")
    return f"{name}{opening_in_json}{opening}{scheme}{HIDDEN}"


def _without_password(found: re.Match[str]) -> str:
    return f"{found[1]}{found[2] or ''}{HIDDEN}@"


def _short_id(found: re.Match[str]) -> str:
    plain = unquote(found[1]).rstrip("=")
    return f"wamid.#{hashlib.sha256(plain.encode()).hexdigest()[:8]}"


def _short_number(found: re.Match[str]) -> str:
    if found["kept"]:
        return found[0]
    groups = _BETWEEN_DIGITS.split(found["number"])
    digits = "".join(groups)
    if found["plus"]:
        is_phone = len(digits) >= SHORTEST_INTERNATIONAL
    elif len(groups) == 1:
        is_phone = len(digits) in PHONE
    else:
        is_phone = len(digits) >= PHONE.start
    return f"{HIDDEN}{digits[-2:]}" if is_phone else found[0]
