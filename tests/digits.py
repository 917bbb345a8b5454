"""scikit-learn's 1,797 handwritten digits, as a training finds its data.

They are 8 by 8 pixels of 17 greys, come inside the package, and are the real thing: people wrote
them. Used by tests and by the measurements of ``bench``.
"""

from __future__ import annotations

import functools
import json
import os
import random
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from worker.tuning.messages import (
    DATA,
    MESSAGES,
    TRAIN_DATA,
    VALIDATION_DATA,
    Finished,
    Plan,
    decode,
    write_plan,
)

ROOT = Path(__file__).resolve().parents[1]
CLASSES = [str(number) for number in range(10)]
HELD_OUT = 0.1


@functools.cache
def digits() -> tuple[NDArray[np.uint8], tuple[str, ...]]:
    """(1797, 8, 8) of 0..255, and the digit of each.

    Only the package's file is read: importing it takes seconds, and half of scipy.
    """
    package = find_spec("sklearn")
    assert package is not None
    assert package.origin is not None
    table = np.loadtxt(Path(package.origin).parent / "datasets/data/digits.csv.gz", delimiter=",")
    greys = np.round(table[:, :-1].reshape(-1, 8, 8) * (255 / 16)).astype(np.uint8)
    return greys, tuple(str(int(target)) for target in table[:, -1])


def write_digits(
    folder: Path, *, most: int | None = None, seed: int = 0, labelled: bool = True
) -> None:
    """``data/`` of a training's folder: PNGs, ``train.jsonl``, ``validation.jsonl``.

    ``most`` takes only so many, all digits alike often.
    """
    greys, labels = digits()
    places = _shuffled(labels, seed)[:most]
    data = folder / DATA
    (data / "images").mkdir(parents=True)
    held_out = max(1, round(HELD_OUT * len(places)))
    split = {VALIDATION_DATA: places[:held_out], TRAIN_DATA: places[held_out:]}
    for name, chosen in split.items():
        lines = (_write(data, place, greys, labels, labelled) for place in chosen)
        (data / name).write_text("".join(json.dumps(line) + "\n" for line in lines))


def plan_digits(folder: Path, recipe: str, *, most: int | None = None, **plan: Any) -> Path:
    """A folder that ``python -m worker.recipes`` can run."""
    labelled = bool(plan.get("labels", CLASSES))
    write_digits(folder, most=most, labelled=labelled)
    given = {"model": f"ft:{recipe}:ten_test::00000000", "labels": CLASSES, **plan}
    write_plan(folder, Plan(recipe=recipe, **given))
    return folder


def _shuffled(labels: tuple[str, ...], seed: int) -> list[int]:
    """All places, so that any beginning of them has every digit about alike often."""
    by_digit: dict[str, list[int]] = {}
    for place, label in enumerate(labels):
        by_digit.setdefault(label, []).append(place)
    draw = random.Random(seed)
    for found in by_digit.values():
        draw.shuffle(found)
    turns = max(map(len, by_digit.values()))
    return [
        by_digit[label][turn]
        for turn in range(turns)
        for label in sorted(by_digit)
        if turn < len(by_digit[label])
    ]


def _write(
    data: Path, place: int, greys: NDArray[np.uint8], labels: tuple[str, ...], labelled: bool
) -> dict[str, Any]:
    path = f"images/{place + 1:06}.png"
    Image.fromarray(greys[place]).save(data / path)
    return {"image": path, "label": labels[place] if labelled else None}


MEASURED: dict[str, dict[str, Any]] = {
    "diffusion": {"learning_rate": 1e-3, "max_steps": 900},
    "gan": {"learning_rate": 1e-3, "max_steps": 600},
    "vae": {"learning_rate": 2e-3, "max_steps": 600},
}
"""Hyperparameters of the measurements, beside those that all have."""
DRAWN = 200


def measure_digits(
    folder: Path, recipe: str, *, threads: int = 1, seed: int = 1, steps: int | None = None
) -> dict[str, Any]:
    """The whole training on all digits, as a worker starts it: minutes. Networks this small gain
    nothing from more than one thread, and lose much to other programs.

    Returns what ``Finished`` says (``before``, ``after``, ``training_seconds``, …) and, over all,
    ``seconds``. ``folder`` must not exist; sample sheets are in its ``result/files``. ``steps``
    instead of those in ``MEASURED``. Raises RuntimeError with what the training said when it fails.
    """
    common = {"batch_size": 64, "n_epochs": 50, "precision": "fp32"}
    numbers = common | MEASURED[recipe] | ({} if steps is None else {"max_steps": steps})
    plan_digits(folder, recipe, hyperparameters=numbers, generate=DRAWN, seed=seed)
    began = time.monotonic()
    ended = subprocess.run(
        [sys.executable, "-m", "worker.recipes", str(folder)],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": str(threads)},
        capture_output=True,
        text=True,
        check=False,
    )
    seconds = time.monotonic() - began
    lines = (folder / MESSAGES).read_bytes().splitlines() if ended.returncode == 0 else []
    last = decode(lines[-1]) if lines else None
    if not isinstance(last, Finished):
        raise RuntimeError(f"{recipe} ended with {last}: {ended.stderr[-2000:]}")
    return {**last.metrics, "seconds": seconds}
