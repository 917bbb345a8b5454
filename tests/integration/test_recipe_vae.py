"""The recipe ``vae``: an autoencoder that can draw, a few steps long."""

from __future__ import annotations

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
from worker.engines.samplers.drawing import VaeSampler, seeded
from worker.engines.samplers.loading import load_sampler
from worker.engines.samplers.manifest import read_manifest
from worker.recipes.vae import FULL_COVARIANCE, edge_error, latent_statistics

__all__ = ["one_thread"]

STEPS = 12


@pytest.fixture(scope="module", name="told")
def told_fixture(tmp_path_factory: pytest.TempPathFactory) -> Told:
    folder = tmp_path_factory.mktemp("vae") / "a folder"
    return train_digits(folder, "vae", STEPS, checkpoint_steps=STEPS // 2)


def test_it_learns_to_reconstruct(told: Told) -> None:
    before, after = told.finished.metrics["before"], told.finished.metrics["after"]
    assert after["valid_loss"] < 0.8 * before["valid_loss"]
    assert after["reconstruction_error"] < before["reconstruction_error"]
    assert after["psnr"] > before["psnr"]


def test_every_part_of_the_loss_is_told(told: Told) -> None:
    for name in ("reconstruction", "edge", "kl"):
        assert all(value > 0 for value in told.values(name))


def test_reconstructions_are_shown(told: Told) -> None:
    shown = told.picture("reconstructions-after.png")
    assert shown.height == 2 * 68
    assert told.picture("samples-after.png").height == 10 * 68


def test_a_resumed_training_ends_with_the_same_weights(told: Told, tmp_path: Path) -> None:
    assert_same_weights(told, resumed(told, STEPS // 2, tmp_path / "again"))


def test_the_result_draws_classes(told: Told) -> None:
    assert read_manifest(told.model).classes == CLASSES
    sampler = load_sampler(told.model, torch.device("cpu"), torch.float32)
    assert isinstance(sampler, VaeSampler)
    drawn = sampler.draw([3, 7], seeded([1, 1]))
    assert drawn.shape == (2, 1, 8, 8)
    assert not torch.equal(drawn[0], drawn[1])


def test_pictures_without_labels(tmp_path: Path) -> None:
    told = train_digits(tmp_path / "plain", "vae", 2, labels=[], generate=4)
    sampler = load_sampler(told.model, torch.device("cpu"), torch.float32)
    assert sampler.draw([0], seeded([1]), steps=1, guidance=1.0).shape == (1, 1, 8, 8)


def test_latents_drawn_after_the_statistics_are_like_those_they_were_taken_from() -> None:
    torch.manual_seed(0)
    turn = torch.tensor([[1.0, 0.0], [0.9, 0.3]])
    encoded = torch.cat([torch.randn(4000, 2) @ turn.T, 5 + torch.randn(4000, 2)])
    classes = torch.arange(2).repeat_interleave(4000)
    mean, spread = latent_statistics(encoded.view(-1, 2, 1, 1), classes, 2)
    drawn = mean[0].flatten() + torch.randn(4000, 2) @ spread[0].T
    assert torch.allclose(drawn.T.cov(), encoded[:4000].T.cov(), atol=0.1)
    assert torch.allclose(mean[1].flatten(), torch.tensor([5.0, 5.0]), atol=0.1)


def test_large_latents_have_deviations_only() -> None:
    width = FULL_COVARIANCE + 1
    encoded = 3 * torch.randn(500, width, 1, 1, generator=torch.Generator().manual_seed(0))
    mean, spread = latent_statistics(encoded, torch.zeros(500, dtype=torch.int64), 1)
    assert mean.shape == spread.shape == (1, width, 1, 1)
    assert float(spread.mean()) == pytest.approx(3, rel=0.05)


def test_the_edge_error_sees_what_the_mean_does_not() -> None:
    flat = torch.zeros(1, 1, 4, 4)
    striped = torch.tensor([0.5, -0.5]).repeat(2).expand(1, 1, 4, 4)
    assert edge_error(flat, flat + 0.5) == 0
    assert edge_error(flat, striped) == pytest.approx(0.5)
