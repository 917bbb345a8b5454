"""The sampler engine, on small models with random weights: what it takes, draws and refuses."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from tests.integration.image_case import (
    GENERATIONS,
    apart,
    body_of,
    drawn,
    finish,
    images,
    one_thread,
    refused,
    run,
)
from worker.engines.base import EngineFailed
from worker.engines.image import ImageEngine
from worker.engines.protocol import Load, Row
from worker.engines.registry import create_engine
from worker.engines.samplers.generator import Generator, GeneratorShape, save_generator
from worker.engines.samplers.loading import write_latents
from worker.engines.samplers.manifest import MANIFEST, Manifest, write_manifest
from worker.recipes.diffusion import make_scheduler

__all__ = ["one_thread"]

NAMES = ["boat", "house", "tug boat"]
CLASSES = len(NAMES)


def diffusion(folder: Path, classes: int = CLASSES) -> None:
    from diffusers import UNet2DModel

    unet = UNet2DModel(
        sample_size=8,
        in_channels=1,
        out_channels=1,
        down_block_types=["DownBlock2D", "DownBlock2D"],
        up_block_types=["UpBlock2D", "UpBlock2D"],
        block_out_channels=(8, 8),
        layers_per_block=1,
        norm_num_groups=4,
        num_class_embeds=classes + 1 if classes else None,
    )
    if classes:
        torch.nn.init.normal_(unet.class_embedding.weight, std=3)
    unet.save_pretrained(folder / "unet")
    make_scheduler().save_pretrained(folder / "scheduler")
    steps = {"steps": 4, "guidance": 2.0 if classes else 1.0}
    manifest = Manifest(
        kind="diffusion", classes=NAMES[:classes], image_size=8, channels=1, **steps
    )
    write_manifest(folder, manifest)


def gan(folder: Path, classes: int = CLASSES) -> None:
    shape = GeneratorShape(image_size=8, channels=3, classes=classes, latent=8, widths=[8, 8])
    save_generator(Generator(shape), folder / "generator")
    write_manifest(folder, Manifest(kind="gan", classes=NAMES[:classes], image_size=8, channels=3))


def vae(folder: Path, classes: int = CLASSES) -> None:
    from diffusers import AutoencoderKL

    AutoencoderKL(
        block_out_channels=(8, 8),
        down_block_types=["DownEncoderBlock2D"] * 2,
        up_block_types=["UpDecoderBlock2D"] * 2,
        latent_channels=2,
        norm_num_groups=4,
        sample_size=8,
    ).save_pretrained(folder / "vae")
    places = max(1, classes)
    write_latents(folder, 3 * torch.randn(places, 2, 4, 4), torch.eye(32).repeat(places, 1, 1))
    write_manifest(folder, Manifest(kind="vae", classes=NAMES[:classes], image_size=8, channels=3))


MAKERS: dict[str, Callable[..., None]] = {"diffusion": diffusion, "gan": gan, "vae": vae}


def make(kind: str, folder: Path, **more: Any) -> Path:
    torch.manual_seed(7)
    folder.mkdir()
    MAKERS[kind](folder, **more)
    return folder


def load(model: Path, spool: Path, **settings: Any) -> ImageEngine:
    spool.mkdir(exist_ok=True)
    given = {"device": "cpu", **settings}
    engine = create_engine(
        Load("ft:gan:ten_1::1", "sampler", str(model), given, str(spool), "http://plant"),
        lambda fraction, detail: None,
    )
    assert isinstance(engine, ImageEngine)
    return engine


@pytest.fixture(scope="module", params=list(MAKERS), name="model")
def model_fixture(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make(request.param, tmp_path_factory.mktemp("sampler") / request.param)


@pytest.fixture(name="engine")
def engine_fixture(model: Path, tmp_path: Path) -> ImageEngine:
    return load(model, tmp_path / "spool")


def row(index: int, prompt: str = "a boat", **body: Any) -> Row:
    given = {"model": "ft", "prompt": prompt, **body}
    return Row(index, GENERATIONS, json.dumps(given).encode(), f"job_1-{index}")


def picture(engine: ImageEngine, prompt: str = "a boat", **body: Any) -> NDArray[np.int_]:
    """(images, height, width, 3)."""
    return drawn(run(engine, [row(0, prompt, **body)])[0])


def test_a_row_becomes_pictures_and_their_description(engine: ImageEngine) -> None:
    result = run(engine, [row(0, n=2, seed=5)])[0]
    body = body_of(result)
    assert result.status == 200
    assert body["model"] == "ft:gan:ten_1::1"
    assert body["size"] == "8x8"
    assert [entry["seed"] for entry in body["data"]] == [5, 6]
    assert [file.role for file in result.files] == ["image"] * 2
    assert [file.name for file in images(result)] == ["0.png", "1.png"]
    origin = images(result)[0].provenance
    assert (origin["prompt"], origin["seed"]) == ("a boat", 5)
    assert origin["fingerprint"] == engine.detail["fingerprint"]
    assert Image.open(images(result)[0].path).size == (8, 8)


def test_a_seed_gives_its_picture_again(engine: ImageEngine) -> None:
    first = picture(engine, seed=5)
    assert apart(first, picture(engine, seed=5)) == 0
    assert apart(first, picture(engine, seed=6)) > 0


def test_a_picture_is_the_same_in_company(engine: ImageEngine) -> None:
    alone = picture(engine, "house", seed=9, n=3)
    company = run(engine, [row(0, "boat", seed=1), row(1, "house", seed=9, n=3)])
    assert apart(alone, drawn(company[1])) <= 1


def test_the_prompt_decides_the_class(engine: ImageEngine) -> None:
    boat = picture(engine, "boat", seed=5)
    assert apart(boat, picture(engine, "A Boat, please!", seed=5)) == 0
    assert apart(boat, picture(engine, "house", seed=5)) > 0
    assert apart(boat, picture(engine, "a tug boat", seed=5)) > 0


@pytest.mark.parametrize(
    ("prompt", "said"),
    [("a boathouse", "names no class"), ("a boat and a house", "names 2 classes")],
)
def test_an_unclear_class_is_refused_with_those_there_are(
    engine: ImageEngine, prompt: str, said: str
) -> None:
    error = refused(engine, row(0, prompt))
    assert error["param"] == "prompt"
    assert said in error["message"]
    assert "boat, house, tug boat" in error["message"]


def test_larger_pictures_are_the_same_ones_scaled(engine: ImageEngine) -> None:
    small = picture(engine, seed=5)
    large = picture(engine, seed=5, size="32x32")
    assert apart(small, large[:, ::4, ::4]) == 0
    assert apart(large[:, ::4], large[:, 3::4]) == 0
    assert picture(engine, seed=5, size="20x20").shape == (1, 20, 20, 3)


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"size": "16x8"}, "size"),
        ({"size": "4096x4096"}, "size"),
        ({"negative_prompt": "ugly"}, "negative_prompt"),
        ({"adapter": "mine"}, "adapter"),
        ({"steps": 500}, "steps"),
    ],
)
def test_what_such_a_model_cannot_do_is_refused(
    engine: ImageEngine, body: dict[str, Any], param: str
) -> None:
    assert refused(engine, row(0, **body))["param"] == param


@pytest.mark.parametrize("kind", ["gan", "vae"])
def test_models_of_one_step_take_neither_steps_nor_guidance(kind: str, tmp_path: Path) -> None:
    engine = load(make(kind, tmp_path / "model"), tmp_path / "spool")
    assert refused(engine, row(0, steps=2))["param"] == "steps"
    assert refused(engine, row(0, guidance=2))["param"] == "guidance"


def test_a_denoiser_is_steered_by_steps_and_guidance(tmp_path: Path) -> None:
    engine = load(make("diffusion", tmp_path / "model"), tmp_path / "spool")
    usual = picture(engine, seed=5)
    assert apart(usual, picture(engine, seed=5, steps=4, guidance=2)) == 0
    assert apart(usual, picture(engine, seed=5, steps=9)) > 0
    assert apart(usual, picture(engine, seed=5, guidance=8)) > 0
    assert body_of(run(engine, [row(0, steps=9)])[0])["steps"] == 9


def test_a_denoiser_says_how_far_it_is_and_can_be_cancelled(tmp_path: Path) -> None:
    engine = load(make("diffusion", tmp_path / "model"), tmp_path / "spool")
    assert engine.submit(1, 1, row(0, steps=3)) is None
    assert engine.step() == []
    assert [(news.step, news.steps) for news in engine.progress()] == [(1, 3)]
    engine.cancel(1, 1)
    assert not engine.busy
    assert finish(engine) == []
    assert len(run(engine, [row(0, steps=3)])) == 1


@pytest.mark.parametrize("kind", list(MAKERS))
def test_a_model_without_classes_takes_any_prompt(kind: str, tmp_path: Path) -> None:
    engine = load(make(kind, tmp_path / "model", classes=0), tmp_path / "spool")
    assert apart(picture(engine, "what you like", seed=5), picture(engine, "boat", seed=5)) == 0
    assert refused(engine, row(0, guidance=2))["param"] == "guidance"


def test_the_catalog_can_change_the_defaults(tmp_path: Path) -> None:
    model = make("diffusion", tmp_path / "model")
    engine = load(model, tmp_path / "spool", default_steps=2, default_guidance=1.0, max_n=1)
    assert body_of(run(engine, [row(0)])[0])["steps"] == 2
    assert refused(engine, row(0, n=2))["param"] == "n"


@pytest.mark.parametrize(
    "spoil",
    [
        lambda manifest: manifest | {"classes": ["boat"]},
        lambda manifest: manifest | {"image_size": 16},
        lambda manifest: manifest | {"kind": "painting"},
        lambda manifest: manifest | {"surprise": 1},
    ],
)
@pytest.mark.parametrize("kind", list(MAKERS))
def test_a_manifest_that_does_not_fit_its_weights_is_refused(
    kind: str, spoil: Callable[[dict[str, Any]], dict[str, Any]], tmp_path: Path
) -> None:
    model = make(kind, tmp_path / "model")
    manifest = json.loads((model / MANIFEST).read_text())
    (model / MANIFEST).write_text(json.dumps(spoil(manifest)))
    with pytest.raises(EngineFailed) as failed:
        load(model, tmp_path / "spool")
    assert failed.value.code == "model_load_failed"


def test_a_folder_without_a_model_and_a_wrong_setting_are_refused(
    model: Path, tmp_path: Path
) -> None:
    with pytest.raises(EngineFailed) as failed:
        load(tmp_path, tmp_path / "spool")
    assert failed.value.code == "model_load_failed"
    with pytest.raises(EngineFailed) as failed:
        load(model, tmp_path / "spool", slots=3)
    assert failed.value.code == "bad_settings"
