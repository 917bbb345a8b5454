"""The image engine where it lives: in a child process, across the pipe."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from multiprocessing.connection import wait
from pathlib import Path

import pytest

from tests.integration import tiny_diffusers
from tests.integration.image_case import apart, drawn, images, load, one_thread, row, run
from worker.engines.child import EngineChild
from worker.engines.protocol import Cancelled, FromEngine, Load, Progressing, RowResult, RowsDone

__all__ = ["one_thread"]

PATIENCE_SECONDS = 250
Heard = list[FromEngine]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_diffusers.save(tmp_path_factory.mktemp("tiny sd"), tiny_diffusers.stable_diffusion)


@pytest.fixture(scope="module")
def child(
    model: Path, tmp_path_factory: pytest.TempPathFactory, one_thread: None
) -> Iterator[EngineChild]:
    settings = {"dtype": "float32", "device": "cpu", "threads": 1, "max_steps": 500}
    spool = tmp_path_factory.mktemp("the spool")
    environment = {"PATH": os.defpath, "HOME": str(spool)}
    load = Load("tiny", "image", str(model), settings, str(spool), "http://plant")
    started = EngineChild.spawn(load, environment=environment)
    yield started
    started.kill()


def listen(child: EngineChild, until: Callable[[Heard], bool]) -> Heard:
    heard: Heard = []
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not until(heard):
        assert time.monotonic() < deadline, f"heard only {heard[-3:]}"
        wait([child.pipe], timeout=1)  # type: ignore[list-item]
        heard += child.receive()
    return heard


def results(heard: Heard) -> list[RowResult]:
    return [result for news in heard if isinstance(news, RowsDone) for result in news.results]


def test_progress_previews_files_and_the_same_image_as_in_this_process(
    child: EngineChild, model: Path, tmp_path: Path
) -> None:
    listen(child, lambda _: child.state == "ready")
    given = row(0, seed=5, steps=8, partial_images=2)
    child.submit(1, 1, [given])
    heard = listen(child, lambda heard: bool(results(heard)))
    news = [item for told in heard if isinstance(told, Progressing) for item in told.rows]
    assert news[0].step == 1
    assert [item.step for item in news] == sorted(item.step for item in news)
    assert {item.steps for item in news} == {8}
    previews = [item.preview for item in news if item.preview is not None]
    assert [preview.name for preview in previews] == ["preview-1.png", "preview-2.png"]
    assert all(Path(preview.path).is_file() for preview in previews)
    expected = run(load(model, tmp_path / "spool"), [given])[0]
    assert apart(drawn(results(heard)[0]), drawn(expected)) <= 1


def test_a_cancel_takes_effect_amid_a_long_row(child: EngineChild) -> None:
    listen(child, lambda _: child.state == "ready")
    child.submit(2, 1, [row(0, steps=500, n=10)])
    listen(child, lambda heard: any(isinstance(told, Progressing) for told in heard))
    child.cancel(2, 1)
    child.submit(3, 1, [row(0)])
    heard = listen(child, lambda heard: bool(results(heard)))
    assert Cancelled(2, 1) in heard
    assert [result.shard for result in results(heard)] == [3]
    assert len(images(results(heard)[0])) == 1
