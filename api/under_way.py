"""Requests that this process is working on, by what they ask for."""

from __future__ import annotations

from threading import Lock


class UnderWay:
    """A line for each request that may come again while it is worked on. Threads share it."""

    def __init__(self) -> None:
        self._lines: dict[bytes, list[str]] = {}
        self._lock = Lock()

    def enter(self, request_hash: bytes, who: str) -> None:
        """``who`` takes the last place of the line, or keeps its own."""
        with self._lock:
            line = self._lines.setdefault(request_hash, [])
            if who not in line:
                line.append(who)

    def is_first(self, request_hash: bytes, who: str) -> bool:
        """Whether nobody who came before ``who`` is still at work."""
        with self._lock:
            return self._lines.get(request_hash, [who])[0] == who

    def leave(self, request_hash: bytes, who: str) -> None:
        with self._lock:
            line = self._lines.get(request_hash, [])
            if who in line:
                line.remove(who)
            if not line:
                self._lines.pop(request_hash, None)
