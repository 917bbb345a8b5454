"""The address of `up`: bound here, before anything starts, and handed to the API."""

from __future__ import annotations

import errno
import socket
import time

from pressrun.exit_codes import CommandError, ExitCode

PATIENCE_SECONDS = 3.0
"""How long a predecessor's last sockets may take to close."""
POLL_SECONDS = 0.1
BACKLOG = 1024


def listen(host: str, port: int, *, patience_seconds: float = PATIENCE_SECONDS) -> socket.socket:
    """A listening socket; port 0 takes a free one. Raises CommandError (USAGE).

    Holding it here means that a restarting API loses no connection, and that no other program
    takes the port meanwhile.
    """
    deadline = time.monotonic() + patience_seconds
    while True:
        try:
            return _bound(host, port)
        except OSError as error:
            if error.errno != errno.EADDRINUSE or time.monotonic() > deadline:
                reason = error.strerror or str(error)
                raise CommandError(
                    f"cannot listen on {host}:{port}: {reason}; choose another --port or --host",
                    ExitCode.USAGE,
                ) from None
        time.sleep(POLL_SECONDS)


def _bound(host: str, port: int) -> socket.socket:
    family, kind, protocol, _, address = socket.getaddrinfo(
        host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )[0]
    listener = socket.socket(family, kind, protocol)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(BACKLOG)
    except BaseException:
        listener.close()
        raise
    return listener


def url_of(listener: socket.socket) -> str:
    """The address to reach the listener at from this machine."""
    host, port = listener.getsockname()[:2]
    reachable = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104
    return f"http://[{reachable}]:{port}" if ":" in reachable else f"http://{reachable}:{port}"
