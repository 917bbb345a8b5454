"""The loop: resuming changes nothing, checkpoints belong to one training, rates rise and fall."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from starter_image import autoencoder
from starter_image.autoencoder import AutoencoderLoss
from starter_image.checkpoints import CheckpointError
from starter_image.dataset import Dataset
from starter_image.plan import Plan
from starter_image.progress import Progress, in_words
from starter_image.training import LANES, Schedule, Training, generator_of, rows_of


def silent(line: str) -> None:
    pass


def weights(module: nn.Module) -> torch.Tensor:
    return torch.cat([weight.detach().flatten() for weight in module.parameters()])


def training_of(dataset: Dataset, plan: Plan, fingerprint: str = "") -> tuple[nn.Module, Training]:
    torch.manual_seed(1)
    vae = autoencoder.build(plan.autoencoder)
    loss = AutoencoderLoss(vae, dataset, plan.autoencoder, seed=1)
    return vae, Training("tiny", vae, loss, plan.autoencoder.schedule, fingerprint)


def test_a_resumed_training_takes_the_steps_of_an_uninterrupted_one(
    dataset: Dataset, plan: Plan, tmp_path: Path
) -> None:
    whole, training = training_of(dataset, plan)
    expected = training.run(tmp_path / "whole.safetensors", silent)

    _, before = training_of(dataset, plan)
    before.run(tmp_path / "parts.safetensors", silent, stop_at=1)
    resumed, after = training_of(dataset, plan)
    outcome = after.run(tmp_path / "parts.safetensors", silent)

    assert torch.allclose(outcome.losses, expected.losses, rtol=1e-5)
    assert torch.allclose(weights(resumed), weights(whole), rtol=1e-5, atol=1e-7)
    untrained, _ = training_of(dataset, plan)
    assert not torch.allclose(weights(resumed), weights(untrained), rtol=1e-5, atol=1e-7)


def test_a_finished_training_is_read_and_not_done_again(
    dataset: Dataset, plan: Plan, tmp_path: Path
) -> None:
    path = tmp_path / "done.safetensors"
    first, training = training_of(dataset, plan)
    outcome = training.run(path, silent)
    written = path.read_bytes()
    lines: list[str] = []

    second, again = training_of(dataset, plan)
    repeated = again.run(path, lines.append)

    assert path.read_bytes() == written
    assert torch.equal(weights(first), weights(second))
    assert repeated.seconds == outcome.seconds
    assert lines == ["tiny: 3 of 3 steps were done"]


def test_a_checkpoint_of_another_training_is_refused(
    dataset: Dataset, plan: Plan, tmp_path: Path
) -> None:
    path = tmp_path / "one.safetensors"
    training_of(dataset, plan, "one")[1].run(path, silent)

    with pytest.raises(CheckpointError, match="another training"):
        training_of(dataset, plan, "two")[1].run(path, silent)


def test_a_damaged_checkpoint_is_named(dataset: Dataset, plan: Plan, tmp_path: Path) -> None:
    path = tmp_path / "damaged.safetensors"
    path.write_bytes(b"nothing")

    with pytest.raises(CheckpointError, match=r"damaged\.safetensors"):
        training_of(dataset, plan)[1].run(path, silent)


@pytest.mark.parametrize(("stop_at", "continues"), [(2, True), (4, False)])
def test_more_steps_may_be_asked_for_until_the_rate_falls(
    dataset: Dataset, plan: Plan, tmp_path: Path, stop_at: int, continues: bool
) -> None:
    path = tmp_path / "longer.safetensors"
    vae = plan.autoencoder
    planned = [
        replace(
            plan, autoencoder=replace(vae, schedule=replace(vae.schedule, steps=n, falling=0.5))
        )
        for n in (6, 8)
    ]
    training_of(dataset, planned[0])[1].run(path, silent, stop_at=stop_at)
    _, longer = training_of(dataset, planned[1])

    if continues:
        assert longer.run(path, silent).losses.count_nonzero() == 8
    else:
        with pytest.raises(CheckpointError):
            longer.run(path, silent)


def test_the_rate_rises_holds_and_falls() -> None:
    schedule = Schedule(steps=100, seed=0, peak_rate=1.0, warmup=10, falling=0.4)

    rates = [schedule.rate(step) for step in range(100)]

    assert rates[0] == pytest.approx(0.1)
    assert rates[9:60] == pytest.approx([1.0] * 51)
    assert rates[60:] == sorted(rates[60:], reverse=True)
    assert 0.01 <= rates[-1] < 0.02


def test_rows_come_once_an_epoch_in_a_new_order() -> None:
    taken = torch.cat([rows_of(10, 4, seed=1, step=step) for step in range(5)])

    assert sorted(taken[:10].tolist()) == list(range(10))
    assert sorted(taken[10:].tolist()) == list(range(10))
    assert taken[:10].tolist() != taken[10:].tolist()


def test_each_step_and_lane_has_random_numbers_of_its_own() -> None:
    drawn = {
        torch.rand((), generator=generator_of(7, step, lane)).item()
        for step in range(10)
        for lane in range(LANES)
    }

    assert len(drawn) == 10 * LANES


def test_progress_says_what_is_left() -> None:
    times = iter([0.0, 5.0, 10.0, 15.0])
    lines: list[str] = []
    progress = Progress("tiny", 100, lines.append, clock=lambda: next(times), every_seconds=10.0)

    for step, loss in ((41, 1.0), (42, 2.0), (43, 6.0)):
        progress.add(step, loss)

    assert lines == ["tiny: step 42 of 100, loss 1.5000, 4 min 50 s left"]
    assert [in_words(seconds) for seconds in (41.6, 425, 4320)] == [
        "42 s",
        "7 min 5 s",
        "1 h 12 min",
    ]
