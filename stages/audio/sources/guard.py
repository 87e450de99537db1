"""Which addresses http(s) sources may lead to: public ones, and networks the operator names.

The check is made where a socket is made for an address, after all names, redirects and odd spellings are resolved:
what was checked is what is connected to, so a name that answers otherwise the second time gains nothing.
"""

import socket
from collections.abc import Callable, Sequence
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address, ip_network

from aiohttp import AddrInfoType

Address = IPv4Address | IPv6Address

GLOBAL_UNICAST = IPv6Network("2000::/3")  # all that IANA has given out to be routed
NAT64 = IPv6Network("64:ff9b::/96")  # RFC 6052: the last 32 bits are an IPv4 address
# Special purposes that some of Python's versions take for global: IETF's (Teredo among it), 6to4 relays, examples.
SPECIAL = [ip_network(each) for each in ("192.0.0.0/24", "192.88.99.0/24", "2001::/23", "3fff::/20")]


class Forbidden(OSError):
    """An address that is neither public nor in a network that is allowed. An OSError, as the connector expects."""


def guarded_socket(networks: Sequence[str]) -> Callable[[AddrInfoType], socket.socket]:
    """A socket factory that refuses addresses outside the public internet and `networks` with Forbidden."""
    allowed = [ip_network(network) for network in networks]

    def guarded(info: AddrInfoType) -> socket.socket:
        family, kind, protocol, _, address = info
        meant = _meant(str(address[0]))
        if not _public(meant) and not any(meant in network for network in allowed):
            raise Forbidden("not a public address")
        return socket.socket(family, kind, protocol)

    return guarded


def _meant(spelling: str) -> Address:
    """The address, or the one it embeds, which packets to it may be handed on to."""
    try:
        address = ip_address(spelling)
    except ValueError:  # nothing a resolver says, so nothing to connect to
        raise Forbidden("not a numeric address") from None
    if isinstance(address, IPv4Address):
        return address
    if address in NAT64:
        return IPv4Address(int(address) & 0xFFFF_FFFF)
    return address.ipv4_mapped or address.sixtofour or address


def _public(address: Address) -> bool:
    if address.is_multicast or address.is_reserved or any(address in network for network in SPECIAL):
        return False
    return address.is_global and (address.version == 4 or address in GLOBAL_UNICAST)
