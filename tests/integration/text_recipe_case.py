"""Data and plans for the recipes of texts: what is committed under ``tests/data/tuning``, in the
form in which a training finds it, and a little that tiny random models can learn."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from transformers import BertConfig, BertModel, LlamaConfig, LlamaForCausalLM

from tests.integration.picture_recipe_case import Told, tell
from tests.integration.tiny_models import make, small
from worker.tuning.messages import DATA, TRAIN_DATA, VALIDATION_DATA, Plan, write_plan

COMMITTED = Path(__file__).resolve().parents[1] / "data" / "tuning"
TINY = "tiny"
STEPS, HALF = 24, 12

Rows = Sequence[dict[str, Any]]


def write_training(
    folder: Path, recipe: str, base: Path, *, train: Rows, valid: Rows, **plan: Any
) -> Path:
    """A folder that a training can be started in."""
    (folder / DATA).mkdir(parents=True)
    for name, rows in ((TRAIN_DATA, train), (VALIDATION_DATA, valid)):
        lines = [json.dumps(row, ensure_ascii=False) + "\n" for row in rows]
        (folder / DATA / name).write_text("".join(lines), encoding="utf-8")
    given = {"model": "ft:tiny", "base_model": TINY, "seed": 5, "labels": labels_of(train)}
    write_plan(folder, Plan(recipe=recipe, base=str(base), **(given | plan)))
    return folder


def train(folder: Path, recipe: str, base: Path, **options: Any) -> Told:
    """``STEPS`` steps in float32, with a checkpoint half way, unless ``options`` say otherwise."""
    numbers = {"precision": "fp32", "batch_size": 8, "max_steps": STEPS, "n_epochs": 50}
    numbers |= {"learning_rate": 2e-3} | options.pop("hyperparameters", {})
    options = {"checkpoint_steps": HALF, "evaluate_steps": HALF, "generate": 0} | options
    return tell(write_training(folder, recipe, base, hyperparameters=numbers, **options))


def tiny_bert(folder: Path) -> Path:
    """Small random numbers, so that it learns in a few steps."""
    return make(folder, BertModel, BertConfig(**_learning("num_key_value_heads")))


def tiny_llama(folder: Path) -> Path:
    return make(folder, LlamaForCausalLM, LlamaConfig(**_learning()))


def _learning(*without: str) -> dict[str, Any]:
    values = small(initializer_range=0.1)
    return {name: value for name, value in values.items() if name not in without}


def labels_of(rows: Rows) -> list[str]:
    tags = {tag for row in rows for tag in row.get("tags", ())}
    return sorted(tags | {row["label"] for row in rows if "label" in row})


def topics(name: str) -> list[dict[str, Any]]:
    """Of ``topics.csv`` or ``topics_held_out.csv``."""
    with (COMMITTED / name).open(newline="", encoding="utf-8") as file:
        return [dict(row) for row in csv.DictReader(file)]


def sentences(name: str) -> list[dict[str, Any]]:
    """Of ``names.conll`` or ``names_held_out.conll``."""
    found = []
    for block in (COMMITTED / name).read_text(encoding="utf-8").strip().split("\n\n"):
        pairs = [line.split(" ") for line in block.splitlines()]
        found.append({"tokens": [p[0] for p in pairs], "tags": [p[1] for p in pairs]})
    return found


def preferences(name: str) -> list[dict[str, Any]]:
    """Of ``preferences.jsonl`` or ``preferences_held_out.jsonl``."""
    lines = (COMMITTED / name).read_text(encoding="utf-8").splitlines()
    return [
        {
            "prompt": row["input"]["messages"],
            "chosen": row["preferred_output"],
            "rejected": row["non_preferred_output"],
        }
        for row in map(json.loads, lines)
    ]
