"""The speed of fine-tuning: against transformers' own Trainer, and what a checkpoint costs."""

from __future__ import annotations

from bench.beside import beside
from bench.report import Measurement, median
from bench.rig import Rig
from bench.tuning_runs import Run
from bench.tuning_texts import LORA, supervised
from shared.specs.fine_tuning import Checkpoints
from tests.data.tuning.make_house_style import TRAIN

BATCH, STEPS, WARM_STEPS = 8, 24, 4
RATE = 2e-4


def steps_vs_trainer(rig: Rig) -> Measurement:
    """Our steps a second over those of a script on transformers' Trainer: same model, rows, order
    of magnitude of padding, LoRA, precision and optimizer; both without evaluation and saving."""
    steps = 8 if rig.quick else STEPS
    numbers = {"batch_size": BATCH, "max_steps": steps, "learning_rate": RATE}
    samples: dict[str, list[float]] = {"ours": [], "trainer": []}
    with beside(rig, "bench.bare_training", str(rig.text_model), str(TRAIN)) as trainer:
        for _ in range(rig.rounds):
            trained = supervised(rig, hyperparameters=numbers, evaluate_steps=steps, generate=0)
            samples["ours"].append(steps_a_second(trained))
            asked = {"batch": BATCH, "steps": steps, "rate": RATE, "lora": LORA}
            asked["precision"] = trained.report["hyperparameters"]["precision"]
            samples["trainer"].append(trainer.ask(**asked, warm=WARM_STEPS))
    rates = {name: median(found) for name, found in samples.items()}
    return Measurement(
        rates["ours"] / rates["trainer"],
        {"unit": "steps/s", "sides": rates, "samples": samples, "batch": BATCH, "steps": steps},
    )


def checkpoint_cost(rig: Rig) -> Measurement:
    """Seconds that a checkpoint of all weights takes, over the time between two by default."""
    numbers = {"batch_size": 4, "max_steps": 5}
    trained = supervised(
        rig, hyperparameters=numbers, checkpoint_steps=1, adapter="none", generate=0,
        evaluate_steps=5,
    )  # fmt: skip
    seconds = [row["checkpoint_seconds"] for row in trained.history if "checkpoint_seconds" in row]
    between = Checkpoints().every_minutes * 60
    return Measurement(
        median(seconds) / between, {"unit": "s", "samples": seconds, "between_seconds": between}
    )


def steps_a_second(trained: Run) -> float:
    """Whatever comes between two steps counts, as it does on the other side."""
    began, ended = (_elapsed(trained, step) for step in (WARM_STEPS, trained.finished.step - 1))
    return (trained.finished.step - 1 - WARM_STEPS) / (ended - began)


def _elapsed(trained: Run, step: int) -> float:
    """Seconds from the first step's beginning, out of what was left to go by the pace so far."""
    steps = trained.finished.step
    (left,) = (row["eta_seconds"] for row in trained.history if row["step"] == step)
    return float(left) * step / (steps - step)
