"""Tiny models, and examples to look at them with, for evaluations and optimisations."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from transformers import (
    BertConfig,
    BertForSequenceClassification,
    BertForTokenClassification,
    LlamaConfig,
    LlamaForCausalLM,
)

from tests.integration.picture_recipe_case import Told, tell
from tests.integration.tiny_models import make, small
from worker.tuning.messages import (
    DATA,
    TRAIN_DATA,
    VALIDATION_DATA,
    Optimization,
    Plan,
    Subject,
    write_plan,
)

LABELS, TAGS = ["dull", "fine"], ["O", "B-town", "I-town"]
FLOAT = {"dtype": "float32", "device": "cpu"}
CONVERSATIONS: list[dict[str, Any]] = [
    {
        "messages": [
            {"role": "user", "content": f"the quick brown fox {number}"},
            {"role": "assistant", "content": "jumps over a lazy dog"},
        ]
    }
    for number in range(6)
]
TEXTS: list[dict[str, Any]] = [
    {"text": f"seven rivers carry old boats {number}", "label": LABELS[number % 2]}
    for number in range(10)
]
SENTENCES: list[dict[str, Any]] = [
    {"tokens": ["the", "old", "sea", "town"], "tags": ["O", "B-town", "I-town", "O"]},
    {"tokens": ["boats", "to", "rivers"], "tags": ["O", "O", "B-town"]},
]


def writer(folder: Path, **more: Any) -> Path:
    return make(folder, LlamaForCausalLM, LlamaConfig(**small(**more)))


def sorter(folder: Path) -> Path:
    return make(folder, BertForSequenceClassification, _bert(LABELS))


def finder(folder: Path) -> Path:
    return make(folder, BertForTokenClassification, _bert(TAGS))


def _bert(labels: Sequence[str]) -> BertConfig:
    names = dict(enumerate(labels))
    numbers = {label: number for number, label in names.items()}
    values = {name: value for name, value in small().items() if name != "num_key_value_heads"}
    return BertConfig(**values | {"pad_token_id": 0, "id2label": names, "label2id": numbers})


def subject(source: Path, name: str = "tiny", engine: str = "text", **more: Any) -> Subject:
    given = {"settings": FLOAT} | more
    return Subject(name=name, engine=engine, source=str(source), **given)


def run_plan(folder: Path, rows: Sequence[dict[str, Any]], plan: Plan) -> Told:
    """The plan's story, told to its end in this process."""
    (folder / DATA).mkdir(parents=True)
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    (folder / DATA / VALIDATION_DATA).write_text(lines, encoding="utf-8")
    (folder / DATA / TRAIN_DATA).write_bytes(b"")
    write_plan(folder, plan)
    return tell(folder)


def evaluate(
    folder: Path,
    rows: Sequence[dict[str, Any]],
    *subjects: Subject,
    measured_as: str = "supervised",
    metric: str = "loss",
) -> Told:
    plan = Plan(
        recipe="evaluate",
        model="",
        hyperparameters={"precision": "fp32"},
        generate=len(rows),
        subjects=list(subjects),
        measured_as=measured_as,
        metric=metric,
    )
    return run_plan(folder, rows, plan)


def optimize(
    folder: Path,
    rows: Sequence[dict[str, Any]],
    source: Subject,
    method: dict[str, Any],
    *,
    measured_as: str = "supervised",
    metric: str = "loss",
    goes_up: bool = False,
    max_drop: float = 10.0,
) -> Told:
    plan = Plan(
        recipe="optimize",
        model="ft:tiny:ten:int8:01234567",
        base=source.source,
        base_model=source.name,
        hyperparameters={"precision": "fp32"},
        generate=len(rows),
        subjects=[source],
        measured_as=measured_as,
        metric=metric,
        goes_up=goes_up,
        optimization=Optimization(method=method, max_drop=max_drop),
    )
    return run_plan(folder, rows, plan)
