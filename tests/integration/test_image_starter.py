"""The project's own image model, as it is shipped."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.integration.image_case import apart, body_of, drawn, images, load, one_thread, row, run
from worker.engines.image import ImageEngine
from worker.starter_models import IMAGE_MODEL_SOURCE

__all__ = ["one_thread"]

TOLERANCE = 2
"""Of 255: fp32 on other processors sums in other orders."""


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> ImageEngine:
    spool = tmp_path_factory.mktemp("spool")
    return load(IMAGE_MODEL_SOURCE, spool, default_steps=None)


def test_it_is_whole_and_made_for_64_pixels(engine: ImageEngine) -> None:
    assert engine.detail["default_size"] == "64x64"
    assert engine.detail["tasks"] == ["text_to_image", "image_to_image", "inpainting"]
    assert not list(Path(IMAGE_MODEL_SOURCE).rglob("*.bin"))


def test_it_draws_the_same_alone_and_in_company(engine: ImageEngine) -> None:
    prompts = ["a red heart", "a yellow smiling face", "a green tree", "a blue car"]
    rows = [row(index, prompt, seed=index, steps=10) for index, prompt in enumerate(prompts)]
    together = run(engine, rows)
    for given in rows[:2]:
        alone = run(engine, [given])[given.index]
        assert apart(drawn(alone), drawn(together[given.index])) <= TOLERANCE
    assert all("warnings" not in body_of(result) for result in together.values())
    assert {images(result)[0].width for result in together.values()} == {64}


def test_what_it_draws_is_a_picture_not_noise(engine: ImageEngine) -> None:
    """Neighbouring pixels of a picture are alike; those of noise are not."""
    for index, result in run(engine, [row(0, "a red heart", seed=1)]).items():
        found = drawn(result)[index].astype(float)
        between = np.abs(np.diff(found, axis=1)).mean() / (found.std() + 1e-9)
        assert found.std() > 10
        assert between < 0.5
