"""The video engine on a CUDA device; each test is skipped, visibly, where there is none."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.integration.test_video_engine import load, row
from tests.integration.tiny_video_models import make
from tests.integration.video_case import Material, checks, difference, frames, run

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
]


@pytest.mark.parametrize("offload", ["none", "model", "sequential"])
def test_a_seed_means_the_same_video_as_on_the_cpu(tmp_path: Path, offload: str) -> None:
    source = make(tmp_path / "model", "wan")
    expected = frames(run(load(source, tmp_path / "spool"), row()).video)
    engine = load(source, tmp_path / "spool", device="cuda", offload=offload)
    assert engine.detail["offload"] == offload
    found = frames(run(engine, row()).video)
    assert len(found) == len(expected)
    assert difference(found[4], expected[4]) < 6


def test_texts_and_pictures_take_turns_while_offloaded(tmp_path: Path) -> None:
    material = Material(tmp_path)
    reference = material.picture("one", checks((64, 64)))
    source = make(tmp_path / "model", "ltx")
    engine = load(source, tmp_path / "spool", device="cuda", offload="model")
    for given in (None, reference, None):
        assert run(engine, row(material.paths, input_reference=given)).result.status == 200


def test_the_default_dtype_is_half_precision(tmp_path: Path) -> None:
    engine = load(make(tmp_path / "model", "wan"), tmp_path / "spool", device="cuda", dtype=None)
    assert engine.detail["dtype"] in ("bfloat16", "float16")
