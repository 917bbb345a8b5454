"""The recipe ``gan``: two networks and two optimizers, a few steps long."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch

from tests.digits import CLASSES
from tests.integration.picture_recipe_case import (
    Told,
    assert_same_weights,
    one_thread,
    resumed,
    train_digits,
)
from worker.engines.samplers.drawing import seeded
from worker.engines.samplers.loading import load_sampler
from worker.engines.samplers.manifest import read_manifest
from worker.recipes.discriminator import Discriminator, widths_for

__all__ = ["one_thread"]

STEPS = 12


@pytest.fixture(scope="module", name="told")
def told_fixture(tmp_path_factory: pytest.TempPathFactory) -> Told:
    folder = tmp_path_factory.mktemp("gan") / "a folder"
    rate = {"learning_rate": 1e-3}
    return train_digits(folder, "gan", STEPS, checkpoint_steps=STEPS // 2, hyperparameters=rate)


def test_both_losses_are_told(told: Told) -> None:
    for name in ("generator_loss", "discriminator_loss"):
        values = told.values(name)
        assert values
        assert all(math.isfinite(value) and value > 0 for value in values)
    for name in ("generator_grad_norm", "discriminator_grad_norm"):
        assert all(value > 0 for value in told.values(name))


def test_drawn_pictures_come_nearer_to_real_ones(told: Told) -> None:
    before, after = told.values("valid_loss")
    assert after < before


def test_a_resumed_training_ends_with_the_same_weights(told: Told, tmp_path: Path) -> None:
    assert_same_weights(told, resumed(told, STEPS // 2, tmp_path / "again"))


def test_the_generator_is_delivered_alone(told: Told) -> None:
    assert read_manifest(told.model).classes == CLASSES
    assert {path.name for path in (told.model / "generator").iterdir()} == {
        "config.json",
        "model.safetensors",
    }
    sampler = load_sampler(told.model, torch.device("cpu"), torch.float32)
    drawn = sampler.draw([3, 7], seeded([1, 2]), steps=1, guidance=1.0)
    assert drawn.shape == (2, 1, 8, 8)
    assert not torch.equal(drawn[0], drawn[1])
    assert torch.equal(drawn, sampler.draw([3, 7], seeded([1, 2]), steps=1, guidance=1.0))


def test_pictures_without_labels(tmp_path: Path) -> None:
    told = train_digits(tmp_path / "plain", "gan", 2, labels=[], generate=4)
    assert read_manifest(told.model).classes == []
    assert told.picture("samples-after.png").size == (4 * 68, 68)


@pytest.mark.parametrize("number", [1, 3, 4, 7])
@pytest.mark.parametrize("side", [8, 28, 64])
def test_any_number_of_pictures_of_any_size_is_judged(side: int, number: int) -> None:
    judge = Discriminator(side, 3, 2)
    pictures = torch.randn(number, 3, side, side)
    assert judge(pictures, torch.zeros(number, dtype=torch.int64)).shape == (number,)


def test_larger_pictures_have_more_levels() -> None:
    assert widths_for(8) == [64, 64]
    assert len(widths_for(64)) == 5
