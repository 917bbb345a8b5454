"""Group commit: requests that arrive together share one statement and one flush to disk.

A request that finds nobody at work commits at once, on its own thread, what has come so far. Those
that come meanwhile wait for their turn, and the first of them takes all the others along.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from threading import Lock
from typing import Generic, TypeVar

from sqlalchemy.exc import SQLAlchemyError

from shared.db.session import is_outage

LIMIT = 64
"""Items in one statement."""

Item = TypeVar("Item")


class _Entry(Generic[Item]):
    __slots__ = ("done", "error", "item", "turn")

    def __init__(self, item: Item) -> None:
        self.item = item
        self.done = False
        self.error: BaseException | None = None
        self.turn = Lock()
        """Held until the entry is done, or its thread is to commit. One for each entry, since
        threads that all wait for the same lock pass through it one by one."""


class GroupCommit(Generic[Item]):
    """``add`` returns when its item is committed. Threads share it."""

    def __init__(self, commit: Callable[[Sequence[Item]], None]) -> None:
        """``commit`` takes a list of items, in one transaction: all of them or none."""
        self._commit = commit
        self._waiting: deque[_Entry[Item]] = deque()
        self._busy = False
        self._changing = Lock()

    def add(self, item: Item) -> None:
        """Raises what ``commit`` raised for this item."""
        entry = _Entry(item)
        with self._changing:
            self._waiting.append(entry)
            is_first, self._busy = not self._busy, True
            entry.turn.acquire()
        if not is_first:
            entry.turn.acquire()
        if not entry.done:
            self._commit_waiting()
        if entry.error is not None:
            raise entry.error

    def _commit_waiting(self) -> None:
        with self._changing:
            group = [self._waiting.popleft() for _ in range(min(LIMIT, len(self._waiting)))]
        try:
            self._commit_group(group)
        finally:
            with self._changing:
                following = self._waiting[0] if self._waiting else None
                self._busy = following is not None
            if following is not None:
                following.turn.release()
            for entry in group:
                entry.done = True
                entry.turn.release()

    def _commit_group(self, group: Sequence[_Entry[Item]]) -> None:
        try:
            self._commit([entry.item for entry in group])
        except Exception as error:
            shared = isinstance(error, SQLAlchemyError) and is_outage(error)
            if len(group) > 1 and not shared:
                # One item is at fault: each gets a statement of its own.
                for entry in group:
                    self._commit_group([entry])
                return
            for entry in group:
                entry.error = error
        except BaseException as error:
            for entry in group:
                entry.error = error
            raise
