"""The image engine's lanes: parts of a microbatch that are drawn side by side."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.integration import tiny_diffusers
from tests.integration.image_case import (
    apart,
    body_of,
    drawn,
    finish,
    images,
    load,
    one_thread,
    run,
)
from tests.integration.image_case import row as plain_row
from worker.engines import image as image_engine
from worker.engines.image import ImageEngine
from worker.engines.images.lanes import AUTO_LANES, lane_count

__all__ = ["one_thread"]

SCHEDULERS = ("DPMSolverMultistepScheduler", "EulerAncestralDiscreteScheduler", "PNDMScheduler")
"""Those that keep state between steps."""


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_diffusers.save(tmp_path_factory.mktemp("tiny sd"), tiny_diffusers.stable_diffusion)


@pytest.fixture
def engine(model: Path, tmp_path: Path) -> ImageEngine:
    return load(model, tmp_path / "spool", lanes=2)


def row(index: int, **body: Any) -> Any:
    prompt = "a red square " * (1 + index % 3)
    return plain_row(index, prompt, **{"seed": index, "negative_prompt": "pears", **body})


@pytest.fixture
def widths(engine: ImageEngine, monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int]]:
    """(thread, images) of each call of the denoiser."""
    seen: list[tuple[str, int]] = []
    unet = engine._loaded.base.unet
    forward = unet.forward

    def watched(sample: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        seen.append((threading.current_thread().name, len(sample) // 2))
        return forward(sample, *args, **kwargs)

    monkeypatch.setattr(unet, "forward", watched)
    return seen


@pytest.mark.parametrize("scheduler", SCHEDULERS)
def test_lanes_draw_what_one_alone_draws(model: Path, tmp_path: Path, scheduler: str) -> None:
    one = load(model, tmp_path / "a", lanes=1, scheduler=scheduler)
    two = load(model, tmp_path / "b", lanes=2, scheduler=scheduler)
    rows = [row(index) for index in range(5)]
    expected, found = run(one, rows), run(two, rows)
    assert all(apart(drawn(expected[n]), drawn(found[n])) <= 1 for n in range(5))
    assert apart(drawn(found[0]), drawn(found[1])) > 1


def test_a_microbatch_is_shared_out_evenly(
    engine: ImageEngine, widths: list[tuple[str, int]]
) -> None:
    assert (engine.detail["lanes"], engine.detail["microbatch"]) == (2, 32)
    engine.submit(1, 1, row(0, n=3, steps=2))
    engine.submit(1, 1, row(1, n=2, steps=2))
    steps = []
    while engine.busy:
        results = engine.step()
        steps.append([(item.index, item.step) for item in engine.progress()])
    assert sorted(widths) == [("diffusion", 3)] * 2 + [("diffusion-1", 2)] * 2
    assert steps == [[(0, 1), (1, 1)], [(0, 2), (1, 2)], []]
    assert [[file.name for file in images(result)] for result in results] == [
        ["0.png", "1.png", "2.png"],
        ["0.png", "1.png"],
    ]


def test_images_of_one_row_may_be_drawn_in_several_lanes(
    engine: ImageEngine, widths: list[tuple[str, int]]
) -> None:
    together = run(engine, [row(0, n=3, seed=7)])[0]
    assert {name for name, _ in widths} == {"diffusion", "diffusion-1"}
    assert [entry["seed"] for entry in body_of(together)["data"]] == [7, 8, 9]
    for place in range(3):
        alone = run(engine, [row(0, seed=7 + place)])[0]
        assert apart(drawn(alone)[0], drawn(together)[place]) <= 1


def test_cancelling_ends_every_lane_within_a_step(
    engine: ImageEngine, widths: list[tuple[str, int]]
) -> None:
    engine.submit(1, 1, row(0, n=4, steps=100))
    engine.step()
    engine.step()
    engine.cancel(1, 1)
    assert not engine.busy
    assert len(widths) == 4
    assert run(engine, [row(1)])[1].status == 200


@pytest.mark.parametrize("culprit", [0, 3])
def test_what_one_lane_cannot_draw_fails_its_row_alone(
    engine: ImageEngine, monkeypatch: pytest.MonkeyPatch, culprit: int
) -> None:
    pipeline = type(engine._loaded.base)
    encode = pipeline.encode_prompt

    def picky(self: Any, prompt: list[str], *args: Any, **kwargs: Any) -> Any:
        if "poison" in prompt:
            raise ValueError("not this one")
        return encode(self, prompt, *args, **kwargs)

    monkeypatch.setattr(pipeline, "encode_prompt", picky)
    rows = [plain_row(n, "poison" if n == culprit else "a fox") for n in range(4)]
    results = run(engine, rows)
    assert [results[n].status for n in range(4)] == [500 if n == culprit else 200 for n in range(4)]


def test_out_of_memory_in_a_lane_halves_the_microbatch(
    engine: ImageEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    unet = engine._loaded.base.unet
    forward, tried = unet.forward, []

    def cramped(sample: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        tried.append(len(sample) // 2)
        if len(sample) // 2 > 1:
            raise torch.OutOfMemoryError("no memory")
        return forward(sample, *args, **kwargs)

    monkeypatch.setattr(unet, "forward", cramped)
    engine.submit(1, 1, row(0, n=4))
    assert [result.status for result in finish(engine)] == [200]
    assert max(tried) == 2


def test_nothing_but_lanes_computes(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A thread that computes begins a pool, and two pools are more than the machine has."""
    threads = set()
    loading = image_engine.load_pipelines

    def watched(*args: Any) -> Any:
        threads.add(threading.current_thread().name)
        return loading(*args)

    monkeypatch.setattr(image_engine, "load_pipelines", watched)
    load(model, tmp_path / "spool")
    assert threads == {"diffusion"}


def test_lanes_go_by_the_threads_of_a_cpu() -> None:
    cpu, gpu = torch.device("cpu"), torch.device("cuda")
    assert [lane_count(None, cpu, threads) for threads in (1, 2, 64)] == [1, 2, AUTO_LANES]
    assert (lane_count(None, gpu, 64), lane_count(3, cpu, 2)) == (1, 3)
