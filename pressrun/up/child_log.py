"""What a child writes: into ``DIR/logs/NAME.log``, and its warnings onto the console."""

from __future__ import annotations

import json
import threading
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import IO

LIMIT_BYTES = 16 * 2**20
KEPT_FILES = 2
TAIL_LINES = 20
LONGEST_LINE_BYTES = 64 * 2**10
SHOWN_LEVELS = frozenset({"warning", "error", "critical"})
HIDDEN_FIELDS = frozenset({"event", "level", "timestamp", "process", "exception"})

OnWarning = Callable[[str], None]
"""Told one line for people."""


class ChildLog:
    """One child's log file, over its restarts; rotated at the start and when it is full."""

    def __init__(
        self,
        path: Path,
        on_warning: OnWarning,
        *,
        every_line: bool = False,
        limit_bytes: int = LIMIT_BYTES,
    ) -> None:
        """``every_line``: whatever the child says is for the console, warning or not."""
        self.path = path
        self._on_warning = on_warning
        self._every_line = every_line
        self._limit_bytes = limit_bytes
        self._tail: deque[str] = deque(maxlen=TAIL_LINES)
        self._rotate()

    def follow(self, stream: IO[bytes]) -> threading.Thread:
        """Starts a thread that reads ``stream`` to its end."""
        self._tail.clear()
        thread = threading.Thread(
            target=self._copy, args=(stream,), name=f"log-{self.path.stem}", daemon=True
        )
        thread.start()
        return thread

    def tail(self) -> str:
        """The last lines since the child was last started."""
        return "\n".join(list(self._tail))

    def _copy(self, stream: IO[bytes]) -> None:
        file = self.path.open("ab", buffering=0)
        size = self.path.stat().st_size
        try:
            while line := stream.readline(LONGEST_LINE_BYTES):
                if size + len(line) > self._limit_bytes:
                    file.close()
                    self._rotate()
                    file, size = self.path.open("ab", buffering=0), 0
                size += self._write(file, line)
                self._notice(line)
        finally:
            file.close()
            stream.close()

    def _write(self, file: IO[bytes], line: bytes) -> int:
        try:
            return file.write(line)
        except OSError:
            return 0  # a full disk must not block the child; its warnings still reach the console

    def _notice(self, line: bytes) -> None:
        text = line.decode(errors="replace").rstrip()
        self._tail.append(text)
        if shown := text if self._every_line else readable_warning(text):
            self._on_warning(f"{self.path.stem}: {shown}")

    def _rotate(self) -> None:
        if not self.path.exists() or not self.path.stat().st_size:
            return
        for number in range(KEPT_FILES, 0, -1):
            older = self.path.with_suffix(f".log.{number}")
            newer = self.path.with_suffix(f".log.{number - 1}") if number > 1 else self.path
            if newer.exists():
                newer.replace(older)


def readable_warning(line: str) -> str | None:
    """A structured line of level warning or above as a short text; None for all else."""
    if not line.startswith("{"):
        return None
    try:
        fields = json.loads(line)
    except ValueError:
        return None
    if not isinstance(fields, dict) or fields.get("level") not in SHOWN_LEVELS:
        return None
    rest = " ".join(f"{k}={v}" for k, v in fields.items() if k not in HIDDEN_FIELDS)
    return f"{fields['level']} {fields.get('event', '')} {rest}".rstrip()
