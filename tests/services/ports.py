"""Ports of 127.0.0.1 that stay ours while this process lives."""

from __future__ import annotations

import random
import socket
from pathlib import Path

_LOWEST = 15_000
_EPHEMERAL = Path("/proc/sys/net/ipv4/ip_local_port_range")

_reservations: list[socket.socket] = []


class NoFreePort(Exception):
    """Every port that was tried is taken."""


def reserve_port() -> int:
    """A TCP port that nothing listens on and no other test process will be given.

    It lies below the range from which the kernel picks the near end of outgoing connections, so
    that a server can be stopped and started on the same port. The reservation is an abstract
    socket, which the kernel frees with the process and which leaves no file behind.
    """
    highest = _first_ephemeral_port() - 1
    for _ in range(500):
        port = random.randint(_LOWEST, highest)
        if _reserve(port):
            if _can_be_bound(port):
                return port
            _reservations.pop().close()
    raise NoFreePort(f"no free port between {_LOWEST} and {highest}")


def _first_ephemeral_port() -> int:
    try:
        return max(int(_EPHEMERAL.read_text().split()[0]), _LOWEST + 1_000)
    except OSError:
        return 32_768


def _reserve(port: int) -> bool:
    token = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    try:
        token.bind(f"\0pressrun-tests-port-{port}")
    except OSError:
        token.close()
        return False
    _reservations.append(token)
    return True


def _can_be_bound(port: int) -> bool:
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True
