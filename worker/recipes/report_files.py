"""The files that a tenant gets beside the model: a readable report, the numbers, a curve."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from worker.recipes.context import Context
from worker.recipes.event_files import write_event_files
from worker.recipes.loss_chart import draw_losses
from worker.recipes.reporting import by_step, read_history, write_csv
from worker.recipes.state import Progress
from worker.tuning.messages import ResultFile

MEDIA_TYPES = {
    ".md": "text/markdown",
    ".json": "application/json",
    ".jsonl": "application/jsonl",
    ".csv": "text/csv",
    ".png": "image/png",
    ".html": "text/html",
    ".txt": "text/plain",
}
_SMALL, _LARGE = 1e-3, 1e6
_HYPERPARAMETER_ORDER = (
    "n_epochs", "batch_size", "learning_rate", "learning_rate_multiplier", "lr_schedule",
    "warmup_ratio", "weight_decay", "gradient_accumulation", "max_grad_norm", "max_length",
    "packing", "precision", "beta", "image_size", "steps", "steps_per_epoch", "evaluate_steps",
)  # fmt: skip


def write_report_files(
    context: Context, progress: Progress, metrics: Mapping[str, Any], detail: Mapping[str, Any]
) -> list[ResultFile]:
    """Writes report.md, report.json, metrics.csv and loss.png beside what the recipe has made, and
    lists everything in the folder."""
    folder = context.files
    history = read_history(context.reporter.history)
    write_csv(history, folder / "metrics.csv")
    if not write_event_files(by_step(history), folder / "tensorboard"):
        context.note("tensorboard is not installed on the worker: no event files", "warn")
    draw_losses(by_step(history), folder / "loss.png", promoted=int(metrics["step"]))
    told = {
        "model": context.plan.model,
        "base_model": context.plan.base_model,
        "recipe": context.plan.recipe,
        "seed": context.plan.seed,
        "hyperparameters": context.hyperparameters.shown(),
        "detail": dict(detail),
        **metrics,
    }
    (folder / "report.json").write_text(json.dumps(told, indent=1, default=str), encoding="utf-8")
    (folder / "report.md").write_text(_report(context, progress, metrics, detail), encoding="utf-8")
    return result_files(folder)


def result_files(folder: Path) -> list[ResultFile]:
    """Every file below a folder, with its media type."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return [
        ResultFile(
            path.relative_to(folder).as_posix(),
            MEDIA_TYPES.get(path.suffix, "application/octet-stream"),
        )
        for path in files
    ]


def number(value: Any) -> str:
    """For a table: four significant digits, small ones in powers of ten."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return str(value)
    if isinstance(value, int):
        return f"{value:,}"
    if math.isfinite(value) and value and (not _SMALL <= abs(value) < _LARGE):
        return f"{value:.3g}"
    return f"{value:.4g}"


def compared(before: Mapping[str, Any], after: Mapping[str, Any]) -> str:
    """A table of the numbers that both have."""
    rows = [
        f"| {name} | {number(before[name])} | {number(after[name])} |"
        for name in after
        if name in before and isinstance(after[name], int | float)
    ]
    return "\n".join(["| | before | after |", "|---|---:|---:|", *rows])


def _report(
    context: Context, progress: Progress, metrics: Mapping[str, Any], detail: Mapping[str, Any]
) -> str:
    before, after = metrics["before"], metrics["after"]
    parts = [
        f"# {context.plan.model}",
        _trained(context, progress, metrics, detail),
        "## Before and after",
        "Measured on examples that were held out of the training.",
        compared(before, after),
        "## Losses",
        "![Losses of training and validation](loss.png)",
        "## Hyperparameters",
        _hyperparameters(context),
    ]
    for heading, text in context.sections.items():
        parts += [f"## {heading}", text]
    return "\n\n".join(parts) + "\n"


def _trained(
    context: Context, progress: Progress, metrics: Mapping[str, Any], detail: Mapping[str, Any]
) -> str:
    plan = context.plan
    train, valid = (
        sum(1 for _ in rows) for rows in (context.train_rows(), context.validation_rows())
    )
    start = f"the base model `{plan.base_model}`" if plan.base_model else "nothing (no base model)"
    lines = [
        f"- Recipe `{plan.recipe}`, from {start}, seed {plan.seed}",
        f"- Data: {train:,} examples for training, {valid:,} held out",
        f"- {progress.step:,} steps in {progress.seconds:,.1f} seconds on {context.device} "
        f"({context.processes} process{'es' if context.processes > 1 else ''}), "
        f"{progress.examples:,} examples seen"
        + (f", {progress.tokens:,} tokens trained" if progress.tokens else ""),
        f"- Delivered: the weights of step {metrics['step']:,}"
        + (", the best on the held-out examples" if metrics["step"] != progress.step else ""),
    ]
    lines += [f"- {name}: {number(value)}" for name, value in detail.items()]
    return "\n".join(lines)


def _hyperparameters(context: Context) -> str:
    shown = context.hyperparameters.shown()
    auto = set(shown["auto"])
    rows = [
        f"| {name} | {number(shown[name])} | {'auto' if name in auto else ''} |"
        for name in _HYPERPARAMETER_ORDER
        if name in shown
    ]
    return "\n".join(["| | value | decided |", "|---|---:|---|", *rows])
