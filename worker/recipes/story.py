"""Set up, look at the base, train, look again, deliver: what every recipe goes through."""

from __future__ import annotations

import os
import shutil
import time
from datetime import timedelta
from pathlib import Path
from typing import Any, Literal

import torch
from accelerate import Accelerator, InitProcessGroupKwargs

from worker.recipes import base_weights
from worker.recipes.auto import resolve, takes_adapter
from worker.recipes.checkpoints import FILES
from worker.recipes.context import Context
from worker.recipes.loop import Loop
from worker.recipes.registry import find
from worker.recipes.report_files import write_report_files
from worker.recipes.reporting import Reporter
from worker.recipes.seeding import seed_everything
from worker.recipes.shape import Recipe, RecipeError
from worker.recipes.trackers import start_trackers
from worker.tuning.messages import DATA, RESULT, TRAIN_DATA, Finished, Plan, Started, Stopped

_PATIENCE = timedelta(hours=12)
"""Of processes that wait for the first while it writes a report or a checkpoint."""
_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
_MIXED = {"fp32": "no", "bf16": "bf16", "fp16": "fp16"}


def tell(folder: Path, plan: Plan, reporter: Reporter) -> None:
    """One training, from its plan to ``Finished`` or ``Stopped``. Raises RecipeError."""
    kind = find(plan.recipe)
    context = make_context(folder, plan, reporter)
    seed_everything(plan.seed, 0, 0)
    recipe: Recipe = kind(context)
    recipe.setup()
    loop = Loop(context, recipe)
    _start_from(loop, recipe)
    with start_trackers(context):
        if not loop.stop_before_start():
            _look_before(loop, recipe)
            recipe.train(loop)
    if loop.stopped:
        reporter.send(Stopped(loop.step))
    else:
        _deliver(loop, recipe)


def make_context(folder: Path, plan: Plan, reporter: Reporter) -> Context:
    """Device, precision and numbers of a training; joins its processes together."""
    cpu = os.environ.get("ACCELERATE_USE_CPU") == "true" or not torch.cuda.is_available()
    parameters = base_weights.count(plan.base) if plan.base else None
    processes = int(os.environ.get("WORLD_SIZE", "1"))
    numbers = resolve(
        plan.hyperparameters,
        recipe=plan.recipe,
        examples=_lines(folder / DATA / TRAIN_DATA),
        adapter=takes_adapter(plan.recipe, plan.adapter, parameters),
        parameters=parameters,
        processes=processes,
        evaluate_steps=plan.evaluate_steps,
    )
    precision = choose_precision(numbers.precision, cpu=cpu)
    if cpu and processes > 1 and "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(max(1, (os.cpu_count() or 1) // processes))
    accelerator = Accelerator(
        cpu=cpu,
        mixed_precision=_MIXED[precision],
        kwargs_handlers=[InitProcessGroupKwargs(timeout=_PATIENCE)],
    )
    return Context(
        plan,
        folder,
        reporter,
        device=accelerator.device,
        dtype=_DTYPES[precision],
        hyperparameters=numbers.deciding(precision=precision),
        accelerator=accelerator,
    )


def choose_precision(wanted: str, *, cpu: bool) -> str:
    """``auto`` is the fastest that the device computes natively. Raises RecipeError."""
    from worker.engines.loading import choose_dtype

    if wanted == "auto":
        chosen = choose_dtype(None, torch.device("cpu" if cpu else "cuda"))
        return {dtype: name for name, dtype in _DTYPES.items()}[chosen]
    if wanted == "fp16" and cpu:
        message = "fp16 needs a GPU: take bf16 or fp32"
        raise RecipeError("bad_precision", message, "request", "hyperparameters.precision")
    return wanted


def _start_from(loop: Loop, recipe: Recipe) -> None:
    """A checkpoint, or the base model."""
    if loop.context.plan.resume:
        _resume(loop, Path(loop.context.plan.resume))
    loop.context.reporter.send(_started(loop, recipe))


def _look_before(loop: Loop, recipe: Recipe) -> None:
    """What the base can do, once in all attempts."""
    context = loop.context
    if loop.progress.before is None:
        measured = loop.evaluate()
        context.reporter.metrics(0, 0.0, measured, now=True)
        loop.progress.before = measured | _report(recipe, context, "before")


def _resume(loop: Loop, checkpoint: Path) -> None:
    loop.resume(checkpoint)
    context = loop.context
    context.sections.update(loop.progress.sections)
    if context.main:
        context.reporter.restore(checkpoint / "history.jsonl", loop.step)
        if (checkpoint / FILES).is_dir():
            shutil.copytree(checkpoint / FILES, context.files, dirs_exist_ok=True)


def _started(loop: Loop, recipe: Recipe) -> Started:
    context = loop.context
    return Started(
        steps=loop.steps,
        step=loop.step,
        hyperparameters=context.hyperparameters.shown(),
        detail={
            "device": str(context.device),
            "dtype": str(context.dtype).removeprefix("torch."),
            "processes": context.processes,
            **recipe.detail,
        },
        engine=recipe.engine,
        adapter=recipe.adapter,
        settings=recipe.settings,
    )


def _deliver(loop: Loop, recipe: Recipe) -> None:
    context = loop.context
    step = loop.promote_best()
    began = time.monotonic()
    progress = loop.progress
    known = progress.evaluated_step == step
    after = (dict(progress.evaluated) if known else loop.evaluate()) | _report(
        recipe, context, "after"
    )
    if context.main:
        model = context.folder / RESULT / "model"
        shutil.rmtree(model, ignore_errors=True)
        model.mkdir(parents=True)
        recipe.export(model)
        metrics = _summary(loop, step, after, time.monotonic() - began)
        files = write_report_files(context, loop.progress, metrics, recipe.detail)
        context.reporter.send(Finished(step, files, metrics, loop.progress.tokens))
    context.accelerator.wait_for_everyone()


def _summary(loop: Loop, step: int, after: dict[str, Any], seconds: float) -> dict[str, Any]:
    progress = loop.progress
    return {
        "before": progress.before or {},
        "after": after,
        "step": step,
        "steps": progress.step,
        "train_loss": progress.newest.get("train_loss"),
        "trained_tokens": progress.tokens,
        "trained_examples": progress.examples,
        "training_seconds": round(progress.seconds, 3),
        "report_seconds": round(seconds, 3),
    }


def _report(recipe: Recipe, context: Context, which: Literal["before", "after"]) -> dict[str, Any]:
    """By the first process; the others wait."""
    found: dict[str, Any] = {}
    if context.main:
        with torch.no_grad():
            found = recipe.report(which)
    context.accelerator.wait_for_everyone()
    return found


def _lines(path: Path) -> int:
    with path.open("rb") as file:
        return sum(1 for line in file if line.strip())
