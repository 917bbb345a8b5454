"""Trainings as a worker starts them, in a process of their own, and what they told."""

from __future__ import annotations

import json
import resource
import shutil
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.rig import Rig
from tests.plant import wait_until
from worker.tuning.messages import (
    DATA,
    MESSAGES,
    RESULT,
    TRAIN_DATA,
    VALIDATION_DATA,
    Failed,
    Finished,
    Plan,
    decode,
    write_plan,
)

SECONDS = 3600.0
"""After which a training is given up."""


@dataclass(frozen=True, slots=True)
class Run:
    """A training that ended well."""

    folder: Path
    finished: Finished
    seconds: float
    """From start to end, loading and reports included."""
    cpu_seconds: float
    """Of all its threads, the system's part included: halved, about what two idle cores take."""

    @property
    def files(self) -> Path:
        """What the tenant would get beside the model."""
        return self.folder / RESULT / "files"

    @property
    def history(self) -> list[dict[str, Any]]:
        """The numbers of every step."""
        with (self.folder / "history.jsonl").open(encoding="utf-8") as lines:
            return [json.loads(line) for line in lines]

    @property
    def report(self) -> dict[str, Any]:
        told: dict[str, Any] = json.loads((self.files / "report.json").read_text(encoding="utf-8"))
        return told

    @property
    def samples(self) -> list[dict[str, str]]:
        """Of a text model: ``prompt``, ``wanted``, and the answers ``before`` and ``after``."""
        lines = (self.files / "samples.jsonl").read_text(encoding="utf-8").splitlines()
        return [json.loads(line) for line in lines]

    def sides(self, metric: str) -> dict[str, float]:
        """A number of the held-out examples, before and after."""
        told = self.finished.metrics
        return {which: float(told[which][metric]) for which in ("before", "after")}

    def about(self) -> dict[str, Any]:
        """For a figure's detail: what the training was, and what it took."""
        told = self.finished.metrics
        return {
            "steps": told["steps"],
            "training_seconds": told["training_seconds"],
            "seconds": self.seconds,
            "cpu_seconds": self.cpu_seconds,
            "hyperparameters": self.report["hyperparameters"],
        }


def run(rig: Rig, recipe: str, *, train: Path, validation: Path, **plan: Any) -> Run:
    """A training on files whose lines are rows as the recipe reads them; ``plan`` as
    ``worker.tuning.messages.Plan``. Raises RuntimeError when it does not end well."""
    folder = rig.folder("training")
    (folder / DATA).mkdir()
    shutil.copyfile(train, folder / DATA / TRAIN_DATA)
    shutil.copyfile(validation, folder / DATA / VALIDATION_DATA)
    return run_in(rig, folder, recipe, **plan)


def run_in(rig: Rig, folder: Path, recipe: str, **plan: Any) -> Run:
    """The same, in a folder that has its data already."""
    write_plan(folder, Plan(recipe=recipe, **({"model": f"ft:bench:{recipe}"} | plan)))
    before, began = _cpu_seconds(), time.monotonic()
    with rig.process("training-log", "-m", "worker.recipes", str(folder)) as process:
        wait_until(lambda: not process.running, SECONDS)
    seconds = time.monotonic() - began
    return Run(folder, _finished(folder), seconds, _cpu_seconds() - before)


def write_rows(path: Path, rows: Iterable[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def _finished(folder: Path) -> Finished:
    said = (folder / MESSAGES).read_bytes().splitlines() if (folder / MESSAGES).exists() else []
    messages = [decode(line) for line in said]
    failed = [message for message in messages if isinstance(message, Failed)]
    if failed:
        raise RuntimeError(f"the training failed: {failed[0].code}: {failed[0].message}")
    if not messages or not isinstance(messages[-1], Finished):
        raise RuntimeError("the training ended without a word")
    return messages[-1]


def _cpu_seconds() -> float:
    """Of all children that have ended, and theirs."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime
