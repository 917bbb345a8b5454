"""Makes a model smaller and looks at what that costs: before and after, side by side."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from worker.recipes.measuring import Measured, measure, read_rows
from worker.recipes.measuring_models import Asked
from worker.recipes.measuring_pace import Pace, StoppedEarly
from worker.recipes.optimizing_looks import (
    Memory,
    answer_once,
    bytes_on_disk,
    speeds,
    watched,
)
from worker.recipes.optimizing_methods import make_smaller
from worker.recipes.optimizing_verdict import as_markdown, notes_on, refusal
from worker.recipes.report_files import result_files
from worker.recipes.reporting import Reporter
from worker.tuning.messages import RESULT, Finished, Optimization, Plan, Subject


@dataclass(frozen=True, slots=True)
class Looked:
    """One side of the table."""

    asked: Asked
    memory: Memory
    measured: Measured
    disk: int


class Optimizing:
    """One optimisation, in its folder."""

    def __init__(self, folder: Path, plan: Plan, reporter: Reporter) -> None:
        if plan.optimization is None:
            raise AssertionError("a plan that does not say how")
        self._how: Optimization = plan.optimization
        self._folder, self._plan, self._reporter = folder, plan, reporter
        self._subject = plan.subjects[0]
        self._rows = read_rows(folder)
        self._pace = Pace(folder, reporter, 2 * len(self._rows))

    def run(self) -> None:
        """Up to ``Finished`` or ``Stopped``. Raises RecipeError."""
        self._pace.start(
            self._subject.engine,
            examples=len(self._rows),
            method=self._how.method,
            measured_as=self._plan.measured_as,
        )
        try:
            before = self._look(self._subject)
            said = self._make()
            after = self._look(self._made)
            table = self._table(before, after) | {"detail": said}
        except StoppedEarly:
            self._pace.stopped()
            return
        verdict = refusal(
            self._plan.metric,
            table["quality"][self._plan.metric],
            goes_up=self._plan.goes_up,
            most=self._how.max_drop,
        )
        self._report(table, verdict)
        tokens = before.measured.tokens + after.measured.tokens
        files = result_files(self._folder / RESULT / "files")
        metrics = {"table": table, "refused": verdict}
        self._reporter.send(Finished(self._pace.step, files, metrics, tokens))

    @property
    def _made(self) -> Subject:
        source = str(self._folder / RESULT / "model")
        subject = self._subject
        return Subject(
            name=self._plan.model, engine=subject.engine, source=source, settings=subject.settings
        )

    def _look(self, subject: Subject) -> Looked:
        with watched() as memory:
            asked = Asked(subject, self._pace.tick)
            answer_once(asked, subject.engine)
        measured = measure(asked, self._rows, self._plan, self._folder, self._pace.tick)
        return Looked(asked, memory, measured, bytes_on_disk(subject))

    def _make(self) -> dict[str, Any]:
        folder = self._folder / RESULT / "model"
        folder.mkdir(parents=True)
        return make_smaller(self._subject, self._how.method, folder, self._pace.tick)

    def _table(self, before: Looked, after: Looked) -> dict[str, Any]:
        """Both are still loaded: their speeds are measured in turns."""
        quick = speeds(before.asked, after.asked, self._subject.engine, self._rows, self._pace.tick)
        old, new = before.measured.values, after.measured.values
        return {
            "method": self._how.method,
            "made_of": self._subject.name,
            "metric": self._plan.metric,
            "max_drop": self._how.max_drop,
            "examples": len(self._rows),
            "dtype": str(before.asked.loaded.dtype).removeprefix("torch."),
            "device": str(before.asked.loaded.device),
            "costs": {
                "disk_bytes": _sides(before.disk, after.disk),
                "weights_bytes": _sides(
                    before.asked.loaded.weight_bytes, after.asked.loaded.weight_bytes
                ),
                "resident_bytes": _sides(before.memory.resident, after.memory.resident),
                "peak_bytes": _sides(before.memory.peak, after.memory.peak),
                **quick,
            },
            "quality": {
                name: _sides(old.get(name), new.get(name))
                for name in dict.fromkeys([self._plan.metric, *old])
            },
            "notes": notes_on(self._how.method),
        }

    def _report(self, table: dict[str, Any], verdict: str | None) -> None:
        files = self._folder / RESULT / "files"
        files.mkdir(parents=True, exist_ok=True)
        told = {"model": self._plan.model, "offered": verdict is None, "reason": verdict, **table}
        text = json.dumps(told, indent=1, ensure_ascii=False)
        (files / "report.json").write_text(text + "\n", encoding="utf-8")
        (files / "report.md").write_text(
            as_markdown(self._plan.model, table, verdict), encoding="utf-8"
        )


def tell(folder: Path, plan: Plan, reporter: Reporter) -> None:
    """One optimisation, from its plan to ``Finished`` or ``Stopped``. Raises RecipeError."""
    Optimizing(folder, plan, reporter).run()


def _sides(before: float | None, after: float | None) -> dict[str, float | None]:
    return {"before": before, "after": after}
