"""The recipe ``diffusion``: a denoiser of digits, a few steps long."""

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
from worker.engines.samplers.drawing import seeded
from worker.engines.samplers.loading import load_sampler
from worker.engines.samplers.manifest import read_manifest
from worker.tuning.messages import Started

__all__ = ["one_thread"]

STEPS = 12


@pytest.fixture(scope="module", name="told")
def told_fixture(tmp_path_factory: pytest.TempPathFactory) -> Told:
    folder = tmp_path_factory.mktemp("diffusion") / "a folder"
    return train_digits(folder, "diffusion", STEPS, checkpoint_steps=STEPS // 2)


def test_it_learns(told: Told) -> None:
    before, after = told.values("valid_loss")
    assert after < 0.8 * before
    assert told.finished.metrics["after"]["valid_loss"] == pytest.approx(after)


def test_what_it_chose_is_said(told: Told) -> None:
    started = told.said[0]
    assert isinstance(started, Started)
    assert (started.engine, started.adapter) == ("sampler", False)
    assert started.hyperparameters["image_size"] == 8
    assert started.detail["classes"] == 10
    assert started.detail["channels"] == 1


def test_pictures_are_drawn_before_and_after(told: Told) -> None:
    for name in ("samples-before.png", "samples-after.png"):
        assert told.picture(name).height == 10 * 68
    assert told.picture("nearest.png").size == (10 * 68, 2 * 68)
    after = told.finished.metrics["after"]
    assert after["pictures"] == 20
    assert 0 <= after["recognised"] <= 1
    assert after["recognised_of_real"] > 0.5
    assert after["nearest_distance"] > 0
    report = (told.folder / "result" / "files" / "report.md").read_text()
    assert "nearest training picture" in report


def test_a_resumed_training_ends_with_the_same_weights(told: Told, tmp_path: Path) -> None:
    assert_same_weights(told, resumed(told, STEPS // 2, tmp_path / "again"))


def test_checkpoints_and_the_result_can_be_drawn_with(told: Told) -> None:
    for folder in (told.model, *(Path(saved.folder) / "model" for saved in told.saved)):
        manifest = read_manifest(folder)
        assert manifest.classes == CLASSES
        assert (manifest.kind, manifest.image_size, manifest.channels) == ("diffusion", 8, 1)
        sampler = load_sampler(folder, torch.device("cpu"), torch.float32)
        drawn = sampler.draw([3, 7], seeded([1, 2]), steps=2, guidance=2.0)
        assert drawn.shape == (2, 1, 8, 8)
        assert drawn.std() > 0.05
    assert len(told.saved) == 2


def test_it_goes_on_from_an_earlier_model(told: Told, tmp_path: Path) -> None:
    again = train_digits(tmp_path / "again", "diffusion", 1, base=str(told.model), generate=0)
    assert again.values("valid_loss")[0] == pytest.approx(told.values("valid_loss")[-1], rel=1e-3)


def test_a_base_of_another_recipe_is_refused(told: Told, tmp_path: Path) -> None:
    failed = train_digits(tmp_path / "gan", "gan", 1, base=str(told.model)).failed
    assert (failed.code, failed.blame, failed.param) == ("unsuitable_base", "request", "model")


def test_pictures_without_labels(tmp_path: Path) -> None:
    told = train_digits(tmp_path / "plain", "diffusion", 2, labels=[], generate=4)
    assert read_manifest(told.model).classes == []
    assert "recognised" not in told.finished.metrics["after"]
    sampler = load_sampler(told.model, torch.device("cpu"), torch.float32)
    assert sampler.draw([0], seeded([1]), steps=2, guidance=1.0).shape == (1, 1, 8, 8)


def test_pictures_are_scaled_to_the_size_asked_for(tmp_path: Path) -> None:
    told = train_digits(
        tmp_path / "large", "diffusion", 1, generate=0, hyperparameters={"image_size": 12}
    )
    assert read_manifest(told.model).image_size == 12


def test_a_size_that_cannot_be_halved_is_refused(tmp_path: Path) -> None:
    failed = train_digits(
        tmp_path / "odd", "diffusion", 1, hyperparameters={"image_size": 9}
    ).failed
    assert failed.code == "invalid_image_size"
    assert failed.param == "hyperparameters.image_size"
