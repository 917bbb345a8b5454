"""The threads that read sources: so many at a time, and one alone where it has cost a reader."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

AT_ONCE = 4
"""Sources that one process reads at a time."""


class Readers:
    """Threads that somebody else gives work to. One that does not end in ``patience_seconds`` is
    waited for no longer: its work is taken up by others, and nobody else's may wait for it."""

    def __init__(self, *, patience_seconds: float) -> None:
        self._patience_seconds = patience_seconds
        self._changed = threading.Condition()
        self._begun: dict[threading.Thread, float] = {}
        self._closing = False

    def close(self, *, within_seconds: float) -> None:
        """Begins nothing more, and waits so long for what is under way."""
        until = time.monotonic() + within_seconds
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        self.wait(until=until)

    def wait_for_room(self, *, within_seconds: float, alone: bool = False) -> bool:
        """Whether one more may begin, ``alone`` beside no other."""
        most = 0 if alone else AT_ONCE - 1
        until = time.monotonic() + within_seconds
        with self._changed:
            while not self._closing and self._waited_for() > most:
                left = min(until, self._next_given_up()) - time.monotonic()
                if time.monotonic() >= until:
                    return False
                self._changed.wait(max(left, 0.001))
            return not self._closing

    def begin(self, call: Callable[[], None]) -> None:
        """Runs ``call``, which does not raise, on a thread of its own."""
        thread = threading.Thread(target=self._run, args=(call,), name="feed", daemon=True)
        with self._changed:
            self._begun[thread] = time.monotonic()
        thread.start()

    def wait(self, *, until: float | None = None) -> None:
        """Until nothing is under way."""
        with self._changed:
            while self._begun and (until is None or time.monotonic() < until):
                self._changed.wait(None if until is None else max(0.0, until - time.monotonic()))

    def _run(self, call: Callable[[], None]) -> None:
        try:
            call()
        finally:
            with self._changed:
                del self._begun[threading.current_thread()]
                self._changed.notify_all()

    def _waited_for(self) -> int:
        since = time.monotonic() - self._patience_seconds
        return sum(begun > since for begun in self._begun.values())

    def _next_given_up(self) -> float:
        """When the first of those that are waited for is not any more."""
        since = time.monotonic() - self._patience_seconds
        recent = [begun for begun in self._begun.values() if begun > since]
        return min(recent, default=time.monotonic()) + self._patience_seconds
