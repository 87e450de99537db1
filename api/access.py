"""Who may do what over HTTP: API keys with scopes; without keys, only programs on this machine."""

import hashlib
import hmac
import ipaddress
import logging
import math
import secrets
import socket
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import NamedTuple
from urllib.parse import urlsplit

import msgspec
from aiohttp import web

from api.limits import Limit, place_of
from api.operations import Operation
from api.problems import Handler, Problem
from config.settings import Http, Key, Scope
from pipeline import RiachoError

log = logging.getLogger(__name__)

CALLER = web.RequestKey("caller", str)  # the name of the key it came with; '' where there are none
PREFIX = "riacho_"  # by which scanners of repositories find a key where none should be
CHALLENGE = 'Bearer realm="riacho"'
WRONG_KEYS_A_MINUTE = 20  # from one address
MINUTE = 60.0


class Exposed(RiachoError):
    """The service would be open to whoever reaches this machine."""


class Undeclared(Exception):
    """A route was added without saying which scope it takes, and what it is for."""


def new_key() -> tuple[str, str]:
    """A key of 32 random bytes, and its hash for the settings."""
    key = PREFIX + secrets.token_urlsafe(32)
    return key, hash_of(key.encode())


def hash_of(key: bytes) -> str:
    """What is kept of a key. A fast hash will do: nobody guesses 256 random bits, however fast each guess is; a
    slow one would only be a means to keep the service busy."""
    return hashlib.sha256(key).hexdigest()


def settings_lines(keys: Mapping[str, Key], name: str) -> tuple[str, str]:
    """The key `name` as a line of [http.keys] in a file, and all keys as a variable of the environment."""
    key = keys[name]
    hashed, scopes, every = (msgspec.json.encode(part).decode() for part in (key.hash, key.scopes, keys))
    return f"{name} = {{hash = {hashed}, scopes = {scopes}}}", f"RIACHO_HTTP_KEYS='{every}'"


def check_exposure(http: Http) -> None:
    """Raises Exposed where anybody on a network could use the service without a key."""
    if http.keys or http.open or http.tls_client_ca or _resolves_to_loopback(http.host):
        return
    raise Exposed(
        f"http.host = {http.host!r} can be reached from other machines, and there are no API keys: make one with "
        "'riacho key new NAME --scopes admin' and put the line it prints into the settings, or listen on "
        "127.0.0.1, or have TLS ask for certificates (http.tls_client_ca); RIACHO_HTTP_OPEN=true lets everybody "
        "in who can reach it"
    )


def warn_of_plain_keys(http: Http) -> None:
    """Where keys, and all that they open, go over a network for everybody on the way to read."""
    if http.keys and not http.tls_certificate and not _resolves_to_loopback(http.host):
        log.warning("keys come to %s without TLS: set http.tls_certificate, or have a proxy speak it", http.host)


class UnknownKey(Problem):
    """There was a key, or something in its place, and it is none of ours."""

    def __init__(self) -> None:
        challenge = {"WWW-Authenticate": f'{CHALLENGE}, error="invalid_token"'}
        super().__init__(401, "Unauthorized", "Authorization has no key that is known here.", challenge)


class Asking(NamedTuple):
    """What of a request says who makes it."""

    remote: str
    scheme: str
    host: str
    origin: str | None
    authorization: Sequence[str]


class Access:
    """Lets a request through to its route when its key has the route's scope. Routes are made of operations by
    `route`; `check` refuses an application with one that is not."""

    def __init__(self, http: Http) -> None:
        self._keys = {name: (key.hash.encode(), frozenset(key.scopes)) for name, key in http.keys.items()}
        # A page whose name was made to resolve to us gets no connection: our certificate is not for that name.
        self._open = http.open or bool(http.tls_client_ca)
        self._hosts = {host.lower() for host in http.hosts}
        self.limited = http.requests_per_second > 0  # whether there is anything to count
        self._limit = Limit(http.requests_per_second)
        self._wrong_keys = Limit(WRONG_KEYS_A_MINUTE / MINUTE, burst=MINUTE)
        self._is_ours = lru_cache(256)(self._names_us)
        self._scopes: dict[object, Scope | None] = {}

    @property
    def by_keys(self) -> bool:
        """Whether it takes a key to come in."""
        return bool(self._keys)

    def route(self, operation: Operation) -> web.RouteDef:
        """An operation's route, which lets in who has its scope, or admin."""
        self._scopes[operation.handler] = operation.scope
        return operation.route

    def check(self, app: web.Application) -> None:
        """Raises Undeclared."""
        for route in app.router.routes():
            if route.handler not in self._scopes:
                raise Undeclared(f"{route.method} {route.resource} was added without its Operation")

    @web.middleware
    async def guard(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Middleware. Raises Problem 401, 403, 429."""
        match = request.match_info
        if match.http_exception is None and (scope := self._scopes[match.handler]) is not None:
            caller = self._admit_counted(_asking(request), scope)
            request[CALLER] = caller if self._keys else ""
            self.count(caller)
        return await handler(request)

    def _admit_counted(self, asking: Asking, scope: Scope) -> str:
        """As `admit`; too many wrong keys from an address are answered with 429. A right key is taken from there,
        too, or anybody behind the same router could lock the others out."""
        try:
            return self.admit(asking, scope)
        except UnknownKey:
            _count(
                self._wrong_keys, place_of(asking.remote), "Too many keys that are not known here came from there"
            )
            raise

    def count(self, caller: str) -> None:
        """One request more of this caller. Raises Problem 429."""
        _count(self._limit, caller, "That is over the limit")

    def admit(self, asking: Asking, scope: Scope) -> str:
        """Who it is: the name of a key, or a place (see `place_of`). Raises Problem 401, 403."""
        if self._keys:
            return self._admit_key(asking.authorization, scope)
        self._admit_neighbour(asking)
        return place_of(asking.remote)

    def _admit_key(self, offered: Sequence[str], scope: Scope) -> str:
        name = self._key_of(offered)
        if not self._keys[name][1] & {scope, "admin"}:
            challenge = f'{CHALLENGE}, error="insufficient_scope", scope="{scope}"'
            detail = f"This takes a key with the scope {scope}."
            raise Problem(403, "Forbidden", detail, {"WWW-Authenticate": challenge})
        return name

    def _key_of(self, offered: Sequence[str]) -> str:
        if not offered:
            detail = "This takes an API key, as in the header 'Authorization: Bearer KEY'."
            raise Problem(401, "Unauthorized", detail, {"WWW-Authenticate": CHALLENGE})
        found = self._known(offered[0]) if len(offered) == 1 else None
        if found is None:
            raise UnknownKey
        return found

    def _known(self, authorization: str) -> str | None:
        scheme, _, key = authorization.partition(" ")
        digest = hash_of(key.strip(" ").encode(errors="surrogateescape")).encode()
        found = None
        for name, (known, _) in self._keys.items():  # all of them: how long it takes tells nothing of which
            if hmac.compare_digest(known, digest):
                found = name
        return found if scheme.lower() == "bearer" else None

    def _admit_neighbour(self, asking: Asking) -> None:
        """A program on this machine, and not a page in its browser: one from elsewhere says so in Origin, and one
        whose name was made to resolve to this machine (DNS rebinding) in Host."""
        if not self._open and not self._is_ours(asking.host):
            detail = "Host is neither this machine nor in http.hosts, and there are no API keys."
            raise Problem(403, "Forbidden", detail)
        origin = asking.origin
        if origin is not None and origin.lower() != f"{asking.scheme}://{asking.host}".lower():
            raise Problem(403, "Forbidden", "Without API keys, pages of other origins are not answered.")

    def _names_us(self, host: str) -> bool:
        try:
            name = urlsplit(f"//{host}").hostname or ""
        except ValueError:
            return False
        return name in self._hosts or name == "localhost" or _is_loopback(name)


def _count(limit: Limit, caller: str, over: str) -> None:
    if wait := limit.wait(caller):
        after = math.ceil(wait)
        raise Problem(429, "Too many requests", f"{over}; try again in {after} s.", {"Retry-After": str(after)})


def _asking(request: web.Request) -> Asking:
    headers = request.headers
    return Asking(
        request.remote or "",
        request.scheme,
        headers.get("Host", ""),
        headers.get("Origin"),
        headers.getall("Authorization", []),
    )


def _resolves_to_loopback(host: str) -> bool:
    if not host:  # every address there is
        return False
    try:
        found = {str(place[0]) for *_, place in socket.getaddrinfo(host, None)}
    except (OSError, UnicodeError):
        return False
    return bool(found) and all(_is_loopback(address) for address in found)


def _is_loopback(address: str) -> bool:
    try:
        return ipaddress.ip_address(address).is_loopback
    except ValueError:
        return False
