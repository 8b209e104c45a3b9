"""Which network addresses a dataset may be fetched from, decided when the socket is made.

A check of the host name before the request would not hold: the name may resolve to another address a moment
later, and a redirect names another host. The socket is the one place that every attempt passes.
"""

from __future__ import annotations

import ipaddress
import socket
from typing import Any

_GLOBAL_UNICAST = ipaddress.ip_network("2000::/3")
_NAT64 = ipaddress.ip_network("64:ff9b::/96")
_NOBODYS = tuple(
    ipaddress.ip_network(network)
    for network in (
        "192.0.0.0/24",  # for protocols; the metadata service of one cloud is in it, and older Pythons call it global
        "192.88.99.0/24",  # relays of 6to4, given up
        "168.63.129.16/32",  # what a virtual machine of Azure asks about itself
        "3fff::/20",  # for documentation, since 2024
    )
)


class AddressRefused(OSError):
    """A connection to an address that is not public."""


def is_public(address: str) -> bool:
    """Whether an IPv4 or IPv6 address (scope allowed) is on the public internet, as is any IPv4 address within it."""
    ip = ipaddress.ip_address(address.partition("%")[0])
    if any(ip in network for network in _NOBODYS):
        return False
    if isinstance(ip, ipaddress.IPv4Address):
        return ip.is_global and not ip.is_multicast
    if ip.ipv4_mapped is not None:
        return is_public(str(ip.ipv4_mapped))
    if ip in _NAT64:
        return is_public(str(ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF)))
    # Beyond global unicast there are forms that Python calls global and a router may lead inside, ::127.0.0.1 say.
    within = [ip.sixtofour, *(ip.teredo or ())]
    return ip in _GLOBAL_UNICAST and ip.is_global and all(is_public(str(v4)) for v4 in within if v4 is not None)


class PublicSockets:
    """An aiohttp socket factory that makes sockets for public addresses only.

    Attributes:
        refused: Addresses that were asked for and refused.
    """

    def __init__(self) -> None:
        self.refused: list[str] = []

    def __call__(self, address_info: tuple[Any, ...]) -> socket.socket:
        """Make the socket; AddressRefused if ``address_info`` (as of getaddrinfo) is not public."""
        family, kind, protocol, _, address = address_info
        if not is_public(address[0]):
            self.refused.append(address[0])
            raise AddressRefused(f"{address[0]} is not a public address")
        return socket.socket(family=family, type=kind, proto=protocol)
