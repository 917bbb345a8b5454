"""How long a request is waited for while it is read.

Gunicorn's threads wait for the rest of a head or a body for as long as the connection is open, so a
few clients that let theirs drip would hold all of them. Here the time in which a thread has nothing
to read is counted, and grows with what has come: whoever sends at a reasonable pace has all the
time that it takes, and time that is spent on other things, such as storing, counts for nothing.
"""

from __future__ import annotations

import socket
import struct
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

LEAST_BYTES_A_SECOND = 1_024
STEP_SECONDS = 1
"""How long the kernel waits before we look at what has been waited already."""

Chunk = Callable[[Any, int | None], bytes]


class Patience:
    """What is left of it for one request."""

    def __init__(self, seconds: float) -> None:
        self._left = seconds

    @property
    def is_lost(self) -> bool:
        return self._left <= 0

    def note(self, waited: float, received: int = 0) -> None:
        """So many seconds were spent on waiting, after which so many bytes came."""
        if not self.is_lost:  # once lost, it stays so: the rest of the request would be half of it
            self._left += received / LEAST_BYTES_A_SECOND - waited


def patient(chunk: Chunk, seconds: float, clock: Callable[[], float] = time.monotonic) -> Chunk:
    """Stands for ``chunk``, with which a ``SocketUnreader`` of gunicorn's reads its connection:
    once all patience is lost it is as if the client had hung up."""

    def read(unreader: Any, size_hint: int | None = None) -> bytes:
        patience = getattr(unreader, "patience", None)
        if patience is None:
            patience = unreader.patience = Patience(seconds)
            unreader.sock.setsockopt(
                socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.pack("@ll", STEP_SECONDS, 0)
            )
        while not patience.is_lost:
            began = clock()
            try:
                data = chunk(unreader, size_hint)
            except BlockingIOError:  # the step is over
                patience.note(clock() - began)
            else:
                patience.note(clock() - began, len(data))
                return data
        with suppress(OSError):  # nothing more is read from it, also not as another request
            unreader.sock.shutdown(socket.SHUT_RD)
        return b""

    return read


def renew(unreader: Any, seconds: float) -> None:
    """Another request, or its body after its head, begins on the connection."""
    if not unreader.patience.is_lost:
        unreader.patience = Patience(seconds)
