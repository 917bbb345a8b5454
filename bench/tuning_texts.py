"""What fine-tuning of language models learns: a house style, and preferences between answers."""

from __future__ import annotations

from functools import cache
from typing import Any

from bench.report import Measurement
from bench.rig import Rig
from bench.tuning_runs import Run, run, write_rows
from tests.data.tuning.make_house_style import TRAIN, UNSEEN, follows_house_style
from tests.integration.text_recipe_case import preferences

LORA = {"rank": 16, "alpha": 32.0, "dropout": 0.0}
"""The sizes of a job that gives none."""
ANSWERED = 50
FULL_STEPS, DPO_SEED = 200, 7
_SCORES = ("bleu", "rouge1", "rouge2", "rougeL")


def house_style_after(rig: Rig) -> Measurement:
    """The share of 50 unseen requests that are answered in the house style after training."""
    told = _house_style(rig)
    return Measurement(told["style"]["after"], told)


def house_style_before(rig: Rig) -> Measurement:
    """The same share before the training."""
    told = _house_style(rig)
    return Measurement(told["style"]["before"], told)


def house_style_loss(rig: Rig) -> Measurement:
    """The validation loss after training, over the one before."""
    told = _house_style(rig)
    return _fall(told["valid_loss"], told)


def full_weights_loss(rig: Rig) -> Measurement:
    """The same on all weights, for some hundred steps of few examples."""
    steps = 4 if rig.quick else FULL_STEPS
    trained = supervised(
        rig,
        adapter="none",
        hyperparameters={"batch_size": 4, "max_steps": steps, "n_epochs": 10},
        generate=0,
        evaluate_steps=steps // 2,
        checkpoint_minutes=60.0,
    )
    return _fall(trained.sides("valid_loss"), trained.about())


def dpo_accuracy(rig: Rig) -> Measurement:
    """By how much the share of held-out pairs whose preferred answer the model finds likelier
    grows."""
    folder = rig.folder("preferences")
    files = {
        name: write_rows(folder / f"{name}.jsonl", preferences(source))
        for name, source in (
            ("train", "preferences.jsonl"), ("validation", "preferences_held_out.jsonl"),
        )
    }  # fmt: skip
    numbers = {"max_steps": 2} if rig.quick else {}
    trained = run(
        rig, "dpo", **files, **base(rig), hyperparameters=numbers, generate=0, seed=DPO_SEED
    )
    sides = trained.sides("valid_preference_accuracy")
    return Measurement(
        sides["after"] - sides["before"],
        {
            "unit": "accuracy",
            "sides": sides,
            "rewards_accuracy": trained.sides("valid_rewards_accuracy"),
            "rewards_margin": trained.sides("valid_rewards_margin"),
            **trained.about(),
        },
    )


@cache
def _house_style(rig: Rig) -> dict[str, Any]:
    """One training with every hyperparameter left at ``auto``."""
    trained = supervised(
        rig, hyperparameters={"max_steps": 8} if rig.quick else {}, generate=ANSWERED
    )
    samples = trained.samples
    style = {
        which: sum(follows_house_style(sample[which]) for sample in samples) / len(samples)
        for which in ("before", "after")
    }
    return {
        "unit": "share",
        "sides": style,
        "style": style,
        "valid_loss": trained.sides("valid_loss"),
        "scores": {name: trained.sides(name) for name in _SCORES},
        "samples": samples[:3],
        **trained.about(),
    }


def supervised(rig: Rig, **plan: Any) -> Run:
    """A training of the starter text model on the house style."""
    return run(rig, "supervised", train=TRAIN, validation=UNSEEN, **(base(rig) | plan))


def base(rig: Rig) -> dict[str, Any]:
    """Of a plan: the starter text model, and the adapter of a job that says nothing of it."""
    return {"base": str(rig.text_model), "base_model": "smollm2-135m-instruct", "lora": LORA}


def _fall(losses: dict[str, float], told: dict[str, Any]) -> Measurement:
    return Measurement(
        losses["after"] / losses["before"], told | {"unit": "nats a token", "sides": losses}
    )
