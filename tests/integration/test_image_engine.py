"""The image engine on tiny random models: families, results, seeds and company."""

from __future__ import annotations

import base64
import hashlib
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from shared.ids import artifact_id
from tests.integration import tiny_diffusers
from tests.integration.image_case import (
    EDITS,
    URL,
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
from worker.engines.images import results as results_module

__all__ = ["one_thread"]

pytestmark = pytest.mark.filterwarnings("ignore:__array:DeprecationWarning")

COMPANY_TOLERANCE = 1
"""Of 255, in fp32: sums of other shapes are taken in another order."""
ROWS: list[dict[str, Any]] = [
    {"prompt": "a red square", "seed": 11},
    {"prompt": "seven green boats with yellow sails", "seed": 12, "n": 2},
    {"prompt": "sea", "seed": 13},
    {"prompt": "a blue circle", "seed": 14, "n": 3},
]


@pytest.fixture(scope="module", params=sorted(tiny_diffusers.FAMILIES))
def family(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> ImageEngine:
    folder = tmp_path_factory.mktemp(f"tiny {request.param}")
    model = tiny_diffusers.save(folder, tiny_diffusers.FAMILIES[request.param])
    return load(model, folder / "spool", default_size="32x32")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_diffusers.save(tmp_path_factory.mktemp("tiny sd"), tiny_diffusers.stable_diffusion)


@pytest.fixture
def engine(model: Path, tmp_path: Path) -> ImageEngine:
    return load(model, tmp_path / "a spool")


def test_a_seed_gives_the_same_image_in_any_company_and_order(family: ImageEngine) -> None:
    rows = [row(index, **body) for index, body in enumerate(ROWS)]
    alone = {given.index: drawn(run(family, [given])[given.index]) for given in rows}
    together = run(family, rows)
    reversed_order = run(family, rows[::-1])
    for index, expected in alone.items():
        assert apart(drawn(together[index]), expected) <= COMPANY_TOLERANCE
        assert apart(drawn(reversed_order[index]), expected) <= COMPANY_TOLERANCE
    different = [drawn(together[a])[0] for a in range(4)]
    assert min(apart(different[0], other) for other in different[1:]) > 10, "seeds must matter"


def test_prompt_guidance_and_steps_matter(family: ImageEngine) -> None:
    bodies: list[dict[str, Any]] = [
        {},
        {"prompt": "seven green boats with yellow sails on the sea"},
        {"guidance": 1.5},
        {"steps": 7},
    ]
    results = run(family, [row(i, **{"seed": 3, **body}) for i, body in enumerate(bodies)])
    found = [drawn(results[index]) for index in range(len(bodies))]
    assert all(apart(found[0], other) > 0 for other in found[1:])


def test_every_family_edits_varies_and_inpaints(family: ImageEngine) -> None:
    given = data_url(picture())
    results = run(
        family,
        [
            row(0, endpoint=EDITS, image=given, seed=1),
            row(1, None, endpoint=VARIATIONS, image=given, seed=1, n=2),
            row(2, endpoint=EDITS, image=given, mask=data_url(mask()), seed=1, strength=1.0),
        ],
    )
    assert [len(images(results[index])) for index in range(3)] == [1, 2, 1]
    tasks = [images(results[index])[0].provenance["task"] for index in range(3)]
    assert tasks == ["image_to_image", "image_to_image", "inpainting"]


def test_every_family_shows_previews_and_progress(family: ImageEngine) -> None:
    family.submit(1, 1, row(0, seed=1, steps=6, partial_images=2, n=2))
    news = []
    while family.busy:
        family.step()
        news += family.progress()
    assert [item.step for item in news] == [1, 2, 3, 4, 5, 6]
    assert {item.steps for item in news} == {6}
    previews = [item.preview for item in news if item.preview is not None]
    assert [preview.name for preview in previews] == ["preview-1.png", "preview-2.png"]
    for preview in previews:
        assert (preview.role, preview.parent) == ("preview", artifact_id("job_1-0", "0.png"))
        assert Image.open(preview.path).size == (32, 32)


def test_the_result_has_openais_shape_and_names_its_files(engine: ImageEngine) -> None:
    result = run(engine, [row(0, seed=40, n=2, size="48x32", steps=3)])[0]
    body = body_of(result)
    ids = [artifact_id("job_1-0", f"{place}.png") for place in range(2)]
    assert body["data"] == [
        {"artifact_id": id, "url": f"{URL}/v1/artifacts/{id}/content", "seed": 40 + place}
        for place, id in enumerate(ids)
    ]
    tokens = body["usage"]["input_tokens"]
    assert tokens == len("aredsquare") == result.input_tokens
    assert body["usage"] == {"input_tokens": tokens, "output_tokens": 0, "total_tokens": tokens}
    assert {key: body[key] for key in ("model", "size", "output_format", "steps")} == {
        "model": "tiny",
        "size": "48x32",
        "output_format": "png",
        "steps": 3,
    }
    assert "warnings" not in body
    assert [file.name for file in result.files] == ["0.png", "1.png"]
    assert [file.id for file in images(result)] == ids
    for file in result.files:
        content = Path(file.path).read_bytes()
        assert (file.bytes, file.sha256) == (len(content), hashlib.sha256(content).hexdigest())
        assert Image.open(file.path).size == (48, 32) == (file.width, file.height)


def test_a_picture_larger_than_a_thumbnail_has_one(engine: ImageEngine) -> None:
    files = run(engine, [row(0, size="264x32", steps=1)])[0].files
    assert [(file.name, file.role) for file in files] == [
        ("0.png", "image"),
        ("0.thumbnail.webp", "thumbnail"),
    ]
    assert files[1].parent == files[0].id
    assert Image.open(files[1].path).size == (256, 31) == (files[1].width, files[1].height)


def test_provenance_repeats_the_image_and_the_file_tells_nothing(engine: ImageEngine) -> None:
    given = row(0, "a secret lemon", negative_prompt="pears", guidance=3.5, steps=5)
    result = run(engine, [given])[0]
    file = images(result)[0]
    seed = file.provenance["seed"]
    assert file.provenance == {
        "model": "tiny",
        "fingerprint": engine.detail["fingerprint"],
        "scheduler": "DDIMScheduler",
        "prompt": "a secret lemon",
        "negative_prompt": "pears",
        "seed": seed,
        "steps": 5,
        "guidance": 3.5,
        "size": "32x32",
        "task": "text_to_image",
        "strength": None,
        "adapter": None,
    }
    assert b"lemon" not in Path(file.path).read_bytes()
    assert Image.open(file.path).info == {}
    again = row(0, "a secret lemon", negative_prompt="pears", guidance=3.5, steps=5, seed=seed)
    assert apart(drawn(run(engine, [again])[0]), drawn(result)) == 0
    assert body_of(result)["data"][0]["seed"] == seed


def test_drawn_seeds_differ(engine: ImageEngine) -> None:
    results = run(engine, [row(index) for index in range(3)])
    assert len({body_of(results[index])["data"][0]["seed"] for index in range(3)}) == 3


@pytest.mark.parametrize(
    ("format", "suffix"), [("png", ".png"), ("jpeg", ".jpg"), ("webp", ".webp")]
)
def test_formats_and_base64(engine: ImageEngine, format: str, suffix: str) -> None:
    given = row(0, output_format=format, output_compression=40, response_format="b64_json")
    result = run(engine, [given])[0]
    entry, file = body_of(result)["data"][0], images(result)[0]
    assert set(entry) == {"artifact_id", "b64_json", "seed"}
    assert base64.b64decode(entry["b64_json"]) == Path(file.path).read_bytes()
    assert file.name == f"0{suffix}"
    assert file.media_type == f"image/{format}"
    assert Image.open(file.path).format == format.upper()


def test_images_that_are_too_many_bytes_for_a_result_come_by_url(
    engine: ImageEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ten large ones would be a hundred megabytes in a column of the job."""
    asked = {"n": 2, "response_format": "b64_json", "seed": 1}
    whole = run(engine, [row(0, **asked)])[0]
    total = sum(file.bytes for file in images(whole))
    for limit, member in ((total, "b64_json"), (total - 1, "url")):
        monkeypatch.setattr(results_module, "MAX_INLINE_BYTES", limit)
        result = run(engine, [row(0, **asked)])[0]
        for entry, file in zip(body_of(result)["data"], images(result), strict=True):
            assert set(entry) == {"artifact_id", "seed", member}
            assert entry["artifact_id"] == file.id
    (warning,) = body_of(result)["warnings"]
    assert f"{total} bytes" in warning


def test_quality_sets_the_steps_unless_they_are_given(engine: ImageEngine) -> None:
    bodies: list[dict[str, Any]] = [
        {"quality": "low"},
        {"quality": "hd"},
        {"quality": "high", "steps": 3},
        {},
    ]
    results = run(engine, [row(index, **body) for index, body in enumerate(bodies)])
    assert [body_of(results[index])["steps"] for index in range(4)] == [2, 6, 3, 4]


def test_a_negative_prompt_works_and_none_is_not_an_empty_one_elsewhere(
    engine: ImageEngine,
) -> None:
    bodies: list[dict[str, Any]] = [{}, {"negative_prompt": "boats"}, {"negative_prompt": ""}]
    results = run(engine, [row(i, **{"seed": 2, **body}) for i, body in enumerate(bodies)])
    plain, without_boats, empty = (drawn(results[index]) for index in range(3))
    assert apart(plain, without_boats) > 0
    assert apart(plain, empty) <= COMPANY_TOLERANCE


def test_a_prompt_longer_than_the_window_is_cut_and_said_so(engine: ImageEngine) -> None:
    long = "sea boats " * 30
    body = body_of(run(engine, [row(0, long, negative_prompt=long, guidance=1.0)])[0])
    tokens = len("seaboats") * 30
    assert body["usage"]["input_tokens"] == 2 * tokens
    assert body["warnings"] == [
        f"the prompt has {tokens} tokens, this model reads the first 75",
        f"the negative prompt has {tokens} tokens, this model reads the first 75",
        "a negative prompt has no effect at a guidance of 1 or less",
    ]


def test_the_longest_reading_encoder_decides_what_is_cut(
    tmp_path: Path,
) -> None:
    model = tiny_diffusers.save(tmp_path, tiny_diffusers.flux)
    engine = load(model, tmp_path / "spool", default_size="32x32")
    bodies = run(engine, [row(0, "sea " * 100), row(1, "zqzq " * 400)])
    assert "warnings" not in body_of(bodies[0])
    assert body_of(bodies[1])["warnings"][0].endswith("this model reads the first 511")


@pytest.mark.parametrize(
    ("body", "param", "message"),
    [
        ({"n": 5}, "n", "cap of 4"),
        ({"size": "72x32"}, "size", "64 pixels a side"),
        ({"size": "64x64"}, "size", "3000 pixels"),
        ({"size": "33x32"}, "size", "multiples of 4"),
        ({"steps": 21}, "steps", "cap of 20"),
        ({"adapter": "style"}, "adapter", "offers none"),
    ],
)
def test_what_is_over_a_cap_is_refused_by_name(
    model: Path, tmp_path: Path, body: dict[str, Any], param: str, message: str
) -> None:
    caps = {"max_n": 4, "max_side": 64, "max_pixels": 3000, "max_steps": 20}
    engine = load(model, tmp_path / "spool", **caps)
    error = refused(engine, row(0, **body))
    assert (error["param"], error["type"]) == (param, "invalid_request_error")
    assert message in error["message"]
    assert not engine.busy


def test_other_endpoints_are_refused(engine: ImageEngine) -> None:
    error = refused(engine, row(0, endpoint="/v1/completions"))
    assert error["code"] == "invalid_request"


def test_a_model_without_negative_prompts_says_so(tmp_path: Path) -> None:
    engine = load(tiny_diffusers.save(tmp_path, tiny_diffusers.flux), tmp_path / "spool")
    error = refused(engine, row(0, negative_prompt="boats"))
    assert (error["param"], error["code"]) == ("negative_prompt", "unsupported_parameter")


def test_a_safety_checker_that_the_model_ships_is_kept_and_heard(tmp_path: Path) -> None:
    model = tiny_diffusers.save(tmp_path, tiny_diffusers.stable_diffusion, safety=True)
    engine = load(model, tmp_path / "spool")
    checker = engine._loaded.base.safety_checker
    rows = [row(0, seed=1)]
    # one concept, said to be as near as can be; then one that nothing can be near to
    for threshold, black in ((-2.0, True), (2.0, False)):
        checker.concept_embeds_weights.data[:] = threshold
        checker.special_care_embeds_weights.data[:] = 2.0
        body = body_of(result := run(engine, rows)[0])
        assert bool(drawn(result).max() == 0) is black
        assert ("painted over" in str(body.get("warnings"))) is black


def test_half_precision_runs(model: Path, tmp_path: Path) -> None:
    engine = load(model, tmp_path / "spool", dtype="bfloat16")
    assert engine.detail["dtype"] == "bfloat16"
    assert drawn(run(engine, [row(0, seed=1)])[0]).std() > 0


def test_the_default_dtype_is_one_that_the_machine_computes(model: Path, tmp_path: Path) -> None:
    engine = load(model, tmp_path / "spool", dtype=None)
    native = torch.cpu.get_capabilities()
    fast = native.get("avx512_bf16") or native.get("amx_bf16") or native.get("bf16")
    assert engine.detail["dtype"] == ("bfloat16" if fast else "float32")
