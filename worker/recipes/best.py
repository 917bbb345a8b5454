"""The best weights so far: judged after each evaluation, kept on disk, brought back at the end."""

from __future__ import annotations

import math
import shutil
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from worker.recipes.checkpoints import BEST, STATE
from worker.recipes.context import Context
from worker.recipes.shape import RecipeError, Trained
from worker.recipes.state import Progress, restore_weights, storable, weights


class Best:
    """By the metric of early stopping, else by the recipe's own."""

    def __init__(self, context: Context, trained: Trained, progress: Progress) -> None:
        self._context, self._trained, self._progress = context, trained, progress
        stopping = context.plan.early_stopping
        self._metric: str | None = trained.best_metric
        self._mode: str = trained.best_mode
        self._min_delta, self._patience = 0.0, 0
        if stopping is not None:
            self._metric = stopping.get("metric", "valid_loss")
            self._mode = stopping.get("mode", "min")
            self._min_delta = float(stopping.get("min_delta", 0.0))
            self._patience = int(stopping.get("patience", 3))

    @property
    def file(self) -> Path | None:
        """The best weights, when they are older than the newest step's."""
        older = 0 < self._progress.best_step < self._progress.step
        return self._path if older else None

    @property
    def is_newest(self) -> bool:
        return 0 < self._progress.best_step == self._progress.step

    def restore(self, progress: Progress, checkpoint: Path) -> None:
        self._progress = progress
        if not self._context.main or progress.best_step == 0:
            return
        if (checkpoint / BEST).exists():
            shutil.copyfile(checkpoint / BEST, self._path)
        else:  # the checkpoint's own weights are the best
            self._keep(weights_only(checkpoint / STATE))

    def judge(self) -> None:
        """After an evaluation. Raises RecipeError ``bad_early_stopping`` for an unknown metric."""
        if self._metric is None:
            return
        value = self._progress.evaluated.get(self._metric)
        if value is None:
            if self._context.plan.early_stopping is None:
                return
            known = ", ".join(sorted(self._progress.evaluated))
            raise RecipeError(
                "bad_early_stopping",
                f"'{self._metric}' is not measured by this recipe, which has: {known}",
                "request",
                "early_stopping.metric",
            )
        if self._is_better(value):
            progress = self._progress
            progress.best_value, progress.best_step, progress.stale = value, progress.step, 0
            if self._context.main:
                self._keep(storable(weights(self._trained)))
            return
        self._progress.stale += 1
        if self._patience and self._progress.stale >= self._patience:
            self._progress.ended = True
            self._context.note(
                f"early stopping at step {self._progress.step}: {self._metric} was best at step "
                f"{self._progress.best_step}"
            )

    def promote(self) -> int:
        """The best weights into the modules of every process; their step."""
        self._context.accelerator.wait_for_everyone()
        if self.file is None:
            return self._progress.step
        restore_weights(self._trained, load_file(self.file))
        return self._progress.best_step

    def _is_better(self, value: float) -> bool:
        best = self._progress.best_value
        if best is None or math.isnan(value):
            return not math.isnan(value)
        gain = best - value if self._mode == "min" else value - best
        return gain > self._min_delta

    def _keep(self, tensors: dict[str, torch.Tensor]) -> None:
        partial = self._path.with_suffix(".partial")
        save_file(tensors, partial)
        partial.replace(self._path)

    @property
    def _path(self) -> Path:
        return self._context.folder / BEST


def weights_only(state: Path) -> dict[str, torch.Tensor]:
    """A checkpoint's tensors without the optimizers' moments."""
    tensors = load_file(state)
    return {name: tensor for name, tensor in tensors.items() if not name.startswith("optimizer/")}
