"""The image engine's microbatches: who runs with whom, cancelling, trouble."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from tests.integration import tiny_diffusers
from tests.integration.image_case import (
    EDITS,
    apart,
    body_of,
    data_url,
    drawn,
    finish,
    images,
    load,
    one_thread,
    picture,
    row,
    run,
)
from worker.engines.base import Engine, ReportsProgress
from worker.engines.image import ImageEngine
from worker.engines.images.stepping import Microbatch

__all__ = ["one_thread"]

Shared = list[list[str]]
"""The rows (shard-index) of each microbatch, one name an image."""


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_diffusers.save(tmp_path_factory.mktemp("tiny sd"), tiny_diffusers.stable_diffusion)


@pytest.fixture
def spool(tmp_path: Path) -> Path:
    return tmp_path / "spool"


@pytest.fixture
def engine(model: Path, spool: Path) -> ImageEngine:
    return load(model, spool, microbatch=4)


@pytest.fixture
def shared(monkeypatch: pytest.MonkeyPatch) -> Shared:
    """Watches who runs with whom."""
    seen: Shared = []
    original = Microbatch.__init__

    def watched(self: Microbatch, pipeline: Any, able: Any, taken: Any, *more: Any) -> None:
        seen.append([f"{image.row.shard}-{image.row.index}" for image in taken])
        original(self, pipeline, able, taken, *more)

    monkeypatch.setattr(Microbatch, "__init__", watched)
    return seen


def test_rows_of_all_shards_share_and_the_oldest_goes_first(
    engine: ImageEngine, shared: Shared
) -> None:
    engine.submit(1, 1, row(0, n=2))
    engine.submit(2, 1, row(0, size="48x32"))
    engine.submit(3, 1, row(0))
    engine.submit(1, 1, row(1, n=2))
    assert (engine.active_rows, engine.waiting_rows) == (0, 4)
    engine.step()
    assert (engine.active_rows, engine.waiting_rows) == (3, 1)
    assert len(finish(engine)) == 4
    assert shared == [["1-0", "1-0", "3-0", "1-1"], ["2-0"], ["1-1"]]
    assert (engine.active_rows, engine.waiting_rows, engine.busy) == (0, 0, False)


def test_a_step_is_one_denoising_step_and_progress_follows(engine: ImageEngine) -> None:
    contract: Engine = engine
    assert isinstance(contract, ReportsProgress)
    engine.submit(1, 1, row(0, n=6, steps=3))
    steps = []
    while engine.busy:
        results = engine.step()
        steps.append([(item.step, item.steps) for item in engine.progress()])
    # six images in microbatches of four and two: the mean over the row's images; after the last
    # step of each comes one more, which decodes
    assert steps == [[], [(1, 3)], [(2, 3)], [], [], [], [(3, 3)], []]
    assert len(images(results[0])) == 6


def test_rows_that_arrive_meanwhile_wait_their_turn(engine: ImageEngine, shared: Shared) -> None:
    engine.submit(1, 1, row(0))
    engine.step()
    engine.submit(1, 1, row(1))
    assert engine.waiting_rows == 1
    assert [result.index for result in finish(engine)] == [0, 1]
    assert shared == [["1-0"], ["1-1"]]


def test_a_cancelled_row_leaves_its_company_alone(engine: ImageEngine, spool: Path) -> None:
    expected = drawn(run(engine, [row(1, seed=5)])[1])
    engine.submit(1, 1, row(0, seed=4))
    engine.submit(2, 1, row(1, seed=5))
    engine.step()
    engine.cancel(1, 1)
    assert (engine.active_rows, engine.waiting_rows) == (1, 0)
    engine.step()
    assert {item.shard for item in engine.progress()} == {2}
    results = finish(engine)
    assert [result.shard for result in results] == [2]
    assert apart(drawn(results[0]), expected) <= 1


def test_cancelling_everything_ends_the_call_at_once(engine: ImageEngine, shared: Shared) -> None:
    engine.submit(1, 1, row(0, steps=100, n=3))
    engine.submit(1, 1, row(1, steps=100))
    engine.step()
    engine.cancel(1, 1)
    assert not engine.busy
    assert engine.step() == []
    assert engine.progress() == []
    assert len(images(run(engine, [row(2)], shard=2)[2])) == 1
    assert len(shared) == 2


def test_another_epoch_of_the_shard_is_not_meant(engine: ImageEngine) -> None:
    engine.submit(1, 2, row(0))
    engine.cancel(1, 1)
    assert [(result.shard, result.epoch) for result in finish(engine)] == [(1, 2)]


def test_a_waiting_row_can_be_cancelled(engine: ImageEngine, shared: Shared) -> None:
    engine.submit(1, 1, row(0))
    engine.step()
    engine.submit(2, 1, row(0))
    engine.cancel(2, 1)
    assert [result.shard for result in finish(engine)] == [1]
    assert shared == [["1-0"]]


def test_nothing_of_a_cancelled_row_stays_in_the_spool(engine: ImageEngine, spool: Path) -> None:
    engine.submit(1, 1, row(0, n=6, partial_images=3, steps=6, output_format="webp"))
    while not list(spool.glob("*.webp")):
        engine.step()
    engine.step()
    told = {Path(item.preview.path) for item in engine.progress() if item.preview}
    engine.cancel(1, 1)
    assert set(spool.iterdir()) == told, "what the supervisor was told of is its own"


def test_edits_and_generations_take_turns_on_the_same_weights(
    engine: ImageEngine, shared: Shared
) -> None:
    rows = [row(0, seed=1), row(1, endpoint=EDITS, image=data_url(picture())), row(2, seed=1)]
    results = run(engine, rows)
    assert shared == [["1-0", "1-2"], ["1-1"]]
    assert apart(drawn(results[0]), drawn(results[2])) <= 1
    parts = [pipeline.unet for pipeline in engine._loaded.pipelines.values()]
    assert all(part is parts[0] for part in parts)
    counted = sum(p.nbytes for p in parts[0].parameters())
    assert counted < engine.resident_bytes < 4 * counted


class Cramped:
    """A denoiser that fits so many images and so many pixels, as memory would have it."""

    def __init__(self, engine: ImageEngine, most: int, error: Exception | None = None) -> None:
        self.batches: list[int] = []
        unet = engine._loaded.base.unet
        forward = unet.forward

        def cramped(sample: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
            self.batches.append(len(sample) // 2)
            if len(sample) // 2 > most:
                raise error or torch.OutOfMemoryError("CUDA out of memory")
            return forward(sample, *args, **kwargs)

        unet.forward = cramped


def test_out_of_memory_halves_the_microbatch_and_fails_no_row(
    engine: ImageEngine, shared: Shared
) -> None:
    expected = drawn(run(engine, [row(0, seed=9, n=4)])[0])
    cramped = Cramped(engine, most=1)
    result = run(engine, [row(0, seed=9, n=4)])[0]
    assert apart(drawn(result), expected) <= 1
    assert cramped.batches[:3] == [4, 2, 1]
    assert [len(taken) for taken in shared] == [4, 4, 2, 1, 1, 1, 1]


def test_an_image_that_does_not_fit_alone_fails_its_row_only(engine: ImageEngine) -> None:
    Cramped(engine, most=0)
    engine.submit(1, 1, row(0, n=2))
    engine.submit(2, 1, row(0))
    results = finish(engine)
    assert [(result.shard, result.status) for result in results] == [(1, 500), (2, 500)]
    assert body_of(results[0])["error"]["code"] == "out_of_memory"
    assert not engine.busy


def test_what_only_one_row_makes_the_pipeline_refuse_fails_that_row(
    engine: ImageEngine, shared: Shared, monkeypatch: pytest.MonkeyPatch
) -> None:
    pipeline = engine._loaded.base
    encode = type(pipeline).encode_prompt

    def picky(self: Any, prompt: list[str], *args: Any, **kwargs: Any) -> Any:
        if "poison" in prompt:
            raise ValueError("not this one")
        return encode(self, prompt, *args, **kwargs)

    monkeypatch.setattr(type(pipeline), "encode_prompt", picky)
    results = run(engine, [row(0), row(1, "poison"), row(2)])
    assert [results[index].status for index in range(3)] == [200, 500, 200]
    error = body_of(results[1])["error"]
    assert error["code"] == "generation_failed"
    assert "not this one" in error["message"]
    assert shared == [["1-0", "1-1", "1-2"], ["1-0"], ["1-1"], ["1-2"]]


def test_a_broken_device_condemns_the_process(engine: ImageEngine) -> None:
    """On a GPU nobody knows what a RuntimeError has left behind."""
    object.__setattr__(engine._loaded, "device", torch.device("cuda"))
    Cramped(engine, most=0, error=RuntimeError("CUDA error: device-side assert triggered"))
    engine.submit(1, 1, row(0))
    with pytest.raises(RuntimeError, match="device-side"):
        engine.step()


def test_a_pipeline_that_cannot_be_held_runs_in_one_step(
    engine: ImageEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    from worker.engines.images import pipelines

    loaded = engine._loaded
    for task, able in loaded.abilities.items():
        rest = able.parameters - {"callback_on_step_end"}
        loaded.abilities[task] = pipelines.Abilities(
            rest,
            able.default_steps,
            able.guidance_name,
            able.default_guidance,
            able.takes_negative,
            able.needs_negative,
        )
    engine.submit(1, 1, row(0))
    assert [result.status for result in engine.step()] == [200]
    assert engine.progress() == []


def test_capacity_keeps_the_next_microbatch_at_hand(model: Path, tmp_path: Path) -> None:
    assert load(model, tmp_path / "a", microbatch=3).capacity == 6
    assert load(model, tmp_path / "b").capacity == 64
