"""What recipes for pictures learn: to draw handwritten digits, and an image model a new style."""

from __future__ import annotations

import resource
from functools import cache
from typing import Any

from bench.beside import beside
from bench.report import Measurement
from bench.rig import Rig
from bench.tuning_runs import run_in
from tests.digits import measure_digits
from worker.tuning.messages import DATA, RESULT

STYLE_SEED = 5
QUICK_STEPS = 8
STYLE: dict[str, Any] = {"batch_size": 16, "n_epochs": 50, "max_steps": 300, "learning_rate": 2e-3}
"""Hyperparameters: so small an image model needs a larger rate than the recipe's own …"""
LORA: dict[str, Any] = {
    "rank": 16,
    "alpha": 32.0,
    "dropout": 0.0,
    "target_modules": [
        "to_q", "to_k", "to_v", "to_out.0", "ff.net.0.proj", "ff.net.2", "time_emb_proj",
    ],
}  # fmt: skip
"""… and all linear layers: its colours are not decided in its attention."""


def digits_diffusion(rig: Rig) -> Measurement:
    """The share of drawn digits that a classifier of real ones names as what they should be."""
    return _recognised(rig, "diffusion")


def digits_gan(rig: Rig) -> Measurement:
    """The same of those that a GAN has drawn."""
    return _recognised(rig, "gan")


def digits_vae(rig: Rig) -> Measurement:
    """The mean absolute error of held-out digits that went through the autoencoder, in pixels of
    0 to 1."""
    told = _digits(rig, "vae")
    sides = {which: told[which]["reconstruction_error"] for which in ("before", "after")}
    detail = {"unit": "of 1", "sides": sides, "psnr": told["after"]["psnr"]}
    return Measurement(sides["after"], detail | _about(told))


def style(rig: Rig) -> Measurement:
    """By how much the share of pictures of unseen names that are nearest to one in the new style
    grows."""
    told = _style(rig)
    return Measurement(told["sides"]["after"] - told["sides"]["before"], told)


def style_names(rig: Rig) -> Measurement:
    """The share of those whose nearest picture, of all names in both manners, has their name."""
    told = _style(rig)
    return Measurement(told["named"]["after"], told | {"sides": told["named"]})


def _recognised(rig: Rig, recipe: str) -> Measurement:
    told = _digits(rig, recipe)
    after = told["after"]
    names = ("recognised_of_real", "nearest_distance", "nearest_distance_of_real", "copies")
    sides = {"drawn": after["recognised"], "real": after["recognised_of_real"]}
    detail = {"unit": "recognised", "sides": sides, "pictures": after["pictures"]}
    return Measurement(
        after["recognised"], detail | {name: after[name] for name in names} | _about(told)
    )


def _digits(rig: Rig, recipe: str) -> dict[str, Any]:
    """A training on all 1,797 of scikit-learn."""
    steps = QUICK_STEPS if rig.quick else None
    began = _cpu_seconds()
    told = measure_digits(rig.folder("digits") / recipe, recipe, steps=steps)
    return told | {"cpu_seconds": _cpu_seconds() - began}


def _about(told: dict[str, Any]) -> dict[str, Any]:
    names = ("steps", "training_seconds", "seconds", "cpu_seconds")
    return {name: told[name] for name in names} | {"examples": told["trained_examples"]}


@cache
def _style(rig: Rig) -> dict[str, Any]:
    """One adapter on the starter image model. The process beside makes pictures and judges them."""
    folder = rig.folder("style")
    numbers = STYLE | ({"max_steps": QUICK_STEPS} if rig.quick else {})
    with beside(rig, "bench.tuning_styles", str(rig.image_model)) as studio:
        made = studio.ask(make=str(folder / DATA))
        trained = run_in(
            rig,
            folder,
            "text_to_image",
            base=str(rig.image_model),
            base_model="fluent-emoji",
            adapter="lora",
            lora=LORA,
            hyperparameters=numbers,
            generate=8,
            seed=STYLE_SEED,
        )
        before = studio.ask(judge="")
        after = studio.ask(judge=str(folder / RESULT / "model"))
    return {
        "unit": "share",
        "sides": {"before": before["styled"], "after": after["styled"]},
        "named": {"before": before["named"], "after": after["named"]},
        "valid_loss": trained.sides("valid_loss"),
        **made,
        **trained.about(),
    }


def _cpu_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime
