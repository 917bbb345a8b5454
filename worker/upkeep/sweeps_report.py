"""What a sweep leaves to its tenant: every trial in Markdown, JSON and CSV, and a chart."""

from __future__ import annotations

import csv
import io
import json
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import structlog

from shared.db.sweeps import Trial
from shared.specs.fine_tuning import FineTuningSpec
from shared.specs.sweeps import Sweep
from shared.states import JobState

log = structlog.get_logger()

FINISHED, PRUNED, FAILED, CANCELLED = "finished", "pruned", "failed", "cancelled"
MARKDOWN, JSON, CSV, PNG = "text/markdown", "application/json", "text/csv", "image/png"
CHART = "worker.recipes.sweep_chart"
"""Run in a process of its own: nothing that draws is imported where the credentials are."""
CHART_SECONDS = 60.0
CODE_ROOT = Path(__file__).resolve().parents[2]
COLUMNS = ("number", "job", "outcome", "value", "evaluations", "seconds")


def outcome_of(trial: Trial) -> str:
    """Of a trial that has ended."""
    if trial.pruned:
        return PRUNED
    if trial.value is not None:
        return FINISHED
    return CANCELLED if trial.state == JobState.CANCELLED else FAILED


@dataclass(frozen=True, slots=True)
class SweepReport:
    """Of a sweep whose trials have all ended."""

    job_id: str
    model: str
    spec: FineTuningSpec
    sweep: Sweep
    trials: Sequence[Trial]
    best: Trial

    def files(self) -> Iterator[tuple[str, str, bytes]]:
        """(name, media type, content); without the chart where it can't be drawn."""
        chart = draw(self.chart())
        yield "report.md", MARKDOWN, self.markdown(charted=chart is not None).encode()
        yield "report.json", JSON, json.dumps(self.document(), indent=1).encode()
        yield "trials.csv", CSV, self.table().encode()
        if chart is not None:
            yield "trials.png", PNG, chart

    def document(self) -> dict[str, Any]:
        """``report.json``"""
        return {
            "job": self.job_id,
            "model": self.model,
            "base_model": self.spec.model,
            "recipe": self.spec.recipe,
            "sweep": self.sweep.model_dump(mode="json", exclude_none=True),
            "outcomes": self._outcomes(),
            "best": self._row(self.best) | {"result_files": list(self.best.result_files)},
            "trials": [
                self._row(trial) | {"values": list(trial.evaluations)} for trial in self.trials
            ],
        }

    def table(self) -> str:
        """``trials.csv``: a column for each parameter after those that every sweep has."""
        names = sorted(self.sweep.space)
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow([*COLUMNS, *names])
        for trial in self.trials:
            row = self._row(trial)
            params = [_cell(trial.params[name]) for name in names]
            writer.writerow([*(row[name] for name in COLUMNS), *params])
        return text.getvalue()

    def chart(self) -> dict[str, Any]:
        """What ``worker.recipes.sweep_chart`` draws."""
        return {
            "metric": self.sweep.metric,
            "minimize": self.sweep.direction == "minimize",
            "best": self.best.number,
            "trials": [
                {"number": trial.number, "outcome": outcome_of(trial), "value": _last(trial)}
                for trial in self.trials
            ],
        }

    def markdown(self, *, charted: bool) -> str:
        """``report.md``"""
        best, sweep = self.best, self.sweep
        told = ", ".join(f"{count} {name}" for name, count in self._outcomes().items() if count)
        lines = [
            f"# Sweep {self.job_id}",
            "",
            f"{len(self.trials)} trials of `{self.spec.recipe}` on `{self.spec.model}` ({told}), "
            f"looking for the {'lowest' if sweep.direction == 'minimize' else 'highest'} "
            f"`{sweep.metric}`.",
            "",
            f"The best is trial {best.number} (`{best.job_id}`) with "
            f"`{sweep.metric}` = {_shown(best.value)}. Its model is offered as `{self.model}`.",
            "",
            "| parameter | best |",
            "|---|---|",
            *(f"| `{name}` | {_shown(best.params[name])} |" for name in sorted(sweep.space)),
            "",
            "## Trials",
            "",
            *self._trials_in_markdown(),
            "",
            "A pruned trial's value is that of its last evaluation.",
            "",
        ]
        if best.result_files:
            files = ", ".join(f"`{file}`" for file in best.result_files)
            lines += [f"What the best trial reported of itself: {files}.", ""]
        lines += ["All numbers are in `report.json` and `trials.csv`."]
        if charted:
            lines[-1] += " `trials.png` shows them in the order of the search."
        return "\n".join([*lines, ""])

    def _trials_in_markdown(self) -> Iterator[str]:
        names = sorted(self.sweep.space)
        heads = ["trial", "job", "outcome", self.sweep.metric, *(f"`{name}`" for name in names)]
        yield f"| {' | '.join(heads)} |"
        yield "|---:|---|---|---:|" + "---:|" * len(names)
        for trial in self.trials:
            cells = [
                f"**{trial.number}**" if trial is self.best else str(trial.number),
                f"`{trial.job_id}`",
                outcome_of(trial),
                _shown(_last(trial)),
                *(_shown(trial.params[name]) for name in names),
            ]
            yield f"| {' | '.join(cells)} |"

    def _outcomes(self) -> dict[str, int]:
        found = [outcome_of(trial) for trial in self.trials]
        return {name: found.count(name) for name in (FINISHED, PRUNED, FAILED, CANCELLED)}

    def _row(self, trial: Trial) -> dict[str, Any]:
        return {
            "number": trial.number,
            "job": trial.job_id,
            "outcome": outcome_of(trial),
            "value": trial.value,
            "evaluations": len(trial.evaluations),
            "seconds": None if trial.seconds is None else round(trial.seconds, 3),
            "params": dict(trial.params),
            "error": trial.error_message,
        }


def draw(chart: dict[str, Any]) -> bytes | None:
    """A PNG; None when it can't be drawn, which is no reason to fail a search of hours."""
    try:
        child = subprocess.run(
            [sys.executable, "-m", CHART],
            input=json.dumps(chart).encode(),
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={},  # whatever is in ours may be a credential
            cwd=CODE_ROOT,
            start_new_session=True,
            timeout=CHART_SECONDS,
            check=True,
        )
    except (OSError, subprocess.SubprocessError) as error:
        log.warning("sweep_not_charted", error=type(error).__name__)
        return None
    return child.stdout


def _last(trial: Trial) -> float | None:
    """The value, or how far a trial came that was pruned."""
    if trial.value is None and trial.pruned and trial.evaluations:
        return trial.evaluations[-1]
    return trial.value


def _shown(value: Any) -> str:
    if value is None:
        return "–"
    return f"{value:.6g}" if isinstance(value, float) else _cell(value)


def _cell(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)
