"""The committed model: small, free of pickle, loadable from disk alone, and able to draw."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from starter_image import export, score
from starter_image.plan import SamplingPlan

MODEL = Path(__file__).resolve().parents[3] / "starter_image" / "model"
LARGEST_BYTES = 24_000_000
PICKLES = {".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt"}


def references() -> dict[str, torch.Tensor]:
    """The committed originals, float in [0, 1] of shape (3, pixels, pixels)."""
    found = {}
    for path in sorted((MODEL / "references").glob("*.png")):
        pixels = np.array(Image.open(path).convert("RGB"), dtype=np.float32) / 255
        found[path.stem] = torch.from_numpy(pixels).permute(2, 0, 1)
    return found


def test_it_is_small_and_has_no_pickle() -> None:
    files = [path for path in MODEL.rglob("*") if path.is_file()]

    assert sum(path.stat().st_size for path in files) <= LARGEST_BYTES
    assert not [path.name for path in files if path.suffix in PICKLES]
    assert len([path for path in files if path.suffix == ".safetensors"]) == 3


@pytest.mark.parametrize("prompt", ["red heart", "a picture of a rocket", "an ad for pizza"])
def test_it_draws_what_is_named(prompt: str) -> None:
    pipeline, originals = export.load(MODEL), references()
    wanted = next(name for name in originals if name.replace("-", " ") in prompt)

    (drawn,) = score.draw(pipeline, [prompt], SamplingPlan(steps=10)).float().div(255)

    errors = {name: (drawn - original).abs().mean().item() for name, original in originals.items()}
    assert min(errors, key=lambda name: errors[name]) == wanted, errors
    assert len(errors) >= 10


def test_its_card_says_what_it_must() -> None:
    page = (MODEL / "README.md").read_text(encoding="utf-8")

    for expected in ("Copyright (c) Microsoft Corporation", "Apache-2.0", "What it can't do"):
        assert expected in page
    assert "Permission is hereby granted" in (MODEL / "LICENSE.fluent-emoji").read_text()
    assert "red heart" in (MODEL / "names.txt").read_text(encoding="utf-8").splitlines()
