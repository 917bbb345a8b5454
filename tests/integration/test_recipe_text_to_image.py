"""The recipe ``text_to_image`` on tiny pipelines: adapters, all weights, three families."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import AutoPipelineForText2Image
from msgspec.structs import replace
from PIL import Image
from safetensors import safe_open

from tests.integration import image_case
from tests.integration.image_case import apart, drawn, row
from tests.integration.picture_recipe_case import (
    Told,
    assert_same_weights,
    one_thread,
    resumed,
    tell,
)
from tests.integration.tiny_diffusers import (
    SIDE,
    flux,
    save,
    stable_diffusion,
    stable_diffusion_3,
    stable_diffusion_xl,
)
from worker.recipes.picture_adapters import WEIGHTS
from worker.tuning.messages import DATA, TRAIN_DATA, VALIDATION_DATA, Plan, Started, write_plan

__all__ = ["one_thread"]

STEPS = 4
COLOURS = ["red", "green", "blue", "yellow", "black", "white"]


def v_prediction(folder: Path) -> Any:
    """As the project's own starter model has it."""
    from diffusers import DPMSolverMultistepScheduler

    pipeline = stable_diffusion(folder)
    pipeline.scheduler = DPMSolverMultistepScheduler(
        beta_schedule="squaredcos_cap_v2",
        prediction_type="v_prediction",
        timestep_spacing="trailing",
        steps_offset=1,
    )
    return pipeline


@pytest.fixture(scope="module", name="base")
def base_fixture(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save(tmp_path_factory.mktemp("base"), v_prediction)


def train(folder: Path, base: Path, steps: int = STEPS, **plan: Any) -> Told:
    (folder / DATA / "images").mkdir(parents=True)
    lines = []
    for place, colour in enumerate(COLOURS):
        path = f"images/{place:06}.png"
        image_case.picture(40, 48, colour).save(folder / DATA / path)
        lines.append(json.dumps({"image": path, "caption": f"a {colour} square"}) + "\n")
    (folder / DATA / TRAIN_DATA).write_text("".join(lines[:4]))
    (folder / DATA / VALIDATION_DATA).write_text("".join(lines[4:]))
    given = {"precision": "fp32", "batch_size": 2, "max_steps": steps, "learning_rate": 1e-2}
    given |= plan.pop("hyperparameters", {})
    options: dict[str, Any] = {"generate": 0, "evaluate_steps": steps, "seed": 3, **plan}
    write_plan(
        folder,
        Plan(
            recipe="text_to_image",
            model="ft:tiny",
            base=str(base),
            base_model="tiny",
            hyperparameters=given,
            **options,
        ),
    )
    return tell(folder)


@pytest.fixture(scope="module", name="told")
def told_fixture(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Told:
    folder = tmp_path_factory.mktemp("lora") / "a folder"
    lora = {"rank": 4, "alpha": 16.0}
    return train(folder, base, checkpoint_steps=STEPS // 2, generate=2, lora=lora)


def draw(pipeline: Any) -> torch.Tensor:
    pipeline.set_progress_bar_config(disable=True)
    made = pipeline(
        "a black square",
        num_inference_steps=3,
        generator=torch.Generator().manual_seed(1),
        output_type="pt",
    )
    return torch.as_tensor(made.images)


def test_it_learns(told: Told) -> None:
    before, after = told.values("valid_loss")
    assert after < before


def test_an_adapter_is_delivered_with_its_rank_and_alpha(told: Told) -> None:
    started = told.said[0]
    assert isinstance(started, Started)
    assert (started.engine, started.adapter) == ("image", True)
    assert 0 < started.detail["trainable"] < started.detail["parameters"] / 10
    assert started.hyperparameters["image_size"] == SIDE
    assert [path.name for path in told.model.iterdir()] == [WEIGHTS]
    with safe_open(told.model / WEIGHTS, "pt") as weights:
        config = json.loads(weights.metadata()["lora_adapter_metadata"])
        assert (config["unet.r"], config["unet.lora_alpha"]) == (4, 16.0)


def test_the_adapter_changes_what_the_base_model_draws(told: Told, base: Path) -> None:
    pipeline = AutoPipelineForText2Image.from_pretrained(base, local_files_only=True)
    plain = draw(pipeline)
    pipeline.load_lora_weights(told.model, weight_name=WEIGHTS, local_files_only=True)
    assert not torch.allclose(draw(pipeline), plain, atol=0.01)
    pipeline.disable_lora()
    assert torch.allclose(draw(pipeline), plain, atol=1e-5)


def test_the_image_engine_serves_the_adapter(told: Told, base: Path, tmp_path: Path) -> None:
    engine = image_case.load(base, tmp_path / "spool")
    tuned = {"adapter": str(told.model), "adapter_name": "ft:tiny"}
    results = image_case.run(engine, [row(0, seed=1), replace(row(1, seed=1), **tuned)])
    assert apart(drawn(results[0]), drawn(results[1])) > 0
    assert image_case.body_of(results[1])["model"] == "ft:tiny"


def test_a_resumed_training_ends_with_the_same_weights(told: Told, tmp_path: Path) -> None:
    assert_same_weights(told, resumed(told, STEPS // 2, tmp_path / "again"))


def test_captions_are_drawn_before_and_after(told: Told) -> None:
    before, after = (told.picture(f"samples-{which}.png") for which in ("before", "after"))
    assert before.size == after.size == (4 * SIDE + 3 * 4, SIDE)
    assert before.tobytes() != after.tobytes()
    assert "a black square" in (told.folder / "result" / "files" / "report.md").read_text()


def test_an_adapter_is_tuned_further(told: Told, base: Path, tmp_path: Path) -> None:
    again = train(tmp_path / "again", base, 1, base_adapter=str(told.model))
    assert again.values("valid_loss")[0] == pytest.approx(told.values("valid_loss")[-1], rel=1e-3)
    assert again.tensors().keys() == told.tensors().keys()


def test_the_text_encoder_is_trained_where_its_layers_are_named(base: Path, tmp_path: Path) -> None:
    lora = {"rank": 2, "alpha": 2.0, "target_modules": ["to_q", "q_proj"]}
    told = train(tmp_path / "text", base, 2, lora=lora)
    names = [name.split()[1] for name in told.tensors()]
    assert {name.split(".")[0] for name in names} == {"unet", "text_encoder"}
    moved = [name for name, tensor in told.tensors().items() if "up" in name and tensor.any()]
    assert any("text_encoder" in name for name in moved)
    pipeline = AutoPipelineForText2Image.from_pretrained(base, local_files_only=True)
    pipeline.load_lora_weights(told.model, weight_name=WEIGHTS, local_files_only=True)
    assert set(pipeline.get_list_adapters()) == {"unet", "text_encoder"}


def test_all_weights_are_a_pipeline_of_their_own(base: Path, tmp_path: Path) -> None:
    told = train(
        tmp_path / "full", base, 2, adapter="none", hyperparameters={"learning_rate": 1e-3}
    )
    assert told.values("valid_loss")[1] < told.values("valid_loss")[0]
    engine = image_case.load(told.model, tmp_path / "spool")
    results = image_case.run(engine, [row(0, seed=1)])
    assert drawn(results[0]).shape == (1, SIDE, SIDE, 3)
    started = told.said[0]
    assert isinstance(started, Started)
    assert not started.adapter


@pytest.mark.parametrize("family", [stable_diffusion, stable_diffusion_xl, stable_diffusion_3])
def test_other_families_are_trained_too(family: Callable[..., Any], tmp_path: Path) -> None:
    base = save(tmp_path / "base", family)
    told = train(tmp_path / "told", base, 10)
    assert told.values("valid_loss")[1] < told.values("valid_loss")[0]
    pipeline = AutoPipelineForText2Image.from_pretrained(base, local_files_only=True)
    plain = draw(pipeline)
    pipeline.load_lora_weights(told.model, weight_name=WEIGHTS, local_files_only=True)
    assert not torch.allclose(draw(pipeline), plain, atol=0.01)


def test_what_cannot_be_trained_is_refused(base: Path, tmp_path: Path) -> None:
    failed = train(tmp_path / "flux", save(tmp_path / "base", flux)).failed
    assert (failed.code, failed.blame, failed.param) == ("unsupported_model", "request", "model")
    failed = train(tmp_path / "none", tmp_path / "nothing").failed
    assert (failed.code, failed.blame, failed.param) == ("unsuitable_base", "request", "model")
    wrong = {"target_modules": ["to_q", "nothing_such"]}
    failed = train(tmp_path / "lora", base, lora=wrong).failed
    assert failed.code == "invalid_target_modules"
    assert "nothing_such" in failed.message
    failed = train(tmp_path / "size", base, hyperparameters={"image_size": 30}).failed
    assert failed.code == "invalid_image_size"


def test_pictures_of_any_shape_are_cut_to_the_models_size(base: Path, tmp_path: Path) -> None:
    folder = tmp_path / "told"
    told = train(folder, base, 1, hyperparameters={"image_size": 16})
    assert Image.open(folder / DATA / "images" / "000000.png").size == (40, 48)
    started = told.said[0]
    assert isinstance(started, Started)
    assert started.detail["image_size"] == "16x16"
