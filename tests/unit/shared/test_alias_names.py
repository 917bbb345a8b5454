"""What may be the name of an alias, and what a body may say of one."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from shared.specs.aliases import AliasMoveSpec, AliasSpec, is_alias_name


@pytest.mark.parametrize(
    "name",
    ["news-writer@production", "a@b", "0.1_x@9", "a" * 64 + "@" + "b" * 32],
)
def test_these_are_names(name: str) -> None:
    assert is_alias_name(name)
    assert AliasSpec.model_validate({"name": name}).name == name


@pytest.mark.parametrize(
    "name",
    [
        "", "@", "news-writer", "@production", "a@", "A@b", "a@B", "a@b@c", "-a@b", "a@-b", ".a@b",
        "ft:writer@b", "models/a@b", "a b@c", "ä@b", "a@b\n", "a@b\0", "٣@b",
        "a" * 65 + "@b", "a@" + "b" * 33,
    ],
)  # fmt: skip
def test_these_are_none(name: str) -> None:
    assert not is_alias_name(name)
    with pytest.raises(ValidationError):
        AliasSpec.model_validate({"name": name})


@pytest.mark.parametrize(
    "gate",
    [
        {},
        {"evaluation_file": "file-1"},
        {"evaluation_file": "file-1", "metric": "loss", "min_improvement": float("nan")},
        {"evaluation_file": "file-1", "metric": "loss", "min_improvement": 1e300},
        {"evaluation_file": "file-1", "metric": "loss", "min_improvement": "0"},
        {"evaluation_file": "file-1", "metric": "loss", "direction": "up"},
        {"evaluation_file": "file-1", "metric": "loss", "max_examples": 0},
        {"evaluation_file": "file-1", "metric": "lo ss"},
        {"evaluation_file": "file-1", "metric": "loss", "more": 1},
    ],
)
def test_gates_that_make_no_sense_are_refused(gate: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        AliasMoveSpec.model_validate({"model": "m", "gate": gate})


def test_a_gate_asks_for_any_improvement_unless_told() -> None:
    asked = AliasMoveSpec.model_validate(
        {"model": "m", "gate": {"evaluation_file": "file-1", "metric": "loss"}}
    )
    assert asked.gate is not None
    assert asked.gate.min_improvement == 0.0
    assert "expected_model" not in asked.model_fields_set
