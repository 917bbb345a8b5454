"""What a tenant's URL names: a host, a port and a path, or nothing that is ever asked.

The reading is narrower than any standard. Two parsers that disagree about a URL are how requests
reach places that one of them would have refused, so whatever could be read in two ways is refused:
user names, backslashes, trailing dots, numbers that are addresses, letters that only look like
others.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from ipaddress import AddressValueError, IPv4Address, IPv6Address
from typing import Literal

from shared.egress.addresses import is_public
from shared.errors import UrlNotAllowed

MAX_CHARACTERS = 2_048
HTTPS_PORT, HTTP_PORT = 443, 80
LEAST_HIGH_PORT = 1_024

_URL = re.compile(
    r"(?P<scheme>https?)://"
    r"(?P<host>\[[0-9A-Fa-f:.]{2,45}\]|[A-Za-z0-9.-]{1,253})"
    r"(?::(?P<port>[1-9][0-9]{0,4}))?"
    r"(?P<path>/[A-Za-z0-9._~!$&'()*+,;=:@%/-]*)?"
    r"(?P<query>\?[A-Za-z0-9._~!$&'()*+,;=:@%/?-]*)?",
    re.ASCII | re.IGNORECASE,
)
_LABEL = re.compile(r"(?!-)[a-z0-9-]{1,63}(?<!-)", re.ASCII)
_NUMBER = re.compile(r"[0-9]+|0x[0-9a-f]*", re.ASCII)
_LOCAL_NAMES = frozenset(
    {
        "localhost", "localdomain", "local", "internal", "intranet", "private", "corp", "home",
        "lan", "arpa", "test", "invalid", "example", "onion", "alt",
    }
)  # fmt: skip
"""Last labels that no public name has."""


@dataclass(frozen=True, slots=True)
class Target:
    """Where a request goes."""

    scheme: Literal["https", "http"]
    host: str
    """Lower case; an IPv6 address without its brackets."""
    port: int
    path: str
    """With its query; begins with a slash."""
    allowed: bool
    """An operator named the host: plain HTTP and private addresses are in order."""

    @property
    def authority(self) -> str:
        """The ``Host`` header."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        default = HTTPS_PORT if self.scheme == "https" else HTTP_PORT
        return host if self.port == default else f"{host}:{self.port}"

    @property
    def origin(self) -> str:
        """The same for all URLs of one server."""
        return f"{self.scheme}://{self.authority}"


AllowedHosts = frozenset[tuple[str, int]]
"""(host, port): what operators have named."""


def parse_allowed(text: str) -> AllowedHosts:
    """Hosts that an operator named, comma-separated: ``crm.internal`` stands for its ports 80 and
    443, ``10.0.0.5:8080`` and ``[fd12::5]:8080`` for that one. Raises ValueError."""
    found: set[tuple[str, int]] = set()
    for item in filter(None, (part.strip() for part in text.split(","))):
        match = _URL.fullmatch(f"http://{item}")
        if match is None or match["path"] or match["query"]:
            raise ValueError(f"{item!r} is no host, and no host with a port")
        host = match["host"].strip("[]").lower()
        ports = (int(match["port"]),) if match["port"] else (HTTP_PORT, HTTPS_PORT)
        found |= {(host, port) for port in ports}
    return frozenset(found)


def parse_target(url: str, allowed: AllowedHosts, *, param: str = "url") -> Target:
    """Reads a URL. Raises UrlNotAllowed, naming ``param``, for one that is never asked; a name is
    not resolved here, so what it stands for is still to be judged."""
    match = _URL.fullmatch(url) if len(url) <= MAX_CHARACTERS else None
    if match is None:
        raise UrlNotAllowed(
            "the URL must be https://, a host name, perhaps a port and a path, in plain ASCII",
            param=param,
        )
    scheme: Literal["https", "http"] = "https" if match["scheme"].lower() == "https" else "http"
    host = match["host"].strip("[]").lower()
    port = int(match["port"] or (HTTPS_PORT if scheme == "https" else HTTP_PORT))
    path = (match["path"] or "/") + (match["query"] or "")
    if (host, port) in allowed:
        return Target(scheme, host, port, path, allowed=True)
    _judge(scheme, match["host"].lower(), port, param)
    return Target(scheme, host, port, path, allowed=False)


def _judge(scheme: str, host: str, port: int, param: str) -> None:
    """Raises UrlNotAllowed for what no operator has named and nobody may ask."""
    if scheme != "https":
        raise UrlNotAllowed("the URL must be https://", param=param)
    if port != HTTPS_PORT and not LEAST_HIGH_PORT <= port <= 65_535:  # noqa: PLR2004
        raise UrlNotAllowed("the port must be 443, or one from 1024 up", param=param)
    literal = _literal(host)
    if literal is not None:
        if not is_public(literal):
            raise UrlNotAllowed("the URL's address is not a public one", param=param)
        return
    labels = host.split(".")
    if len(labels) == 1 or labels[-1] in _LOCAL_NAMES or _NUMBER.fullmatch(labels[-1]):
        raise UrlNotAllowed("the URL's host is not a public name", param=param)
    if not all(_LABEL.fullmatch(label) for label in labels):
        raise UrlNotAllowed("the URL's host is not a name", param=param)


def _literal(host: str) -> IPv4Address | IPv6Address | None:
    """The address that the host is, written the one usual way; None for a name."""
    try:
        return IPv6Address(host[1:-1]) if host.startswith("[") else IPv4Address(host)
    except AddressValueError:
        return None
