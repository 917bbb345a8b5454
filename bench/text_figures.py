"""Text batches through the whole plant, against bare transformers on the same weights."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

from bench.batches import Batch, run_batch
from bench.beside import beside
from bench.report import GREEDY, Measurement, median
from bench.rig import Rig, logged
from shared.models_catalog import ModelEntry
from tests.plant import Plant

MODEL = "smollm2"
STATIC_ROWS = (32, 64, 128)
STATIC, ONE_BY_ONE = "static_", "one_by_one"
LEAST_NEW, MOST_NEW = 16, 128
NEW_TOKENS = (LEAST_NEW + MOST_NEW) // 2
"""The mean of the batch: equal for every row of a static microbatch, which is its best case."""
BATCH_SECONDS = 600.0
SUBJECTS = (
    "a lighthouse keeper", "the first winter on Mars", "a baker who cannot taste", "two rivers",
    "an old violin", "the last train home", "a city under glass", "a letter that came late",
)  # fmt: skip


def rows(count: int) -> list[dict[str, Any]]:
    """Chat rows, greedy, whose lengths are spread evenly over 16 to 128 new tokens."""
    made = []
    for number in range(count):
        # A step coprime to the span visits every length before any twice.
        length = LEAST_NEW + (number * 41) % (MOST_NEW - LEAST_NEW + 1)
        told = "Take your time, and describe every detail. " * (number % 3)
        content = f"Write a very long story about {SUBJECTS[number % len(SUBJECTS)]}. {told}"
        body = {
            "model": MODEL,
            "messages": [{"role": "user", "content": f"{content}(Version {number})"}],
            "max_tokens": length,
            "temperature": 0,
        }
        made.append(
            {
                "custom_id": f"row-{number}",
                "method": "POST",
                "url": "/v1/chat/completions",
                "body": body,
            }
        )
    return made


def vs_static(rig: Rig) -> Measurement:
    """The plant's tokens a second over the best static microbatch of bare ``generate``."""
    measured = _measure(rig)
    rates = measured["rates"]
    best = max((name for name in rates if name.startswith(STATIC)), key=rates.__getitem__)
    return _figure(measured, best)


def vs_one_by_one(rig: Rig) -> Measurement:
    """The plant's tokens a second over one row at a time on bare ``generate``."""
    return _figure(_measure(rig), ONE_BY_ONE)


def _figure(measured: dict[str, Any], other: str) -> Measurement:
    rates = measured["rates"]
    sides = {"plant": rates["plant"], other: rates[other]}
    return Measurement(
        rates["plant"] / rates[other], {"unit": "tokens/s", "sides": sides, **measured}
    )


@cache
def _measure(rig: Rig) -> dict[str, Any]:
    """Both figures are of one run: each round a batch, every static size, one row alone."""
    count = 16 if rig.quick else 128
    sizes = (16,) if rig.quick else STATIC_ROWS
    entry = ModelEntry(id=MODEL, engine="text", source=str(rig.text_model))
    file = _input_file(rig, rows(count))
    samples: dict[str, list[float]] = {}
    batches: list[Batch] = []
    with (
        rig.plant(models=(entry,), settings={"LOG_LEVEL": "INFO"}) as plant,
        beside(rig, "bench.bare_text", str(rig.text_model)) as bare,
    ):
        plant.start()
        run_batch(plant, _input_file(rig, rows(4)), BATCH_SECONDS)  # loads the model
        dtype = _dtype(plant)
        for _ in range(rig.rounds):
            batches.append(run_batch(plant, file, BATCH_SECONDS))
            samples.setdefault("plant", []).append(batches[-1].tokens / batches[-1].seconds)
            for size in (1, *sizes):
                name = ONE_BY_ONE if size == 1 else f"{STATIC}{size}"
                rate = bare.ask(dtype=dtype, rows=size, new_tokens=NEW_TOKENS)
                samples.setdefault(name, []).append(rate)
        differing = bare.ask(agreement=2 if rig.quick else 12)
    return {
        "rates": {name: median(found) for name, found in samples.items()},
        "samples": samples,
        "rows": count,
        "tokens_per_batch": [batch.tokens for batch in batches],
        "tokens_wanted": sum(row["body"]["max_tokens"] for row in rows(count)),
        "phases_s": batches[-1].phases,
        "bare_new_tokens_per_row": NEW_TOKENS,
        "dtype": dtype,
        GREEDY: differing,
    }


def _dtype(plant: Plant) -> str:
    """What the plant's engine chose on this machine: bare transformers runs in the same."""
    return str(logged(plant, "worker-0", "engine_ready")[-1]["detail"]["dtype"])


def _input_file(rig: Rig, lines: list[dict[str, Any]]) -> Path:
    path = rig.folder("input") / "input.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path
