"""What the image engine reads off a pipeline, and the sizes that follow."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from PIL import Image

from shared.errors import InvalidRequest
from worker.engines.images.pipelines import abilities, own_size, size_multiple
from worker.engines.images.prompts import PromptMeter
from worker.engines.images.sources import edit_mask, fitted, like


class Plain:
    def __call__(
        self,
        *,
        num_inference_steps: int = 30,
        guidance_scale: float = 7.5,
        negative_prompt: Any = None,
        strength: float = 0.8,
        callback_on_step_end: Any = None,
    ) -> None: ...


class Distilled:
    def __call__(
        self,
        guidance_scale: float = 3.5,
        true_cfg_scale: float = 1.0,
        negative_prompt: Any = None,
        num_inference_steps: int = 28,
    ) -> None: ...


class TrueGuidance:
    def __call__(
        self,
        true_cfg_scale: float = 4.0,
        guidance_scale: float | None = None,
        negative_prompt: Any = None,
        num_inference_steps: int = 50,
    ) -> None: ...


class Bare:
    def __call__(self, prompt: Any = None) -> None: ...


def test_guidance_and_negative_prompts_go_by_the_signature() -> None:
    found = [abilities(kind()) for kind in (Plain, Distilled, TrueGuidance, Bare)]
    assert [(able.guidance_name, able.default_guidance) for able in found] == [
        ("guidance_scale", 7.5),
        ("guidance_scale", 3.5),
        ("true_cfg_scale", 4.0),
        (None, None),
    ]
    assert [able.takes_negative for able in found] == [True, False, True, False]
    assert [able.needs_negative for able in found] == [False, False, True, False]
    assert [able.default_steps for able in found] == [30, 28, 50, 50]
    assert [able.steps_visibly for able in found] == [True, False, False, False]
    assert [able.takes_strength for able in found] == [True, False, False, False]


def config(**values: Any) -> Any:
    return SimpleNamespace(config=SimpleNamespace(**values))


@pytest.mark.parametrize(
    ("pipeline", "size", "multiple"),
    [
        ({"unet": config(sample_size=64), "vae_scale_factor": 8}, (512, 512), 8),
        ({"unet": config(sample_size=[48, 64]), "vae_scale_factor": 8}, (512, 384), 8),
        (
            {"transformer": config(sample_size=128, patch_size=2), "vae_scale_factor": 8},
            (1024, 1024),
            16,
        ),
        (
            {
                "transformer": config(patch_size=1),
                "vae_scale_factor": 8,
                "default_sample_size": 128,
                "_pack_latents": True,
            },
            (1024, 1024),
            16,
        ),
        (
            {
                "transformer": config(patch_size=(1, 2, 2)),
                "vae_scale_factor": 16,
                "default_sample_size": 4,
            },
            (64, 64),
            16,
        ),
        ({}, (1024, 1024), 8),
    ],
)
def test_the_models_own_size_and_what_sides_are_multiples_of(
    pipeline: dict[str, Any], size: tuple[int, int], multiple: int
) -> None:
    made = SimpleNamespace(**pipeline)
    assert own_size(made) == size
    assert size_multiple(made) == multiple


@pytest.mark.parametrize("given", [(1, 1), (3000, 2000), (7, 900), (900, 7), (333, 444)])
@pytest.mark.parametrize("own", [(64, 64), (512, 512), (1024, 768)])
def test_a_size_alike_stays_within_its_bounds(given: tuple[int, int], own: tuple[int, int]) -> None:
    width, height = like(given, own, multiple=8, max_side=1024)
    assert width % 8 == height % 8 == 0
    assert 8 <= min(width, height) <= max(width, height) <= 1024
    assert width * height <= own[0] * own[1]
    if max(given) < 2 * min(given):
        assert width * height > 0.6 * own[0] * own[1]
        assert abs(width / height - given[0] / given[1]) < 0.35


def test_masks_follow_the_cut_of_their_image() -> None:
    image = Image.new("RGB", (80, 40), "white")
    mask = Image.new("RGBA", (80, 40), (0, 0, 0, 255))
    mask.paste((0, 0, 0, 0), (40, 0, 80, 40))
    where = edit_mask(image, mask)
    assert where is not None
    ready, cut = fitted(image, where, (20, 20))
    assert cut is not None
    assert ready.size == cut.size == (20, 20)
    assert [cut.getpixel((x, 10)) for x in (0, 9, 10, 19)] == [0, 0, 255, 255]
    assert edit_mask(image, None) is None
    with pytest.raises(InvalidRequest):
        edit_mask(image, image)


def test_a_model_without_a_tokenizer_counts_nothing() -> None:
    class Pipeline(Bare):
        components: dict[str, Any] = {"tokenizer": object(), "unet": None}  # noqa: RUF012

    meter = PromptMeter(Pipeline())
    assert meter.count("some words") == 0
    assert meter.warning("some words", "prompt") is None
