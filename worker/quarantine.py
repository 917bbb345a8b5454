"""Rows that saw an engine crash, run alone, one at a time, until the culprit is found."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

from worker.execution import ShardRun


@dataclass(frozen=True, slots=True)
class Suspect:
    """One row of one shard."""

    run: ShardRun
    index: int

    @property
    def model(self) -> str:
        return self.run.rows[self.index].model

    @property
    def waits(self) -> bool:
        return not self.run.ending and self.index in self.run.unfinished


class Quarantine:
    """The line of suspects of one model, and the one that is in the quarantine engine."""

    def __init__(self) -> None:
        self._line: deque[Suspect] = deque()
        self.current: Suspect | None = None

    def add(self, run: ShardRun, index: int) -> None:
        self._line.append(Suspect(run, index))

    def next(self) -> Suspect | None:
        """Puts the next suspect under test; None while one is, or when none waits."""
        if self.current is not None and self.current.waits:
            return None
        self.current = None
        while self._line:
            suspect = self._line.popleft()
            if suspect.waits:
                self.current = suspect
                return suspect
        return None

    def put_back(self) -> None:
        """The test could not begin: first in line again."""
        if self.current is not None:
            self._line.appendleft(self.current)
            self.current = None

    def acquit_all(self) -> list[Suspect]:
        """The culprit is found: the others may go back into company."""
        others = [suspect for suspect in self._line if suspect.waits and not suspect.run.solo]
        self._line = deque(suspect for suspect in self._line if suspect.run.solo)
        return others
