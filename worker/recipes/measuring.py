"""Measures models on a file of examples: one after the other, each as it is served."""

from __future__ import annotations

import gc
import json
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from shared.specs.model_jobs import ANSWERED
from worker.recipes.measuring_labels import measure_entities, measure_labels
from worker.recipes.measuring_models import Asked
from worker.recipes.measuring_pace import Pace, StoppedEarly
from worker.recipes.measuring_texts import measure_answers, measure_texts
from worker.recipes.reporting import Reporter
from worker.recipes.shape import RecipeError
from worker.tuning.messages import DATA, VALIDATION_DATA, Finished, Plan

FILE_PARAM = {"evaluate": "file", "optimize": "evaluation_file"}
"""By recipe: the field that names the examples."""


@dataclass(frozen=True, slots=True)
class Measured:
    """What was found about one model; a number that is none stays away."""

    values: dict[str, float]
    tokens: int
    seconds: float


def tell(folder: Path, plan: Plan, reporter: Reporter) -> None:
    """One evaluation, from its plan to ``Finished`` or ``Stopped``. Raises RecipeError."""
    rows = read_rows(folder)
    pace = Pace(folder, reporter, len(rows) * len(plan.subjects))
    pace.start(plan.subjects[0].engine, examples=len(rows), measured_as=plan.measured_as)
    found: list[dict[str, Any]] = []
    try:
        for subject in plan.subjects:
            began = time.monotonic()
            asked = Asked(subject, pace.tick)
            measured = measure(asked, rows, plan, folder, pace.tick)
            del asked
            gc.collect()  # the next one may need the room
            found.append(
                {
                    "model": subject.name,
                    "values": measured.values,
                    "tokens": measured.tokens,
                    "examples": len(rows),
                    "seconds": round(time.monotonic() - began, 3),
                }
            )
    except StoppedEarly:
        pace.stopped()
        return
    tokens = sum(item["tokens"] for item in found)
    reporter.send(Finished(pace.step, [], {"models": found}, tokens))


def measure(
    asked: Asked,
    rows: list[dict[str, Any]],
    plan: Plan,
    folder: Path,
    done: Callable[[float], object],
) -> Measured:
    """By the evaluation that ``plan.measured_as`` names. Raises RecipeError for examples that the
    model can't be measured on."""
    began = time.monotonic()
    try:
        values, tokens = _measures(plan.measured_as)(asked, rows, done)
        if plan.metric in ANSWERED:
            values = values | measure_answers(asked, rows, plan, folder)
    except RecipeError as error:
        raise _named(error, plan) from error
    if plan.metric not in values:
        message = f"'{plan.metric}' can't be measured on these examples"
        raise RecipeError("metric_not_measured", message, "request", "metric")
    finite = {name: round(value, 6) for name, value in values.items() if math.isfinite(value)}
    return Measured(finite, tokens, time.monotonic() - began)


def _measures(recipe: str) -> Callable[..., tuple[dict[str, float], int]]:
    by_recipe = {
        "supervised": measure_texts,
        "text_classification": measure_labels,
        "token_classification": measure_entities,
    }
    return by_recipe[recipe]


def _named(error: RecipeError, plan: Plan) -> RecipeError:
    """Helpers of trainings blame the training's file; here it has another name."""
    if error.param != "training_file":
        return error
    return RecipeError(error.code, error.message, error.blame, FILE_PARAM[plan.recipe])


def read_rows(folder: Path) -> list[dict[str, Any]]:
    with (folder / DATA / VALIDATION_DATA).open(encoding="utf-8") as lines:
        return [json.loads(line) for line in lines if line.strip()]
