"""Forms as the JSON bodies that they stand for."""

from __future__ import annotations

from typing import Any

import pytest

from api.media_forms import form_body
from shared.errors import InvalidRequest
from shared.specs import CampaignSpec, ImageEditSpec, InferenceSpec, VideoSpec


@pytest.mark.parametrize(
    ("spec", "parts", "body"),
    [
        (ImageEditSpec, [("n", "2"), ("seed", "-0"), ("prompt", "3")],
         {"n": 2, "seed": 0, "prompt": "3"}),
        (ImageEditSpec, [("strength", "0.5"), ("guidance", "7")], {"strength": 0.5, "guidance": 7}),
        (ImageEditSpec, [("n", "2.5"), ("steps", "many"), ("seed", "1e9")],
         {"n": 2.5, "steps": "many", "seed": "1e9"}),
        (ImageEditSpec, [("image[]", "file-1"), ("image[]", "file-2")],
         {"image": ["file-1", "file-2"]}),
        (ImageEditSpec, [("image[file_id]", "file-1")], {"image": {"file_id": "file-1"}}),
        (ImageEditSpec, [("quality", "low"), ("quality", "high")], {"quality": ["low", "high"]}),
        (VideoSpec, [("seconds", "4"), ("fps", "8"), ("captions", "false")],
         {"seconds": "4", "fps": 8, "captions": False}),
        (VideoSpec, [("pictures[][file_id]", "file-1"), ("pictures[][file_id]", "file-2")],
         {"pictures": [{"file_id": "file-1"}, {"file_id": "file-2"}]}),
        (CampaignSpec, [("languages[]", "en"), ("languages[]", "de"), ("variants", "2")],
         {"languages": ["en", "de"], "variants": 2}),
        (CampaignSpec, [("unheard_of", "1")], {"unheard_of": "1"}),
    ],
)  # fmt: skip
def test_a_form_is_the_body_it_stands_for(
    spec: type[InferenceSpec], parts: list[tuple[str, str]], body: dict[str, Any]
) -> None:
    assert form_body(spec, parts) == body


@pytest.mark.parametrize(
    "parts",
    [
        [("image", "x"), ("image[]", "y")],
        [("image[]", "x"), ("image[file_id]", "y")],
        [("image[file_id]", "x"), ("image[file_id]", "y")],
        [("a b", "x")],
        [("", "x")],
        [("image[a][b][c]", "x")],
        [("image[", "x")],
        [("\u0660", "x")],
    ],
)
def test_a_field_that_is_none_or_two_things_is_refused(parts: list[tuple[str, str]]) -> None:
    with pytest.raises(InvalidRequest):
        form_body(ImageEditSpec, parts)
