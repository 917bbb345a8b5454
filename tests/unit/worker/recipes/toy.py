"""A small real recipe: a network with dropout and running statistics learns a sum.

``python -m tests.unit.worker.recipes.toy FOLDER`` runs it as ``python -m worker.recipes`` would.
Rows are ``{"x": [numbers], "y": number}``; a hyperparameter of the environment makes it misbehave:
``TOY_KILL_AT=7`` ends the process without a word in the middle of step 7.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors.torch import save_file
from torch import nn

from worker.recipes import registry, run
from worker.recipes.context import Context
from worker.recipes.loop import Loop
from worker.recipes.shape import Trained

WIDTH = 4


class Toy:
    engine, adapter = "fake", False

    def __init__(self, context: Context) -> None:
        self.context = context
        self.settings: dict[str, Any] = {}
        self.detail: dict[str, Any] = {}

    def setup(self) -> None:
        # Below, a layer that is frozen, so that "only what is trained is kept" can be seen.
        self.frozen = nn.Linear(WIDTH, WIDTH).requires_grad_(False)
        self.model = nn.Sequential(
            self.frozen, nn.Linear(WIDTH, 8), nn.BatchNorm1d(8), nn.Dropout(0.3), nn.Linear(8, 1)
        )
        self.average = nn.Linear(8, 1)
        self.rows = self.context.train_rows()
        self.held_out = self.context.validation_rows()

    def trained(self) -> Trained:
        parameters = [p for p in self.model.parameters() if p.requires_grad]
        return Trained(
            {"net": self.model}, {"model": parameters}, len(self.rows), {"average": self.average}
        )

    def train(self, loop: Loop) -> None:
        kill_at = int(os.environ.get("TOY_KILL_AT", "0"))
        for batch in loop.batches():
            for rows in batch.microbatches:
                inputs, wanted = _tensors([self.rows[row] for row in rows])
                loss = nn.functional.mse_loss(self.model(inputs), wanted)
                loop.backward(loss)
                loop.report(tokens=len(rows), size=float(len(rows)))
            if batch.step == kill_at:
                os._exit(9)
            loop.update()
            with torch.no_grad():
                last = self.model[4]
                assert isinstance(last, nn.Linear)
                self.average.weight.lerp_(last.weight, 0.1)

    def evaluate(self) -> dict[str, float]:
        inputs, wanted = _tensors(self.held_out)
        return {"valid_loss": float(nn.functional.mse_loss(self.model(inputs), wanted))}

    def save_checkpoint(self, folder: Path) -> None:
        state = {name: tensor.contiguous() for name, tensor in self.model.state_dict().items()}
        state["average"] = self.average.weight.detach()
        save_file(state, folder / "model.safetensors")

    export = save_checkpoint

    def report(self, which: Literal["before", "after"]) -> dict[str, Any]:
        (self.context.files / f"{which}.txt").write_text(which)
        self.context.sections["Toy"] = "A section of its own."
        return {"answer": 1.0 if which == "before" else 2.0}


def write_rows(folder: Path, train: int, validation: int) -> None:
    generator = torch.Generator().manual_seed(5)
    for name, count in (("train", train), ("validation", validation)):
        inputs = torch.randn(count, WIDTH, generator=generator)
        lines = [json.dumps({"x": row.tolist(), "y": float(row.sum())}) for row in inputs]
        (folder / f"{name}.jsonl").write_text("\n".join(lines) + "\n")


def _tensors(rows: list[dict[str, Any]]) -> tuple[torch.Tensor, torch.Tensor]:
    inputs = torch.tensor([row["x"] for row in rows])
    return inputs, torch.tensor([[row["y"]] for row in rows])


if __name__ == "__main__":
    registry.RECIPES["toy"] = "tests.unit.worker.recipes.toy:Toy"
    sys.exit(run.main(sys.argv[1:]))
