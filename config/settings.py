"""Settings: default.toml, then a file, then the environment, then flags; frozen once they are read."""

import difflib
import functools
import os
import tomllib
import typing
from collections.abc import Iterable, Mapping
from contextlib import suppress
from importlib.resources import files
from ipaddress import ip_network
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar
from urllib.parse import quote, urlsplit

import msgspec

PREFIX = "RIACHO_"
# Read elsewhere, or by the test suite.
OTHER_VARIABLES = {"RIACHO_CONFIG", "RIACHO_TEST_SERVER", "RIACHO_TEST_FULL", "RIACHO_ARTEFACTS"}

Tree = dict[str, dict[str, Any]]
T = TypeVar("T")

get_type_hints = functools.cache(typing.get_type_hints)  # most of the time that reading settings took

Count = Annotated[int, msgspec.Meta(ge=1)]
Seconds = Annotated[float, msgspec.Meta(gt=0, le=31_536_000)]  # a year: infinity is no time
Wait = Annotated[float, msgspec.Meta(ge=0, le=31_536_000)]
Share = Annotated[float, msgspec.Meta(gt=0, le=1)]
Days = Annotated[float, msgspec.Meta(gt=0, le=36_500)]
Grace = Annotated[float, msgspec.Meta(ge=0, le=604_800)]  # slots are told apart for a week
Misfire = Literal["skip", "once", "all"]
Rate = Annotated[float, msgspec.Meta(gt=0, le=1_000_000)]  # a second
Port = Annotated[int, msgspec.Meta(ge=0, le=65535)]
Scope = Literal["read", "enqueue", "admin"]


class SettingsError(Exception):
    """A setting that cannot be used; the message names it, its value and the remedy."""


class Secret:
    """A string that does not show itself in logs, errors or `repr`."""

    def __init__(self, value: str) -> None:
        self._value = value

    def reveal(self) -> str:
        return self._value

    def __bool__(self) -> bool:
        return bool(self._value)

    def __repr__(self) -> str:
        return "Secret('***')" if self._value else "Secret('')"


class _Section(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Fields are described in default.toml."""


class Redis(_Section, frozen=True):
    url: Secret
    namespace: str
    partitions: Count
    memory_share: Share


class Data(_Section, frozen=True):
    folder: Path


class Key(_Section, frozen=True):
    """What is kept of an API key."""

    hash: Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{64}$")]  # SHA-256, in hex
    scopes: Annotated[list[Scope], msgspec.Meta(min_length=1)]


class Http(_Section, frozen=True):
    host: str
    port: Port
    payload_limit: Count
    keys: dict[str, Key]
    open: bool
    hosts: list[str]
    requests_per_second: Annotated[float, msgspec.Meta(ge=0, le=1_000_000)]
    read_timeout: Seconds
    connections: Count
    listeners: Count
    trace_url: str
    tls_certificate: str
    tls_key: str
    tls_client_ca: str


class Worker(_Section, frozen=True):
    lease: Seconds
    grace: Seconds


class Sender(_Section, frozen=True):
    """What a tenant has of its own; the rest is as [whatsapp] says."""

    phone_number_id: str = ""
    app_secret: Secret = Secret("")
    previous_app_secret: Secret = Secret("")
    access_token: Secret = Secret("")
    graph_url: str = ""
    version: str = ""
    template: str = ""
    template_language: str = ""


class WhatsApp(_Section, frozen=True):
    app_secret: Secret
    previous_app_secret: Secret
    verify_token: Secret
    access_token: Secret
    graph_url: str
    version: str
    phone_number_id: str
    template: str
    template_language: str
    senders: dict[str, Sender]
    per_second: Rate
    pair_every: Seconds
    pair_burst: Count
    timeout: Seconds


class Audio(_Section, frozen=True):
    model: str
    device: Literal["auto", "cpu", "cuda"]
    compute_type: str
    language: str
    beam_size: Count
    vad: bool
    word_timestamps: bool
    vocabulary: dict[str, str]
    threads: Annotated[int, msgspec.Meta(ge=0)]
    batch_size: Count
    batch_wait: Wait
    concurrency: Count
    timeout: Seconds
    timeout_factor: Wait
    keep_transcripts: Wait
    cache: Path
    roots: list[Path]
    networks: list[str]
    byte_limit: Count
    duration_limit: Seconds


class S3(_Section, frozen=True):
    endpoint: str
    buckets: list[str]


class Conversation(_Section, frozen=True):
    concurrency: Count
    context: Count
    patience: Wait


class Responder(_Section, frozen=True):
    kind: Literal["rules", "ollama", "openai"]
    url: str
    model: str
    api_key: Secret
    timeout: Seconds
    attempts: Count
    prompt: str
    prompts: dict[str, str]


class Speech(_Section, frozen=True):
    engine: Literal["off", "espeak-ng", "piper"]
    voice: str
    cache: str


class Notification(_Section, frozen=True):
    channel: Literal["auto", "whatsapp", "outbox"]
    concurrency: Count
    region: str
    vendors: dict[str, str]
    unknown: Literal["resend", "hold"]
    unknown_wait: Wait
    probe: Seconds


class Email(_Section, frozen=True):
    host: str
    port: Port
    security: Literal["starttls", "tls", "none"]
    user: str
    password: Secret
    sender: str
    timeout: Seconds


class Fallback(_Section, frozen=True):
    email: str
    emails: dict[str, str]
    url: Secret
    secret: Secret


class Alerts(_Section, frozen=True):
    to: list[Secret]  # an address of a webhook is as good as a password
    every: Seconds


class Tenants(_Section, frozen=True):
    rounds: Annotated[int, msgspec.Meta(ge=0)]


class Retention(_Section, frozen=True):
    """What a tenant has of its own."""

    conversations: Days | None = None
    logs: Days | None = None


class Cleanup(_Section, frozen=True):
    tts: Days
    conversations: Days
    logs: Days
    retention: dict[str, Retention]
    held: list[str]


class OwnSchedule(_Section, frozen=True):
    """Empty is as [schedules] says."""

    cron: str
    stage: str
    payload: dict[str, Any] = {}
    tenant: str = ""
    zone: str = ""
    misfire: Misfire | None = None
    grace: Grace | None = None


class Schedules(_Section, frozen=True):
    tts_cache: str
    conversations: str
    logs: str
    stats: str
    health: str
    zone: str
    misfire: Misfire
    grace: Grace
    own: dict[str, OwnSchedule]


class Health(_Section, frozen=True):
    latency: Seconds
    memory: Share
    waiting: Seconds
    active: Seconds


class Shop(_Section, frozen=True):
    """A tenant's shop on WordPress, with WooCommerce."""

    url: str
    key: Secret = Secret("")
    secret: Secret = Secret("")
    user: str = ""
    password: Secret = Secret("")
    webhook_secret: Secret = Secret("")


class Sync(_Section, frozen=True):
    shops: dict[str, Shop]
    every: str
    full_every: Seconds
    timeout: Seconds
    orders: Days
    proof_status: Annotated[str, msgspec.Meta(pattern=r"^[a-z0-9_-]{0,40}$")]


class Store(_Section, frozen=True):
    url: Secret


class Metrics(_Section, frozen=True):
    host: str
    port: Port


class Log(_Section, frozen=True):
    level: Literal["debug", "info", "warning", "error"]
    format: Literal["auto", "json", "text"]


class Settings(_Section, frozen=True):
    redis: Redis
    data: Data
    http: Http
    worker: Worker
    whatsapp: WhatsApp
    audio: Audio
    s3: S3
    conversation: Conversation
    responder: Responder
    speech: Speech
    notification: Notification
    email: Email
    fallback: Fallback
    alerts: Alerts
    tenants: Tenants
    cleanup: Cleanup
    schedules: Schedules
    health: Health
    sync: Sync
    store: Store
    metrics: Metrics
    log: Log


def load(flags: Tree | None = None, *, environ: Mapping[str, str] | None = None) -> Settings:
    """The settings in force. Raises SettingsError."""
    environ = os.environ if environ is None else environ
    tree = _known("default.toml", tomllib.loads((files("config") / "default.toml").read_text("utf-8")))
    layers = [
        _file(environ.get("RIACHO_CONFIG")),
        _redis_variables(environ),
        _variables(environ),
        _known("flags", flags or {}),
    ]
    for layer in layers:
        for section, values in layer.items():
            tree[section] |= values
    return _freeze(tree)


def replaced(settings: Settings, **sections: dict[str, Any]) -> Settings:
    """The same settings but for some values, given by section."""
    changed = {
        name: msgspec.structs.replace(getattr(settings, name), **values) for name, values in sections.items()
    }
    return msgspec.structs.replace(settings, **changed)


def child_environment(settings: Settings, **more: str) -> dict[str, str]:
    """The environment for a process of ours that is to have these settings."""
    variables = {}
    for section in _sections():
        for key, value in msgspec.structs.asdict(getattr(settings, section)).items():
            variables[_variable(section, key)] = _as_text(value)
    own = {name: value for name, value in os.environ.items() if not name.startswith(("REDIS_", "RIACHO_CONFIG"))}
    return own | variables | more


def _file(path: str | None) -> Tree:
    if not path:
        return {}
    try:
        return _known(path, tomllib.loads(Path(path).read_text("utf-8")))
    except (OSError, ValueError) as error:  # ValueError: no TOML, or not in UTF-8
        raise SettingsError(f"configuration file {path}: {error}") from None


def _known(source: str, tree: dict[str, Any]) -> Tree:
    """Check names early, where the source of a misspelt one is still known."""
    for section, values in tree.items():
        if section not in _sections():
            raise SettingsError(f"{source}: no section [{section}]{_did_you_mean(section, _sections())}")
        if not isinstance(values, dict):
            raise SettingsError(f"{source}: [{section}] is a section, not a setting of its own")
        for key in values:
            if key not in _keys(section):
                raise SettingsError(f"{source}: no setting {section}.{key}{_did_you_mean(key, _keys(section))}")
    return tree


def _variables(environ: Mapping[str, str]) -> Tree:
    known = {_variable(section, key): (section, key) for section in _sections() for key in _keys(section)}
    tree: Tree = {}
    for name, value in environ.items():
        if name in known:
            section, key = known[name]
            tree.setdefault(section, {})[key] = _parsed(section, key, value)
        elif name.startswith(PREFIX) and name not in OTHER_VARIABLES:
            raise SettingsError(f"environment variable {name} is no setting{_did_you_mean(name, known)}")
    return tree


def _redis_variables(environ: Mapping[str, str]) -> Tree:
    """REDIS_URL, or REDIS_HOST, REDIS_PORT, REDIS_PASSWORD and REDIS_DB put together."""
    if url := environ.get("REDIS_URL"):
        return {"redis": {"url": url}}
    if not any(environ.get(f"REDIS_{part}") for part in ("HOST", "PORT", "PASSWORD", "DB")):
        return {}
    password = environ.get("REDIS_PASSWORD", "")
    host = environ.get("REDIS_HOST") or "127.0.0.1"
    login = f":{quote(password, safe='')}@" if password else ""
    place = f"[{host}]" if ":" in host else host  # IPv6
    port, db = _number(environ, "REDIS_PORT", "6379"), _number(environ, "REDIS_DB", "0")
    return {"redis": {"url": f"redis://{login}{place}:{port}/{db}"}}


def _number(environ: Mapping[str, str], name: str, default: str) -> str:
    value = environ.get(name) or default
    if not value.isdecimal():
        raise SettingsError(f"environment variable {name} = {value!r}: expected a number")
    return value


def _freeze(tree: Tree) -> Settings:
    sections: dict[str, Any] = {}
    for section, kind in get_type_hints(Settings).items():
        try:
            sections[section] = msgspec.convert(tree[section], kind, strict=False, dec_hook=_from_plain)
        except msgspec.ValidationError as error:
            message, _, key = str(error).rpartition(" - at `$.")
            key = key.rstrip("`").partition("[")[0].partition(".")[0]
            shown = "" if _is_secret(kind, key) else f" = {tree[section][key]!r}"
            raise SettingsError(f"setting {section}.{key}{shown}: {message}") from None
    settings = Settings(**sections)
    _check_url("redis.url", settings.redis.url, ("redis", "rediss", "unix"))
    _check_url("http.trace_url", Secret(settings.http.trace_url), ("http", "https"))
    _check_url("store.url", settings.store.url, ("sqlite+aiosqlite", "postgresql+asyncpg"))
    _check_url("s3.endpoint", Secret(settings.s3.endpoint), ("http", "https"))
    for address in (settings.whatsapp.graph_url, *(own.graph_url for own in settings.whatsapp.senders.values())):
        _check_url("whatsapp.graph_url", Secret(address), ("http", "https"))
    _check_url("fallback.url", settings.fallback.url, ("http", "https"))
    _check_networks(settings.audio.networks)
    _check_keys(settings.http.keys)
    return settings


def _is_secret(section: type, key: str) -> bool:
    # Somebody may have put the key itself in the place of its hash.
    return key in ("senders", "keys", "shops") or get_type_hints(section)[key] in (Secret, list[Secret])


def _check_url(name: str, url: Secret, schemes: tuple[str, ...]) -> None:
    """Early, and without showing the address: there may be a password in it."""
    if not url:
        return
    try:
        parts = urlsplit(url.reveal())
        usable = parts.scheme in schemes and (parts.port is None or parts.port)
    except ValueError:
        usable = False
    if not usable:
        wanted = " or ".join(f"{scheme}://" for scheme in schemes)
        raise SettingsError(
            f"setting {name} is no address that can be used: it has to begin with {wanted}, and a password's "
            "special characters have to be percent-encoded ('#' as %23, '/' as %2F, '@' as %40)"
        )


def _check_networks(networks: Iterable[str]) -> None:
    for network in networks:
        try:
            ip_network(network)
        except ValueError as error:
            raise SettingsError(f"setting audio.networks = {network!r}: {error}") from None


def _check_keys(keys: Mapping[str, Key]) -> None:
    """Of two names for one key only one would ever be seen, with its scopes alone."""
    known: dict[str, str] = {}
    for name, key in keys.items():
        if other := known.get(key.hash):
            raise SettingsError(
                f"setting http.keys: {other!r} and {name!r} are one key (their hashes are equal); take one out, "
                "or make another with 'riacho key new NAME'"
            )
        known[key.hash] = name


def _from_plain(kind: type[T], value: Any) -> T:
    if kind is Secret and isinstance(value, str):
        return kind(value)  # type: ignore[call-arg]
    if kind is Path and isinstance(value, str):
        return kind(_expanded(Path(value)))  # type: ignore[call-arg]
    raise ValueError(f"expected text, got {type(value).__name__}")


def _expanded(path: Path) -> Path:
    try:
        return path.expanduser()
    except RuntimeError as error:  # no such user
        raise ValueError(str(error)) from None


def _sections() -> tuple[str, ...]:
    return Settings.__struct_fields__


def _keys(section: str) -> tuple[str, ...]:
    fields: tuple[str, ...] = get_type_hints(Settings)[section].__struct_fields__
    return fields


def _variable(section: str, key: str) -> str:
    return f"{PREFIX}{section}_{key}".upper()


def _parsed(section: str, key: str, value: str) -> Any:
    """What a variable stands for: lists and tables may be written in JSON, as child_environment does."""
    kind = getattr(get_type_hints(get_type_hints(Settings)[section])[key], "__origin__", None)
    if kind not in (list, dict):
        return value
    with suppress(msgspec.DecodeError):  # an item of a list may have a comma in it
        return msgspec.json.decode(value, type=kind[str] if kind is list else dict[str, Any])
    return [item for item in value.split(",") if item] if kind is list else value


def _as_text(value: object) -> str:
    if isinstance(value, Secret):
        return value.reveal()
    if isinstance(value, dict):
        return msgspec.json.encode(value, enc_hook=_as_text).decode()
    return (
        msgspec.json.encode([_as_text(item) for item in value]).decode() if isinstance(value, list) else str(value)
    )


def _did_you_mean(word: str, known: Iterable[str]) -> str:
    close = difflib.get_close_matches(word, list(known), n=1)
    return f"; did you mean '{close[0]}'?" if close else f"; known: {', '.join(sorted(known))}"
