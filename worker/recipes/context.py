"""What every recipe is given: plan, folder, device, numbers, and words to the supervisor."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from worker.recipes.auto import Resolved
from worker.recipes.reporting import Reporter
from worker.tuning.messages import DATA, RESULT, TRAIN_DATA, VALIDATION_DATA, Plan

if TYPE_CHECKING:
    import torch
    from accelerate import Accelerator


class Context:
    """``device`` and ``dtype`` are where and in what to compute: trained weights stay float32,
    frozen ones may be held in ``dtype``, and ``autocast()`` is entered around forward passes."""

    def __init__(
        self,
        plan: Plan,
        folder: Path,
        reporter: Reporter,
        *,
        device: torch.device,
        dtype: torch.dtype,
        hyperparameters: Resolved,
        accelerator: Accelerator,
    ) -> None:
        self.plan, self.folder, self.reporter = plan, folder, reporter
        self.device, self.dtype = device, dtype
        self.hyperparameters = hyperparameters
        self.accelerator = accelerator
        self.sections: dict[str, str] = {}
        """Markdown by heading, for report.md after its own sections."""

    @property
    def data(self) -> Path:
        return self.folder / DATA

    @property
    def files(self) -> Path:
        """What the tenant gets beside the model; checkpoints keep it too, so keep it small."""
        made = self.folder / RESULT / "files"
        made.mkdir(parents=True, exist_ok=True)
        return made

    @property
    def rank(self) -> int:
        return int(self.accelerator.process_index)

    @property
    def processes(self) -> int:
        return int(self.accelerator.num_processes)

    @property
    def main(self) -> bool:
        return self.rank == 0

    def train_rows(self) -> list[dict[str, Any]]:
        return list(_rows(self.data / TRAIN_DATA))

    def validation_rows(self) -> list[dict[str, Any]]:
        return list(_rows(self.data / VALIDATION_DATA))

    def autocast(self) -> AbstractContextManager[Any]:
        """Mixed precision as the hyperparameters have it; does nothing in float32."""
        context: AbstractContextManager[Any] = self.accelerator.autocast()
        return context

    def total(self, values: Mapping[str, float]) -> dict[str, float]:
        """The sums over all processes; every process must call it with the same names."""
        if self.processes == 1:
            return {name: float(value) for name, value in values.items()}
        import torch

        names = sorted(values)
        # gloo adds float64; MPS has none, and never more than one process.
        mine = torch.tensor([float(values[name]) for name in names], dtype=torch.float64)
        summed = self.accelerator.reduce(mine.to(self.device), reduction="sum")
        return dict(zip(names, summed.tolist(), strict=True))

    def agreed(self, values: Mapping[str, float]) -> dict[str, float]:
        """The first process's numbers, on every process; in the same order."""
        if self.processes == 1:
            return {name: float(value) for name, value in values.items()}
        import torch

        told = torch.tensor([float(value) for value in values.values()], device=self.device)
        self.broadcast(told)
        return dict(zip(values, told.tolist(), strict=True))

    def first_says(self, *flags: bool) -> tuple[bool, ...]:
        """The first process's answers, on every process."""
        if self.processes == 1:
            return flags
        import torch

        told = torch.tensor([int(flag) for flag in flags], device=self.device)
        self.broadcast(told)
        return tuple(bool(flag) for flag in told.tolist())

    def broadcast(self, tensor: torch.Tensor) -> None:
        """The first process's tensor, in place, on every process."""
        from accelerate.utils import broadcast

        tensor.copy_(broadcast(tensor.detach().clone(), from_process=0))

    def note(self, text: str, level: str = "info") -> None:
        """Tells the tenant; never with data of theirs in it."""
        self.reporter.note(text, level)


def _rows(path: Path) -> Iterator[dict[str, Any]]:
    with path.open(encoding="utf-8") as lines:
        for line in lines:
            if line.strip():
                yield json.loads(line)
