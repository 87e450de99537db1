"""Which texts are secret by the settings, so that the log can leave them out."""

import os
import re
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

import msgspec

from config.settings import Secret, Settings

# Others' variables whose values are secret; the headers are `name=value`, separated by commas.
VARIABLES = ("AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN")
HEADERS = tuple(f"OTEL_EXPORTER_OTLP_{signal}HEADERS" for signal in ("", "TRACES_", "METRICS_", "LOGS_"))
WEB = ("http", "https")
SERVERS = ("redis", "rediss", "unix", "sqlite+aiosqlite", "postgresql+asyncpg")
LONG_PATH = 16  # characters: shorter ones are words, as in '/alerts'


def secrets_of(settings: Settings, environ: Mapping[str, str] | None = None) -> set[str]:
    """Every secret of the settings and of the variables that libraries read, as plain text. Of a server's address
    that is its password; of a webhook's all, as whoever knows it can post there."""
    environ = os.environ if environ is None else environ
    found = {part for secret in _secrets(settings) for part in _parts(secret.reveal())}
    found.update(environ.get(name, "") for name in VARIABLES)
    for name in HEADERS:
        # Where it is written as in HTTP, too: that is wrong, and the SDK says so with all of it.
        pairs = (re.split("[=:]", pair, maxsplit=1) for pair in environ.get(name, "").split(","))
        found.update(form.strip() for _, *values in pairs for value in values for form in (value, unquote(value)))
    return found - {""}


def _secrets(value: Any) -> Iterator[Secret]:
    """All in a value, however deep."""
    match value:
        case Secret():
            yield value
        case msgspec.Struct():
            yield from _secrets(msgspec.structs.astuple(value))
        case dict():
            yield from _secrets(tuple(value.values()))
        case list() | tuple():
            for item in value:
                yield from _secrets(item)


def _parts(secret: str) -> Iterator[str]:
    """What of a secret is to be hidden."""
    address = _address(secret)
    if address is None:
        yield secret
        return
    yield from (address.password or "", unquote(address.password or ""))
    yield from (value for _, value in parse_qsl(address.query))
    if address.scheme in WEB:
        path = f"{address.path}?{address.query}" if address.query else address.path
        yield from (secret, *(part for part in (path, address.path) if len(part) >= LONG_PATH))


def _address(secret: str) -> SplitResult | None:
    if secret.partition("://")[0] not in (*WEB, *SERVERS):
        return None
    try:
        return urlsplit(secret)
    except ValueError:
        return None
