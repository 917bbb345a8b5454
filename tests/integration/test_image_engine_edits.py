"""Edits, variations and inpainting: strength, masks, sizes, inputs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.integration import tiny_diffusers
from tests.integration.image_case import (
    EDITS,
    VARIATIONS,
    apart,
    body_of,
    data_url,
    drawn,
    images,
    load,
    mask,
    one_thread,
    picture,
    refused,
    row,
    run,
)
from worker.engines.image import ImageEngine
from worker.engines.pictures import encode_picture

__all__ = ["one_thread"]


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> ImageEngine:
    folder = tmp_path_factory.mktemp("tiny sd")
    model = tiny_diffusers.save(folder, tiny_diffusers.stable_diffusion)
    return load(model, folder / "spool", default_steps=10, max_side=256)


def test_strength_sets_how_many_steps_are_left_and_how_much_changes(engine: ImageEngine) -> None:
    given = picture()
    body: dict[str, Any] = {"image": data_url(given), "seed": 4, "guidance": 1.0}
    strengths = [0.1, 0.5, 1.0]
    rows = [row(i, endpoint=EDITS, strength=s, **body) for i, s in enumerate(strengths)]
    for taken in rows:
        engine.submit(1, 1, taken)
    results, steps = {}, {}
    while engine.busy:
        results.update({result.index: result for result in engine.step()})
        steps.update({item.index: item.steps for item in engine.progress()})
    assert steps == {0: 1, 1: 5, 2: 10}
    assert [images(results[i])[0].provenance["strength"] for i in range(3)] == strengths
    # against the picture as the VAE alone would give it back, more strength is further away
    found = [drawn(results[index])[0] for index in range(3)]
    away = [float(np.abs(found[0] - other).mean()) for other in found]
    assert away[0] < away[1] < away[2]


def test_the_given_picture_matters_and_its_row_gets_its_own(engine: ImageEngine) -> None:
    colours = ["red", "lime", "blue"]
    rows = [
        row(i, endpoint=EDITS, image=data_url(picture(colour=c)), seed=4, strength=0.3)
        for i, c in enumerate(colours)
    ]
    together = run(engine, rows)
    alone = [drawn(run(engine, [given])[given.index]) for given in rows]
    for index in range(3):
        assert apart(drawn(together[index]), alone[index]) <= 1
    assert apart(alone[0], alone[1]) > 1


def test_only_what_is_transparent_in_the_mask_is_edited(engine: ImageEngine) -> None:
    given = picture()
    made = row(
        0, endpoint=EDITS, image=data_url(given), mask=data_url(mask()), strength=1.0, seed=1
    )
    result = run(engine, [made])[0]
    assert images(result)[0].provenance["task"] == "inpainting"
    found, before = drawn(result)[0], np.asarray(given).astype(int)
    np.testing.assert_array_equal(found[:, :16], before[:, :16])
    assert np.abs(found[:, 16:] - before[:, 16:]).mean() > 5


def test_a_transparent_part_of_the_image_itself_is_edited(engine: ImageEngine) -> None:
    given = picture().convert("RGBA")
    given.putalpha(mask().getchannel("A"))
    result = run(engine, [row(0, endpoint=EDITS, image=data_url(given), strength=1.0, seed=1)])[0]
    found, before = drawn(result)[0], np.asarray(picture()).astype(int)
    np.testing.assert_array_equal(found[:, :16], before[:, :16])
    assert np.abs(found[:, 16:] - before[:, 16:]).mean() > 5


@pytest.mark.parametrize(
    ("given", "size", "made"),
    [
        ((32, 32), None, (32, 32)),
        ((300, 300), None, (32, 32)),
        ((640, 160), None, (64, 16)),
        ((90, 160), None, (24, 40)),
        ((2, 400), None, (4, 256)),
        ((300, 200), "48x24", (48, 24)),
    ],
)
def test_auto_keeps_the_proportions_at_the_models_own_size(
    engine: ImageEngine, given: tuple[int, int], size: str | None, made: tuple[int, int]
) -> None:
    body: dict[str, Any] = {"image": data_url(picture(*given)), "mask": data_url(mask(*given))}
    if size is not None:
        body["size"] = size
    result = run(engine, [row(0, endpoint=EDITS, **body)])[0]
    assert (images(result)[0].width, images(result)[0].height) == made
    assert body_of(result)["size"] == f"{made[0]}x{made[1]}"


def test_variations_need_no_prompt_and_flatten_transparency(engine: ImageEngine) -> None:
    clear = Image.new("RGBA", (32, 32), (0, 0, 0, 0))
    bodies: list[dict[str, Any]] = [
        {"image": data_url(p)} for p in (clear, Image.new("RGB", (32, 32), "white"))
    ]
    results = run(
        engine, [row(i, None, endpoint=VARIATIONS, seed=1, **b) for i, b in enumerate(bodies)]
    )
    assert apart(drawn(results[0]), drawn(results[1])) <= 1


def test_inputs_come_by_path_when_the_body_names_a_file(
    engine: ImageEngine, tmp_path: Path
) -> None:
    path = tmp_path / "an input"
    path.write_bytes(encode_picture(picture(), "webp", 100))
    by_id = row(0, endpoint=EDITS, image="file-abc", inputs={"file-abc": str(path)}, seed=1)
    by_data = row(1, endpoint=EDITS, image=data_url(picture()), seed=1)
    results = run(engine, [by_id, by_data])
    assert apart(drawn(results[0]), drawn(results[1])) <= 1


@pytest.mark.parametrize(
    ("body", "param", "message"),
    [
        ({"image": "file-gone"}, "image", "file-gone"),
        ({"image": "data:image/png;base64,!!!!"}, "image", "base64"),
        ({"image": "data:image/png;base64,AAAA"}, "image", "not a picture"),
        ({"image": data_url(picture()), "mask": data_url(picture())}, "mask", "no transparent"),
        ({"image": data_url(picture()), "mask": data_url(mask(16, 16))}, "mask", "16x16"),
        ({"image": data_url(picture()), "strength": 0.05}, "strength", "none of the 10 steps"),
        ({"image": data_url(picture()), "size": "512x512"}, "size", "256 pixels a side"),
    ],
)
def test_what_cannot_be_edited_is_refused_by_name(
    engine: ImageEngine, body: dict[str, Any], param: str, message: str
) -> None:
    error = refused(engine, row(0, endpoint=EDITS, **body))
    assert error["param"] == param
    assert message in error["message"]
    assert not engine.busy


def test_latents_of_other_sizes_are_inpainted_too(tmp_path: Path) -> None:
    """diffusers' own inpainting refuses them; ours keeps what is outside the mask at every step."""
    model = tiny_diffusers.save(
        tmp_path, tiny_diffusers.stable_diffusion, channels=6, latent_channels=6
    )
    engine = load(model, tmp_path / "spool", default_steps=6)
    assert engine.detail["tasks"] == ["text_to_image", "image_to_image", "inpainting"]
    given = picture()
    body: dict[str, Any] = {"image": data_url(given), "mask": data_url(mask()), "strength": 1.0}
    rows = [row(i, endpoint=EDITS, seed=i, **body) for i in range(3)]
    together = run(engine, rows)
    before = np.asarray(given).astype(int)
    for index in range(3):
        found = drawn(together[index])[0]
        np.testing.assert_array_equal(found[:, :16], before[:, :16])
        assert np.abs(found[:, 16:] - before[:, 16:]).mean() > 5
        assert apart(drawn(run(engine, [rows[index]])[index]), drawn(together[index])) <= 1
    whole = {key: value for key, value in body.items() if key != "mask"}
    free = drawn(run(engine, [row(0, endpoint=EDITS, seed=0, **whole)])[0])[0]
    assert apart(free[None, :, 16:], drawn(together[0])[:, :, 16:]) > 1  # its surroundings matter


def test_weights_for_inpainting_serve_that_alone(tmp_path: Path) -> None:
    model = tiny_diffusers.save(tmp_path, tiny_diffusers.stable_diffusion, channels=9)
    engine = load(model, tmp_path / "spool")
    assert engine.detail["tasks"] == ["inpainting"]
    given = picture()
    body: dict[str, Any] = {"image": data_url(given), "mask": data_url(mask()), "seed": 1}
    found = drawn(run(engine, [row(0, endpoint=EDITS, **body)])[0])[0]
    np.testing.assert_array_equal(found[:, :16], np.asarray(given).astype(int)[:, :16])
    assert refused(engine, row(0))["code"] == "unsupported_endpoint"
    error = refused(engine, row(0, endpoint=EDITS, image=data_url(given)))
    assert error["code"] == "unsupported_endpoint"
