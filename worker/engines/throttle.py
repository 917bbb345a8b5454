"""How often an engine child speaks of a row's progress."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from worker.engines.protocol import RowProgress, RowResult

PAUSE_SECONDS = 0.25
"""Between two reports of a row; its first goes at once, and one with a preview always."""

Key = tuple[int, int, int]


class Throttle:
    """Lets reports through, and keeps the last of each row that had to wait."""

    def __init__(self) -> None:
        self._told_at: dict[Key, float] = {}
        self._held_back: dict[Key, RowProgress] = {}

    def pass_on(self, reports: Iterable[RowProgress], now: float) -> list[RowProgress]:
        """What is to be sent at ``now``, of these and of earlier reports, one a row and then its
        previews."""
        told: list[RowProgress] = []
        for report in reports:
            key = (report.shard, report.epoch, report.index)
            if report.preview is not None:
                told.append(report)
                self._told_at[key] = now
                self._held_back.pop(key, None)
            else:
                self._held_back[key] = report
        due = [key for key in self._held_back if self._is_due(key, now)]
        for key in due:
            told.append(self._held_back.pop(key))
            self._told_at[key] = now
        return told

    def forget(self, results: Sequence[RowResult]) -> None:
        """These rows have ended."""
        for result in results:
            self._drop((result.shard, result.epoch, result.index))

    def forget_shard(self, shard: int, epoch: int) -> None:
        for key in [key for key in self._told_at if key[:2] == (shard, epoch)]:
            self._drop(key)

    def _is_due(self, key: Key, now: float) -> bool:
        told_at = self._told_at.get(key)
        return told_at is None or now - told_at >= PAUSE_SECONDS

    def _drop(self, key: Key) -> None:
        self._told_at.pop(key, None)
        self._held_back.pop(key, None)
