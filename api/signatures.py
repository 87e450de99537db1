"""Whose events a webhook's signature vouches for."""

import hashlib
import hmac
from collections.abc import Set as AbstractSet

from config import Secret
from config.settings import WhatsApp


class Signatures:
    """The app secrets of [whatsapp]: two at a time while one is replaced, and those of tenants whose numbers
    belong to apps of their own."""

    def __init__(self, whatsapp: WhatsApp) -> None:
        self._common = _known(whatsapp.app_secret, whatsapp.previous_app_secret)
        own = {
            tenant: _known(sender.app_secret, sender.previous_app_secret)
            for tenant, sender in whatsapp.senders.items()
        }
        self._own = {tenant: secrets for tenant, secrets in own.items() if secrets}
        self._all = sorted(self._common.union(*self._own.values()))

    def __bool__(self) -> bool:
        return bool(self._all)

    def signers(self, body: bytes, offered: str) -> frozenset[str]:
        """The secrets with which a body was signed: none, or one. It takes as long whichever it is."""
        given = offered.encode(errors="surrogateescape")
        same = [hmac.compare_digest(given, sign(body, secret).encode()) for secret in self._all]
        return frozenset(secret for secret, found in zip(self._all, same, strict=True) if found)

    def vouch(self, signers: AbstractSet[str], tenant: str) -> bool:
        """Whether one of the signers is the tenant's: its own, if it has any, else the common one."""
        return not signers.isdisjoint(self._own.get(tenant, self._common))


def sign(body: bytes, app_secret: str) -> str:
    """The X-Hub-Signature-256 of a body."""
    return "sha256=" + hmac.new(app_secret.encode(), body, hashlib.sha256).hexdigest()


def _known(*secrets: Secret) -> frozenset[str]:
    return frozenset(secret.reveal() for secret in secrets if secret)
