"""The numbers of one step, put together from what loop and recipe tell."""

from __future__ import annotations

import time
from collections.abc import Mapping

import torch

from worker.recipes.context import Context
from worker.recipes.state import Progress


class StepNumbers:
    """Tensors stay on the device until the step ends, so that telling costs no synchronising."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._loss: list[torch.Tensor] = []
        self._added: dict[str, list[torch.Tensor | float]] = {}
        self._set: dict[str, float] = {}
        self._began_at = self._counted_at = self._step_at = time.perf_counter()
        self._first_step = 0

    def begin(self, progress: Progress) -> None:
        self._began_at = self._counted_at = time.perf_counter()
        self._first_step = progress.step

    def begin_step(self) -> None:
        """Rates are those of steps alone, without looks at the validation split or saving."""
        self._step_at = time.perf_counter()

    def add_loss(self, loss: torch.Tensor, part: float) -> None:
        self._loss.append(loss.float() * part)

    def add(self, values: Mapping[str, float | torch.Tensor]) -> None:
        for name, value in values.items():
            told = value.detach().float() if isinstance(value, torch.Tensor) else float(value)
            self._added.setdefault(name, []).append(told)

    def set(self, name: str, value: float) -> None:
        """Known alike by every process."""
        self._set[name] = value

    def end_step(
        self, progress: Progress, rate: float, examples: int, steps: int
    ) -> dict[str, float]:
        """Moves clock and counters on and returns the step's numbers."""
        values = self._over_processes()
        tokens = values.pop("tokens", 0.0)
        now = time.perf_counter()
        seconds = max(1e-9, now - self._step_at)
        progress.seconds += now - self._counted_at
        self._counted_at = now
        progress.tokens += round(tokens)
        progress.examples += examples
        values |= self._set
        self._set = {}
        each = (now - self._began_at) / max(1, progress.step - self._first_step)
        return values | {
            "learning_rate": rate,
            "examples_per_second": examples / seconds,
            **({"tokens_per_second": tokens / seconds} if tokens else {}),
            "memory_bytes": float(_memory_bytes(self._context.device)),
            "eta_seconds": each * (steps - progress.step),
        }

    def _over_processes(self) -> dict[str, float]:
        mine: dict[str, float] = {}
        if self._loss:
            mine["train_loss"] = float(sum(float(loss) for loss in self._loss))
        for name, told in self._added.items():
            total = sum(float(value) for value in told)
            mine[name] = total if name == "tokens" else total / len(told)
        self._loss, self._added = [], {}
        processes = self._context.processes
        summed = self._context.total(mine)
        return {
            name: value if name == "tokens" else value / processes for name, value in summed.items()
        }


def _memory_bytes(device: torch.device) -> int:
    """The most that a GPU has held; the process's resident memory on a CPU."""
    if device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(device))
    import psutil

    return int(psutil.Process().memory_info().rss)
