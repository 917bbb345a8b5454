"""Which addresses outgoing requests may connect to."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address

Address = IPv4Address | IPv6Address

_NEVER: tuple[IPv4Network | IPv6Network, ...] = (
    IPv4Network("0.0.0.0/8"),
    IPv4Network("169.254.0.0/16"),  # link-local, and most clouds' metadata
    IPv4Network("168.63.129.16/32"),  # Azure's
    IPv4Network("100.100.100.200/32"),  # Alibaba's
    IPv4Network("192.0.0.0/24"),  # Oracle's among them
    IPv4Network("224.0.0.0/4"),
    IPv4Network("240.0.0.0/4"),
    IPv6Network("::/128"),
    IPv6Network("fd00:ec2::/32"),  # Amazon's
    IPv6Network("fe80::/10"),
    IPv6Network("ff00::/8"),
)
"""No operator's list opens these: metadata of clouds, multicast, addresses of nobody."""

_NOT_PUBLIC_4 = tuple(
    map(
        IPv4Network,
        (
            "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "172.16.0.0/12", "192.0.2.0/24",
            "192.88.99.0/24", "192.168.0.0/16", "198.18.0.0/15", "198.51.100.0/24",
            "203.0.113.0/24",
        ),
    )
)  # fmt: skip

_GLOBAL_UNICAST = IPv6Network("2000::/3")
"""All else of IPv6 is unassigned, local, or another address in disguise: ``::/96``, mapped
``::ffff:0:0/96`` and translated ``64:ff9b::/96`` IPv4 among it."""
_NOT_PUBLIC_6 = tuple(
    map(
        IPv6Network,
        (
            "2001::/23",  # Teredo, ORCHID and other protocols' own
            "2001:db8::/32",
            "2002::/16",  # 6to4: an IPv4 address in disguise
            "3fff::/20",
        ),
    )
)


def is_public(address: Address) -> bool:
    """Whether the address is one of the public internet, and only that.

    Two opinions have to agree: the tables of the standard library, which change with its version,
    and those above.
    """
    if not address.is_global or address.is_multicast or address.is_reserved or _is_never(address):
        return False
    if isinstance(address, IPv4Address):
        return not any(address in network for network in _NOT_PUBLIC_4)
    if address not in _GLOBAL_UNICAST:
        return False
    return not any(address in network for network in _NOT_PUBLIC_6)


def may_connect(address: str, *, allowed: bool) -> bool:
    """Whether a request may go to ``address``, which is what a resolver answered.

    ``allowed`` says that an operator named the host: it may be a private one then, though never
    one that no service of theirs can have.
    """
    try:
        parsed = ip_address(address)
    except ValueError:  # a zone, among others: fe80::1%eth0
        return False
    if not allowed:
        return is_public(parsed)
    return not _is_never(parsed) and not _is_disguised(parsed)


def _is_never(address: Address) -> bool:
    return any(address.version == network.version and address in network for network in _NEVER)


def _is_disguised(address: Address) -> bool:
    """An IPv4 address written as IPv6: nobody needs it, and it slips past rules about IPv4."""
    if isinstance(address, IPv4Address) or address == IPv6Address("::1"):
        return False
    wrapped = ("::/96", "::ffff:0:0/96", "64:ff9b::/96", "64:ff9b:1::/48", "2002::/16", "2001::/32")
    return any(address in IPv6Network(network) for network in wrapped)
