"""Tuned models on the image engine: rows that bring a LoRA of diffusers' layout along."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file

from tests.integration import tiny_diffusers
from tests.integration.image_case import apart, body_of, drawn, images, load, one_thread, row, run
from worker.engines.image import ImageEngine
from worker.engines.images.tuned import WEIGHTS
from worker.engines.protocol import Row

__all__ = ["one_thread"]

pytestmark = pytest.mark.filterwarnings("ignore:__array:DeprecationWarning")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_diffusers.save(tmp_path_factory.mktemp("tiny sd"), tiny_diffusers.stable_diffusion)


def make_lora(model: Path, target: Path, seed: int, alpha: int) -> Path:
    """As a recipe writes it: the weights, and their configuration in the header."""
    from diffusers import StableDiffusionPipeline
    from peft import LoraConfig
    from peft.utils import get_peft_model_state_dict

    torch.manual_seed(seed)
    pipeline: Any = StableDiffusionPipeline.from_pretrained(model)
    config = LoraConfig(r=4, lora_alpha=alpha, target_modules=["to_q", "to_v"])
    pipeline.unet.add_adapter(config)
    for name, weights in pipeline.unet.named_parameters():
        if "lora" in name:
            torch.nn.init.normal_(weights, std=2.0)
    pipeline.save_lora_weights(
        target,
        unet_lora_layers=get_peft_model_state_dict(pipeline.unet),
        unet_lora_adapter_metadata=pipeline.unet.peft_config["default"].to_dict(),
    )
    return target


@pytest.fixture(scope="module")
def loras(model: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("tiny loras")
    return [make_lora(model, folder / f"style {n}", n, alpha) for n, alpha in ((1, 4), (2, 2))]


@pytest.fixture(scope="module")
def engine(model: Path, tmp_path_factory: pytest.TempPathFactory) -> ImageEngine:
    return load(model, tmp_path_factory.mktemp("spool"), max_adapters=1)


def tuned(given: Row, folder: Path) -> Row:
    return Row(
        given.index, given.endpoint, given.body, given.id, {}, str(folder), f"ft:{folder.name}"
    )


def reference(model: Path, folder: Path, plain: Row) -> NDArray[np.int_]:
    """What diffusers' own pipeline draws with the adapter."""
    from diffusers import StableDiffusionPipeline

    body = json.loads(plain.body)
    pipeline: Any = StableDiffusionPipeline.from_pretrained(model)
    pipeline.load_lora_weights(folder, weight_name=WEIGHTS, adapter_name="a")
    pipeline.set_progress_bar_config(disable=True)
    made = pipeline(
        body["prompt"],
        num_inference_steps=4,
        generator=torch.Generator().manual_seed(body["seed"]),
        width=32,
        height=32,
    )
    return np.stack([np.asarray(image.convert("RGB")).astype(int) for image in made.images])


def test_rows_of_several_tuned_models_and_the_base(
    engine: ImageEngine, model: Path, loras: list[Path]
) -> None:
    """With room for one adapter, so that each of them is loaded, dropped and loaded again."""
    plain = [row(index, seed=8) for index in range(6)]
    rows = [
        plain[0],
        tuned(plain[1], loras[0]),
        tuned(plain[2], loras[1]),
        plain[3],
        tuned(plain[4], loras[0]),
        tuned(plain[5], loras[1]),
    ]
    results = run(engine, rows)
    pictures = {index: drawn(result) for index, result in results.items()}
    for one, other in ((0, 3), (1, 4), (2, 5)):
        assert apart(pictures[one], pictures[other]) <= 1
    for one, other in ((0, 1), (0, 2), (1, 2)):
        assert apart(pictures[one], pictures[other]) > 8
    for index, lora in ((1, loras[0]), (2, loras[1])):
        assert apart(pictures[index], reference(model, lora, plain[index])) <= 1
    names = {index: body_of(result)["model"] for index, result in results.items()}
    assert names == {
        0: "tiny",
        1: "ft:style 1",
        2: "ft:style 2",
        3: "tiny",
        4: names[1],
        5: names[2],
    }
    said = images(results[1])[0].provenance
    assert (said["model"], said["base_model"]) == ("ft:style 1", "tiny")
    assert len(said["model_adapter_sha256"]) == 64
    assert "base_model" not in images(results[0])[0].provenance


def test_the_base_alone_is_what_it_was(
    engine: ImageEngine, model: Path, loras: list[Path], tmp_path: Path
) -> None:
    run(engine, [tuned(row(0, seed=8), loras[0])])
    fresh = load(model, tmp_path / "spool")
    base = row(1, seed=8)
    assert apart(drawn(run(engine, [base])[1]), drawn(run(fresh, [base])[1])) <= 1


def test_a_tuned_model_takes_the_adapters_of_the_catalog_too(
    model: Path, loras: list[Path], tmp_path: Path
) -> None:
    both = load(model, tmp_path / "spool", adapters={"style": {"source": str(loras[1])}})
    one = row(0, seed=8)
    two = row(1, seed=8, adapter="style", adapter_weight=0.5)
    results = run(both, [tuned(one, loras[0]), tuned(two, loras[0]), replaced(two, 2)])
    made = [drawn(results[index]) for index in range(3)]
    assert all(apart(made[a], made[b]) > 1 for a, b in ((0, 1), (1, 2), (0, 2)))


def replaced(given: Row, index: int) -> Row:
    return Row(index, given.endpoint, given.body, f"job_1-{index}")


# --- what is refused --------------------------------------------------------------------------


def refused(engine: ImageEngine, folder: Path) -> str:
    """Of a row with that adapter; one of the base beside it is drawn all the same."""
    results = run(engine, [tuned(row(0, seed=8), folder), row(1, seed=8)])
    assert results[1].status == 200
    assert results[0].status == 500
    error = body_of(results[0])["error"]
    assert error["code"] == "adapter_unusable"
    message: str = error["message"]
    return message


def rewritten(lora: Path, target: Path, **settings: Any) -> Path:
    """A copy whose header says something else."""
    shutil.copytree(lora, target)
    file = target / WEIGHTS
    header = {"lora_adapter_metadata": json.dumps(settings), "format": "pt"}
    save_file(load_file(file), file, metadata=header)
    return target


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"unet.auto_mapping": {"parent_library": "os"}}, "auto_mapping"),
        ({"unet.megatron_config": {"a": 1}, "unet.megatron_core": "os"}, "megatron_co"),
        ({"unet.use_dora": True}, "use_dora"),
        ({"unet.target_modules": "(a+)+$"}, "target_modules"),
        ({"unet.rank_pattern": {"(a+)+$": 4}}, "rank_pattern"),
    ],
)
def test_a_header_that_says_more_than_a_plain_lora_is_refused(
    engine: ImageEngine, loras: list[Path], tmp_path: Path, settings: dict[str, Any], said: str
) -> None:
    assert said in refused(engine, rewritten(loras[0], tmp_path / "copied", **settings))


def test_files_that_are_no_lora_of_the_model_are_refused(
    engine: ImageEngine, loras: list[Path], tmp_path: Path
) -> None:
    copied = Path(shutil.copytree(loras[0], tmp_path / "copied"))
    before = drawn(run(engine, [row(0, seed=8)])[0])
    save_file({"unet.nothing.lora_A.weight": torch.ones(2, 2)}, copied / WEIGHTS)
    assert "model" in refused(engine, copied)
    (copied / WEIGHTS).write_bytes(b"\x80\x04pickled")
    assert "cannot be read" in refused(engine, copied)
    (copied / WEIGHTS).unlink()
    assert "cannot be read" in refused(engine, copied)
    (copied / "pytorch_lora_weights.bin").write_bytes(b"\x80\x04pickled")
    assert "of a kind that is not read" in refused(engine, copied)
    assert apart(drawn(run(engine, [row(0, seed=8)])[0]), before) <= 1
