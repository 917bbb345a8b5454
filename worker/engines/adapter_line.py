"""Rows that wait for their adapter to be loaded, and which adapters stay: pure but for two calls.

At most so many adapters are loaded at a time. The least recently used of those that no row runs
with makes room. A row whose adapter finds none waits; others may pass it, but not for ever.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Generic, Protocol, TypeVar

from worker.engines.adapter_files import BadAdapter


class Adapted(Protocol):
    @property
    def adapter(self) -> str: ...


Row = TypeVar("Row", bound=Adapted)


class AdapterLine(Generic[Row]):
    """Decides which rows may run. ``load`` may raise BadAdapter."""

    def __init__(
        self,
        load: Callable[[str], None],
        unload: Callable[[str], None],
        *,
        most: int,
        quota: int,
    ) -> None:
        """``most`` adapters at a time; ``quota`` rows may pass one that waits for room."""
        self._load = load
        self._unload = unload
        self._most = most
        self._quota = quota
        self._waiting: deque[Row] = deque()
        self._running: dict[str, int] = {}
        """Rows by loaded adapter, the least recently used first."""
        self._first: Row | None = None
        """The oldest row that there was no room for, and …"""
        self._passed = 0
        """… how many have passed it."""

    @property
    def waiting(self) -> int:
        return len(self._waiting)

    @property
    def loaded(self) -> list[str]:
        return list(self._running)

    def add(self, row: Row) -> None:
        self._waiting.append(row)

    def leave(self, row: Row) -> None:
        """The row has ended, or is not wanted any more; it may still be waiting."""
        if row in self._waiting:
            self._waiting.remove(row)
        else:
            self._running[row.adapter] -= 1

    def board(self) -> tuple[list[Row], list[tuple[Row, BadAdapter]]]:
        """The rows that may run now, and those whose adapter can't be loaded."""
        boarded: list[Row] = []
        failed: list[tuple[Row, BadAdapter]] = []
        kept: deque[Row] = deque()
        bad: dict[str, BadAdapter] = {}
        for row in self._waiting:
            if row.adapter in bad:
                failed.append((row, bad[row.adapter]))
                continue
            try:
                may = self._may_board(row, behind=kept[0] if kept else None)
            except BadAdapter as why:
                bad[row.adapter] = why
                failed.append((row, why))
                continue
            if may:
                self._running[row.adapter] = self._running.pop(row.adapter) + 1
                boarded.append(row)
            else:
                kept.append(row)
        self._waiting = kept
        if not kept:
            self._first = None
        return boarded, failed

    def _may_board(self, row: Row, behind: Row | None) -> bool:
        if behind is not None and behind is not self._first:
            self._first, self._passed = behind, 0
        if row.adapter not in self._running:
            return self._make_room(row.adapter)
        if behind is None:
            return True
        self._passed += 1
        return self._passed <= self._quota

    def _make_room(self, adapter: str) -> bool:
        if len(self._running) >= self._most:
            idle = next((key for key, rows in self._running.items() if not rows), None)
            if idle is None:
                return False
            del self._running[idle]
            self._unload(idle)
        self._load(adapter)
        self._running[adapter] = 0
        return True
