"""TLS for the HTTP service: certificates from files, read again when the files change."""

import asyncio
import logging
import os
import ssl
from datetime import UTC, datetime, timedelta
from pathlib import Path

from api.validity import validity
from config.settings import Http
from pipeline import RiachoError

log = logging.getLogger(__name__)

LOOKED_AT_EVERY = 5.0  # seconds; whoever renews a certificate does so days before the old one ends
WARNED_EVERY = timedelta(days=1)  # of a certificate that does not hold, or not for long

Stamp = list[tuple[int, int, int] | None]


class NoTls(RiachoError):
    """A certificate or a key that is configured cannot be used."""


class Certificates:
    """What the service shows to its clients, and by what it knows them: `context` is the newest, for the next
    connection."""

    def __init__(self, http: Http) -> None:
        """Raises NoTls."""
        self._http = http
        self._stamp = self._look()
        # One of its own each time, in place of loading into the one in use: what cannot be used, as with a new
        # certificate whose key is not written yet, changes nothing, and a CA taken out is trusted no more. Nor can
        # a session from before be taken up again, which would go without its certificate being looked at.
        self.context = _context(http)
        self._said = ""
        self._holds = validity(Path(http.tls_certificate))
        self._warned: datetime | None = None

    async def renew(self) -> int:
        """Read the files again, if they changed; 1 where what they have is in use now. Warns of a certificate that
        clients will refuse, or will soon."""
        changed = await self._read_again()
        self.warn(datetime.now(UTC))
        return changed

    def warn(self, now: datetime) -> None:
        """Where there is something to warn of, once a day."""
        if self._holds is None or (self._warned and now - self._warned < WARNED_EVERY):
            return
        if fault := self._holds.fault(now):
            self._warned = now
            log.warning("the certificate in http.tls_certificate = %r %s", self._http.tls_certificate, fault)

    async def _read_again(self) -> int:
        stamp = await asyncio.to_thread(self._look)
        if stamp == self._stamp:
            return 0
        try:
            self.context = await asyncio.to_thread(_context, self._http)
        except NoTls as error:  # tried again each time: that a file may be read now does not show in its stamp
            self._complain(str(error))
            return 0
        self._stamp, self._said = stamp, ""
        self._holds, self._warned = validity(Path(self._http.tls_certificate)), None
        log.info("new connections get what is in %s now", self._http.tls_certificate)
        return 1

    def _complain(self, error: str) -> None:
        """Once of each."""
        if error != self._said:
            log.error("%s; going on with the certificate from before", error)
        self._said = error

    def _look(self) -> Stamp:
        """By what the files' having changed is seen; a renewal may put other files in their place."""
        http = self._http
        return [_stamp(Path(name)) for name in (http.tls_certificate, http.tls_key, http.tls_client_ca) if name]


def certificates_of(http: Http) -> Certificates | None:
    """By the settings; None where there is to be no TLS. Raises NoTls naming what is wrong and the remedy."""
    if http.tls_certificate and http.tls_key:
        return Certificates(http)
    for name in ("tls_certificate", "tls_key", "tls_client_ca"):
        if value := getattr(http, name):
            raise NoTls(f"http.{name} = {value!r}: TLS takes both http.tls_certificate and http.tls_key; set them")
    return None


def _context(http: Http) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    for name in ("tls_certificate", "tls_key"):
        _check_readable(name, getattr(http, name))
    _load(context, http.tls_certificate, http.tls_key)
    if http.tls_client_ca:
        _trust(context, http.tls_client_ca)
    return context


def _load(context: ssl.SSLContext, certificate: str, key: str) -> None:
    def ask() -> str:
        raise NoTls(
            f"http.tls_key = {key!r} is encrypted, and nobody is there to be asked: "
            "decrypt it with 'openssl pkey -in KEY -out PLAIN', and have only this user read it"
        )

    try:
        context.load_cert_chain(certificate, key, password=ask)
    except ssl.SSLError as error:
        raise NoTls(_why(error, certificate, key)) from None


def _why(error: ssl.SSLError, certificate: str, key: str) -> str:
    if error.reason == "KEY_VALUES_MISMATCH":
        return (
            f"http.tls_key = {key!r} does not fit http.tls_certificate = {certificate!r}: name the key that was "
            "made for it; in a file with several certificates the service's own has to be the first"
        )
    if not _has_certificates(certificate):
        return f"http.tls_certificate = {certificate!r} has no certificate in PEM: -----BEGIN CERTIFICATE-----"
    if error.reason and error.reason.endswith(("KEY_TOO_SMALL", "MD_TOO_WEAK")):
        return f"http.tls_certificate = {certificate!r} is too weak ({error.reason}): have another made"
    return f"http.tls_key = {key!r} has no private key in PEM that can be used: -----BEGIN PRIVATE KEY-----"


def _trust(context: ssl.SSLContext, authority: str) -> None:
    """Answer only clients whose certificate was signed there."""
    _check_readable("tls_client_ca", authority)
    if not _has_certificates(authority):
        raise NoTls(f"http.tls_client_ca = {authority!r} has no certificate in PEM: -----BEGIN CERTIFICATE-----")
    context.load_verify_locations(authority)
    context.verify_mode = ssl.CERT_REQUIRED


def _has_certificates(path: str) -> bool:
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_verify_locations(path)
    except ssl.SSLError:
        return False
    return True


def _check_readable(name: str, path: str) -> None:
    try:
        with Path(path).open("rb") as file:
            file.read(1)
    except OSError as error:
        reason = os.strerror(error.errno or 0)
        raise NoTls(f"http.{name} = {path!r} cannot be read: {reason}; name a file in PEM there") from None


def _stamp(path: Path) -> tuple[int, int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino
