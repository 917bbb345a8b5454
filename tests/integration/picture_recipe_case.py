"""What the tests of the picture recipes share: a training in this process, and what it said."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from tests.digits import plan_digits
from worker.recipes.run import run
from worker.tuning import messages
from worker.tuning.messages import MESSAGES, RESULT, Failed, Finished, FromTraining, Metrics, Saved

DIGITS = 80
BATCH = 16


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """Threads that wait for each other on a busy machine make tiny models slow."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@dataclass(frozen=True)
class Told:
    """A training that is over."""

    folder: Path
    said: list[FromTraining]

    @property
    def model(self) -> Path:
        return self.folder / RESULT / "model"

    @property
    def finished(self) -> Finished:
        last = self.said[-1]
        assert isinstance(last, Finished), last
        return last

    @property
    def failed(self) -> Failed:
        last = self.said[-1]
        assert isinstance(last, Failed), last
        return last

    @property
    def saved(self) -> list[Saved]:
        return [message for message in self.said if isinstance(message, Saved)]

    def values(self, name: str) -> list[float]:
        """A metric, each time that it was measured."""
        metrics = [message for message in self.said if isinstance(message, Metrics)]
        return [message.values[name] for message in metrics if name in message.values]

    def picture(self, name: str) -> Image.Image:
        """One of the files for the tenant."""
        assert name in [file.path for file in self.finished.files]
        opened = Image.open(self.folder / RESULT / "files" / name)
        opened.load()
        return opened

    def tensors(self) -> dict[str, torch.Tensor]:
        """Everything that is delivered, by file and name."""
        return {
            f"{path.relative_to(self.model)} {name}": tensor
            for path in sorted(self.model.rglob("*.safetensors"))
            for name, tensor in load_file(path).items()
        }


def tell(folder: Path) -> Told:
    """Runs the plan of the folder to its end."""
    status = run(folder, messages.read_plan(folder))
    lines = (folder / MESSAGES).read_bytes().splitlines()
    said = [messages.decode(line) for line in lines]
    assert status == int(isinstance(said[-1], Failed)), said[-1]
    return Told(folder, said)


def train_digits(folder: Path, recipe: str, steps: int, **plan: Any) -> Told:
    """On a few digits, for a few steps, evaluated at the last."""
    given = {"precision": "fp32", "batch_size": BATCH, "n_epochs": 50, "max_steps": steps}
    given |= plan.pop("hyperparameters", {})
    options = {"generate": 20, "evaluate_steps": steps, "seed": 3, **plan}
    return tell(plan_digits(folder, recipe, most=DIGITS, hyperparameters=given, **options))


def resumed(told: Told, step: int, folder: Path) -> Told:
    """The same training again, from its checkpoint of that step."""
    folder.mkdir()
    shutil.copytree(told.folder / messages.DATA, folder / messages.DATA)
    plan = json.loads((told.folder / messages.PLAN).read_bytes())
    kept = told.folder / messages.CHECKPOINTS / f"step-{step:08d}"
    (folder / messages.PLAN).write_text(json.dumps(plan | {"resume": str(kept)}))
    return tell(folder)


def assert_same_weights(one: Told, other: Told) -> None:
    mine, theirs = one.tensors(), other.tensors()
    assert mine.keys() == theirs.keys() != set()
    for name, tensor in mine.items():
        assert torch.equal(tensor, theirs[name]), name
