"""The page on fine-tuning prints the rules that are in force, and names every method."""

from __future__ import annotations

from pathlib import Path
from typing import get_args

from shared.specs.fine_tuning import Hyperparameters, RecipeName
from worker.recipes.auto import rules_table

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "fine-tuning.md").read_text()


def test_the_rules_are_those_of_the_code() -> None:
    assert rules_table().strip() in PAGE


def test_every_method_and_hyperparameter_is_named() -> None:
    for name in (*get_args(RecipeName), *Hyperparameters.model_fields):
        assert f"`{name}`" in PAGE, name
