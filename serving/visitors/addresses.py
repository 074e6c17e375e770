"""Where somebody comes from."""

from __future__ import annotations

import ipaddress


def network_of(address: str) -> str:
    """What stands for one household: an IPv4 address, or the /64 of an IPv6 one, of which each has many."""
    try:
        known = ipaddress.ip_address(address)
    except ValueError:
        return address
    if known.version == 4:
        return str(known)
    mapped = known.ipv4_mapped
    return str(mapped or ipaddress.ip_network((known, 64), strict=False))
