"""The image engine on a CUDA device; each test is skipped, visibly, where there is none."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.integration import tiny_diffusers
from tests.integration.image_case import (
    EDITS,
    apart,
    data_url,
    drawn,
    finish,
    images,
    load,
    mask,
    picture,
    row,
    run,
)

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
]


@pytest.fixture(scope="module", params=sorted(tiny_diffusers.FAMILIES))
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp(f"tiny {request.param}")
    return tiny_diffusers.save(folder, tiny_diffusers.FAMILIES[request.param])


def test_a_seed_gives_about_the_same_image_as_on_the_cpu(model: Path, tmp_path: Path) -> None:
    rows = [row(index, seed=index, size="32x32") for index in range(3)]
    on_cpu = run(load(model, tmp_path / "a"), rows)
    on_gpu = run(load(model, tmp_path / "b", device="cuda"), rows)
    for index in range(3):
        difference = np.abs(drawn(on_cpu[index]) - drawn(on_gpu[index]))
        assert difference.mean() < 2


def test_a_seed_gives_the_same_image_in_company(model: Path, tmp_path: Path) -> None:
    engine = load(model, tmp_path / "spool", device="cuda")
    rows = [row(index, seed=index, size="32x32") for index in range(4)]
    together = run(engine, rows)
    for given in rows:
        assert apart(drawn(run(engine, [given])[given.index]), drawn(together[given.index])) <= 2


def test_the_default_is_half_precision(model: Path, tmp_path: Path) -> None:
    engine = load(model, tmp_path / "spool", device="cuda", dtype=None)
    assert engine.detail["dtype"] in ("bfloat16", "float16")
    assert drawn(run(engine, [row(0, size="32x32")])[0]).std() > 0


@pytest.mark.parametrize("offload", ["model", "sequential"])
def test_offloaded_components_serve_all_tasks_and_survive_a_cancel(
    model: Path, tmp_path: Path, offload: str
) -> None:
    engine = load(model, tmp_path / "spool", device="cuda", offload=offload)
    given: dict[str, Any] = {"image": data_url(picture()), "seed": 1}
    run(engine, [row(0, size="32x32"), row(1, endpoint=EDITS, **given)])
    engine.submit(5, 1, row(0, steps=50, size="32x32"))
    engine.step()
    engine.cancel(5, 1)
    assert not engine.busy
    result = run(engine, [row(2, endpoint=EDITS, mask=data_url(mask()), **given)])[2]
    assert len(images(result)) == 1


def test_running_out_of_device_memory_fails_no_row(tmp_path: Path) -> None:
    model = tiny_diffusers.save(tmp_path, tiny_diffusers.stable_diffusion)
    engine = load(model, tmp_path / "spool", device="cuda", microbatch=64, max_side=512)
    rows = [row(index, size="512x512", steps=2) for index in range(32)]
    free, _ = torch.cuda.mem_get_info()
    hog = torch.empty(free - 512 * 2**20, dtype=torch.uint8, device="cuda")
    for given in rows:
        assert engine.submit(1, 1, given) is None
    results = finish(engine)
    del hog
    assert [result.status for result in results] == [200] * 32
