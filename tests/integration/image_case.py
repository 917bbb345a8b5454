"""What the tests of the image engine share: an engine on a tiny model, rows, pictures."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from worker.engines.image import ImageEngine, create
from worker.engines.pictures import encode_picture
from worker.engines.protocol import Load, OutputFile, Row, RowResult

GENERATIONS = "/v1/images/generations"
EDITS = "/v1/images/edits"
VARIATIONS = "/v1/images/variations"
URL = "http://plant"


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """Threads that wait for each other on a busy machine make tiny models slow."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def load(model: Path, spool: Path, **settings: Any) -> ImageEngine:
    given = {"dtype": "float32", "device": "cpu", "default_steps": 4, **settings}
    spool.mkdir(exist_ok=True)
    message = Load("tiny", "image", str(model), given, str(spool), URL)
    return create(message, lambda fraction, detail: None)


def row(
    index: int,
    prompt: str | None = "a red square",
    *,
    endpoint: str = GENERATIONS,
    inputs: dict[str, str] | None = None,
    **body: Any,
) -> Row:
    given = {"model": "tiny", **({} if prompt is None else {"prompt": prompt}), **body}
    return Row(index, endpoint, json.dumps(given).encode(), f"job_1-{index}", inputs or {})


def body_of(result: RowResult) -> dict[str, Any]:
    body: dict[str, Any] = json.loads(result.body)
    return body


def refused(engine: ImageEngine, given: Row) -> dict[str, Any]:
    """The error of a row that is not taken."""
    result = engine.submit(1, 1, given)
    assert result is not None, "the row was taken"
    assert result.status == 400
    error: dict[str, Any] = body_of(result)["error"]
    return error


def run(engine: ImageEngine, rows: list[Row], shard: int = 1) -> dict[int, RowResult]:
    for given in rows:
        answer = engine.submit(shard, 1, given)
        assert answer is None, answer
    return {result.index: result for result in finish(engine)}


def finish(engine: ImageEngine) -> list[RowResult]:
    results: list[RowResult] = []
    while engine.busy:
        results += engine.step()
    return results


def images(result: RowResult) -> list[OutputFile]:
    assert result.status == 200, result.body
    return [file for file in result.files if file.role == "image"]


def pixels(file: OutputFile) -> NDArray[np.int_]:
    """(height, width, 3) of 0..255."""
    return np.asarray(Image.open(file.path).convert("RGB")).astype(int)


def drawn(result: RowResult) -> NDArray[np.int_]:
    """(images, height, width, 3) of 0..255."""
    return np.stack([pixels(file) for file in images(result)])


def apart(one: NDArray[np.int_], other: NDArray[np.int_]) -> int:
    """The largest difference of two pictures, of 255."""
    return int(np.abs(one - other).max())


def picture(width: int = 32, height: int = 32, colour: str = "red") -> Image.Image:
    """A coloured square on a gradient."""
    across = np.linspace(0, 255, width, dtype=np.uint8)[None].repeat(height, 0)
    ground = Image.fromarray(np.stack([across, across, across], axis=-1))
    ground.paste(colour, (width // 4, height // 4, width // 2, height // 2))
    return ground


def mask(width: int = 32, height: int = 32) -> Image.Image:
    """Its right half is transparent."""
    made = Image.new("RGBA", (width, height), "black")
    made.paste((0, 0, 0, 0), (width // 2, 0, width, height))
    return made


def data_url(given: Image.Image) -> str:
    return "data:image/png;base64," + base64.b64encode(encode_picture(given, "png")).decode()
