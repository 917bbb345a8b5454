"""What fine-tuned classifiers learn: the topics of texts, and names in sentences."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench.report import Measurement
from bench.rig import Rig
from bench.tuning_runs import Run, run, write_rows
from tests.integration.text_recipe_case import labels_of, sentences, topics
from worker.starter_models import EMBEDDING_MODEL

SEED = 1


def topics_f1(rig: Rig) -> Measurement:
    """Macro F1 over the topics of held-out texts."""
    train, held_out = topics("topics.csv"), topics("topics_held_out.csv")
    trained = _trained(rig, "text_classification", train, held_out)
    sides = trained.sides("valid_macro_f1")
    majority = trained.finished.metrics["after"]["majority_accuracy"]
    told = {"unit": "macro F1", "sides": sides, "majority_accuracy": majority}
    told |= {"accuracy": trained.sides("valid_accuracy")}
    return Measurement(sides["after"], told | trained.about())


def entities_f1(rig: Rig) -> Measurement:
    """F1 over whole entities of held-out sentences, none of whose names is in the training data.

    The baselines: a word's most frequent tag there, and that of most words, which is no name.
    """
    train, held_out = sentences("names.conll"), sentences("names_held_out.conll")
    trained = _trained(rig, "token_classification", train, held_out)
    after = trained.finished.metrics["after"]
    found = json.loads((trained.files / "entities.json").read_text(encoding="utf-8"))
    sides = {"model": after["valid_entity_f1"], "remembering": after["remembering_entity_f1"]}
    return Measurement(
        sides["model"],
        {
            "unit": "entity F1",
            "sides": sides | {"majority": 0.0},
            "word_accuracy": after["valid_word_accuracy"],
            "majority_word_accuracy": found["outside_share"],
            "entities": found["entities"],
            **trained.about(),
        },
    )


def _trained(
    rig: Rig, recipe: str, train: Sequence[dict[str, Any]], held_out: Sequence[dict[str, Any]]
) -> Run:
    """The starter embedding model with a head, every hyperparameter left at ``auto``."""
    folder = rig.folder(recipe)
    return run(
        rig,
        recipe,
        train=write_rows(folder / "train.jsonl", train),
        validation=write_rows(folder / "validation.jsonl", held_out),
        base=str(_base(rig)),
        base_model="all-minilm-l6-v2",
        labels=labels_of(train),
        hyperparameters={"max_steps": 4} if rig.quick else {},
        seed=SEED,
    )


def _base(rig: Rig) -> Path:
    """The starter models lie beside one another."""
    return rig.text_model.parent / EMBEDDING_MODEL
