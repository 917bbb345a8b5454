"""What a fine-tuning job may be asked for: numbers in range, text that can be kept."""

from __future__ import annotations

import json
from typing import Any

import pytest

from api.errors import InvalidFields
from api.parsing import decode_json
from api.tuning_requests import read_tuning
from shared.specs.fine_tuning import FineTuningSpec


def of_supervised(**options: Any) -> dict[str, Any]:
    return {"method": {"type": "supervised", "supervised": options}}


def body(fields: dict[str, Any]) -> bytes:
    whole = {"model": "m", "training_file": "file-a"} | fields
    return json.dumps(whole).replace('"1e999"', "1e999").encode()


@pytest.mark.parametrize(
    "fields",
    [
        {"early_stopping": {"min_delta": "1e999"}},
        {"checkpoints": {"every_steps": 10**30}},
        {"evaluation": {"every_steps": 10**30}},
        of_supervised(lora={"target_modules": ["q_proj", "v\ud800"]}),
        of_supervised(lora={"target_modules": ["a" * 201]}),
        of_supervised(lora={"target_modules": ["(a+)+$"]}),
        {"integrations": [{"type": "wandb", "wandb": {"project": "p", "tags": ["\udfff"]}}]},
        {"integrations": [{"type": "wandb", "wandb": {"project": "p", "tags": ["t" * 129]}}]},
    ],
)
def test_what_could_not_be_kept_is_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(InvalidFields):
        read_tuning(decode_json(body(fields)))


def test_what_is_kept_is_json_that_is_read_again() -> None:
    fields = {
        "early_stopping": {"min_delta": 1e300},
        "checkpoints": {"every_steps": 10**9},
        "integrations": [{"type": "wandb", "wandb": {"project": "p\0", "tags": ["a", "ü"]}}],
        **of_supervised(lora={"target_modules": ["layers.0.q_proj", "to-k"]}),
    }
    stored = json.dumps(read_tuning(decode_json(body(fields))).stored, allow_nan=False)
    again = FineTuningSpec.model_validate_json(stored)
    assert again.options.lora.target_modules == ["layers.0.q_proj", "to-k"]
