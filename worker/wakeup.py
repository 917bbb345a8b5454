"""How threads reach the supervisor's loop: a mailbox with a file descriptor to wait on."""

from __future__ import annotations

import os
from collections.abc import Callable
from queue import Empty, SimpleQueue
from typing import Self

Errand = Callable[[], None]
"""Something to be done on the supervisor's own thread."""


class Mailbox:
    """Errands from any thread, done by the one that waits on ``fileno``."""

    def __init__(self) -> None:
        self._read, self._write = os.pipe()
        os.set_blocking(self._read, False)
        os.set_blocking(self._write, False)
        self._errands: SimpleQueue[Errand] = SimpleQueue()

    def fileno(self) -> int:
        return self._read

    def put(self, errand: Errand) -> None:
        self._errands.put(errand)
        self.wake()

    def wake(self) -> None:
        """Ends the loop's wait; callable from threads and signal handlers."""
        try:
            os.write(self._write, b"!")
        except BlockingIOError:
            pass  # a full pipe wakes as well
        except OSError:
            pass  # closed: the loop has ended

    def run_errands(self) -> int:
        """Does everything that has arrived; returns how much that was."""
        try:
            while os.read(self._read, 4096):
                pass
        except BlockingIOError:
            pass
        done = 0
        while True:
            try:
                errand = self._errands.get_nowait()
            except Empty:
                return done
            errand()
            done += 1

    def close(self) -> None:
        os.close(self._read)
        os.close(self._write)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()
