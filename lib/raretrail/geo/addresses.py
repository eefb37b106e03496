"""Addresses and blocks of them as text that compares as they do.

The key of an address has one length for each version: '4' and 8 hexadecimal digits, or '6' and 32.
So a block of addresses is a range of text.
"""

from __future__ import annotations

import ipaddress

Address = ipaddress.IPv4Address | ipaddress.IPv6Address


def key_of(address: Address) -> str:
    """The text an address is compared by; IPv4 mapped into IPv6 counts as IPv4."""
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        address = address.ipv4_mapped
    return f"{address.version}{int(address):0{address.max_prefixlen // 4}x}"


def range_of(block: str) -> tuple[str, str]:
    """The keys of the first and last address of a CIDR block or single address; ValueError for none."""
    network = ipaddress.ip_network(block.strip(), strict=False)
    return key_of(network[0]), key_of(network[-1])
