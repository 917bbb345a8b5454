"""Supervised fine-tuning: its speed against transformers' own Trainer, and what it learns."""

from __future__ import annotations

import json
import shutil
import time
from functools import cache
from pathlib import Path
from typing import Any

from bench.beside import beside
from bench.report import Measurement, median
from bench.rig import Rig
from shared.specs.fine_tuning import Checkpoints
from tests.data.tuning.make_house_style import TRAIN, UNSEEN, follows_house_style
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

BATCH, STEPS, WARM_STEPS = 8, 24, 4
LORA = {"rank": 16, "alpha": 32.0, "dropout": 0.0}
RATE = 2e-4
_RUNS_SECONDS = 3600.0


def steps_vs_trainer(rig: Rig) -> Measurement:
    """Our steps a second over those of a script on transformers' Trainer: same model, rows, order
    of magnitude of padding, LoRA, precision and optimizer; both without evaluation and saving."""
    steps = 8 if rig.quick else STEPS
    numbers = {"batch_size": BATCH, "max_steps": steps, "learning_rate": RATE}
    samples: dict[str, list[float]] = {"ours": [], "trainer": []}
    with beside(rig, "bench.bare_training", str(rig.text_model), str(TRAIN)) as trainer:
        for _ in range(rig.rounds):
            folder = _trained(rig, hyperparameters=numbers, evaluate_steps=steps, generate=0)
            samples["ours"].append(_steps_a_second(folder))
            asked = {"batch": BATCH, "steps": steps, "rate": RATE, "lora": LORA}
            found = trainer.ask(**asked, warm=WARM_STEPS, precision=_precision(folder))
            samples["trainer"].append(found)
    rates = {name: median(found) for name, found in samples.items()}
    return Measurement(
        rates["ours"] / rates["trainer"],
        {"unit": "steps/s", "sides": rates, "samples": samples, "batch": BATCH, "steps": steps},
    )


def checkpoint_cost(rig: Rig) -> Measurement:
    """Seconds that a checkpoint of all weights takes, over the time between two by default."""
    numbers = {"batch_size": 4, "max_steps": 5}
    folder = _trained(
        rig, hyperparameters=numbers, checkpoint_steps=1, adapter="none", generate=0,
        evaluate_steps=5,
    )  # fmt: skip
    seconds = [row["checkpoint_seconds"] for row in _history(folder) if "checkpoint_seconds" in row]
    between = Checkpoints().every_minutes * 60
    return Measurement(
        median(seconds) / between, {"unit": "s", "samples": seconds, "between_seconds": between}
    )


def house_style_after(rig: Rig) -> Measurement:
    """The share of 50 unseen requests that are answered in the house style after training."""
    told = _house_style(rig)
    return Measurement(told["after"], told)


def house_style_before(rig: Rig) -> Measurement:
    """The same share before the training."""
    told = _house_style(rig)
    return Measurement(told["before"], told)


def house_style_loss(rig: Rig) -> Measurement:
    """The validation loss after training, over the one before."""
    told = _house_style(rig)
    return Measurement(told["valid_loss"]["after"] / told["valid_loss"]["before"], told)


@cache
def _house_style(rig: Rig) -> dict[str, Any]:
    """One training with every hyperparameter left at ``auto``."""
    numbers = {"max_steps": 8} if rig.quick else {}
    began = time.monotonic()
    folder = _trained(rig, hyperparameters=numbers, generate=50)
    seconds = time.monotonic() - began
    lines = (folder / RESULT / "files" / "samples.jsonl").read_text(encoding="utf-8").splitlines()
    samples = [json.loads(line) for line in lines]
    finished = _finished(folder)
    losses = {name: finished.metrics[name]["valid_loss"] for name in ("before", "after")}
    return {
        "unit": "share",
        "valid_loss": losses,
        "seconds": seconds,
        "steps": finished.metrics["steps"],
        **{
            name: sum(follows_house_style(sample[name]) for sample in samples) / len(samples)
            for name in ("before", "after")
        },
    }


def _trained(rig: Rig, **plan: Any) -> Path:
    """The folder of a training of the starter text model on the house style."""
    folder = rig.folder("training")
    (folder / DATA).mkdir()
    shutil.copyfile(TRAIN, folder / DATA / TRAIN_DATA)
    shutil.copyfile(UNSEEN, folder / DATA / VALIDATION_DATA)
    base = str(rig.text_model)
    told = {"model": "ft:bench", "base": base, "base_model": "smollm2", "lora": LORA} | plan
    write_plan(folder, Plan(recipe="supervised", **told))
    with rig.process("training", "-m", "worker.recipes", str(folder)) as process:
        wait_until(lambda: not process.running, _RUNS_SECONDS)
    _finished(folder)
    return folder


def _finished(folder: Path) -> Finished:
    """Raises RuntimeError when the training did not end well."""
    messages = [decode(line) for line in (folder / MESSAGES).read_bytes().splitlines()]
    failed = [message for message in messages if isinstance(message, Failed)]
    if failed:
        raise RuntimeError(f"the training failed: {failed[0].message}")
    return next(message for message in messages if isinstance(message, Finished))


def _history(folder: Path) -> list[dict[str, Any]]:
    with (folder / "history.jsonl").open(encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


def _steps_a_second(folder: Path) -> float:
    rates = [row["examples_per_second"] for row in _history(folder) if row["step"] > WARM_STEPS]
    return len(rates) / sum(BATCH / rate for rate in rates)


def _precision(folder: Path) -> str:
    report = json.loads((folder / RESULT / "files" / "report.json").read_text(encoding="utf-8"))
    return str(report["hyperparameters"]["precision"])
