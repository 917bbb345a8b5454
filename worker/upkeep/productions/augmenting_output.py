"""The output of a production that makes training data: a training file, in which every line says
that it is synthetic and what it was made of."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from types import TracebackType
from typing import IO, Any, Self

from shared.productions.outcomes import Status
from shared.productions.specs import Task
from worker.tuning.data.example import METADATA
from worker.upkeep.productions.augmenting import training_line
from worker.upkeep.productions.results import OutputLine


class TrainingFile:
    """Writes the lines that succeeded into ``file``, and counts labels. ``models`` has the model
    that each name in the template stands for."""

    def __init__(
        self, file: IO[bytes], task: Task, production_id: str, models: Mapping[str, str]
    ) -> None:
        self._file = file
        self._task = task
        self._production = production_id
        self._models = models
        self._asked: Counter[str] = Counter()
        self._made: Counter[str] = Counter()

    def write(self, line: OutputLine) -> None:
        label = line.values["label"]
        if label is not None:
            self._asked[label] += 1
        if line.status is not Status.SUCCEEDED or line.output is None:
            return
        if label is not None:
            self._made[label] += 1
        made = training_line(self._task, line.output, line.values)
        made[METADATA] = self._provenance(line)
        written = json.dumps(made, ensure_ascii=False).encode("utf-8", "replace")
        self._file.write(written + b"\n")

    def _provenance(self, line: OutputLine) -> dict[str, Any]:
        values = line.values
        return {
            "synthetic": True,
            "production": self._production,
            "model": self._models.get(line.model or "", line.model),
            "example_lines": values["seeds"],
            "topic": values["topic"],
            "writer": values["writer"],
        }

    @property
    def labels(self) -> dict[str, dict[str, int]]:
        """How many of each were asked for, and how many there are."""
        return {
            label: {"asked": asked, "made": self._made[label]}
            for label, asked in self._asked.items()
        }

    def close(self) -> None:
        """Nothing waits."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()
