"""Rows of batches that name no model: who moderates them is settled when the batch is validated."""

from __future__ import annotations

import json
from types import MappingProxyType
from typing import Any

import pytest

from shared.db.models import Model
from worker.rows import slice_rows
from worker.upkeep.validation import BatchValidator, Verdict

ENDPOINT = "/v1/moderations"


def model(name: str, *endpoints: str) -> Model:
    return Model(name, "text", "classifier", "", list(endpoints), {}, "us", 0)


MODELS = {
    name: model(name, *endpoints)
    for name, endpoints in {
        "a-writer": ["/v1/chat/completions"],
        "b-guard": ["/v1/classifications"],
        "c-guard": ["/v1/classifications", ENDPOINT],
    }.items()
}
WITHOUT = {name: MODELS[name] for name in ("a-writer", "b-guard")}


def lines(*bodies: dict[str, Any]) -> bytes:
    rows = [
        {"custom_id": str(n), "method": "POST", "url": ENDPOINT, "body": body}
        for n, body in enumerate(bodies)
    ]
    return b"".join(json.dumps(row).encode() + b"\n" for row in rows)


def validate(
    data: bytes,
    models: dict[str, Model] = MODELS,
    *,
    configured: str | None = None,
    aliases: MappingProxyType[str, str] = MappingProxyType({}),
) -> Verdict:
    validator = BatchValidator(
        endpoint=ENDPOINT, models=models, aliases=aliases, max_rows=10, max_line_bytes=1_000,
        max_reported=10, moderation_model=configured,
    )  # fmt: skip
    return validator.run(lambda: [data])


@pytest.mark.parametrize(
    ("configured", "expected"),
    [(None, "c-guard"), ("b-guard", "b-guard"), ("guard@production", "b-guard")],
)
def test_rows_without_a_model_get_the_one_that_moderates(
    configured: str | None, expected: str
) -> None:
    data = lines({"input": "x"}, {"input": "y", "model": None}, {"input": "z", "model": "b-guard"})
    aliases = MappingProxyType({"guard@production": "b-guard"})
    verdict = validate(data, configured=configured, aliases=aliases)
    assert verdict.errors == []
    assert verdict.models == {"": expected}
    rows = slice_rows([data], 1, None, verdict.models)
    assert [row.model for row in rows] == [expected, expected, "b-guard"]


@pytest.mark.parametrize("configured", [None, "gone"])
def test_without_one_each_row_is_refused(configured: str | None) -> None:
    verdict = validate(lines({"input": "x"}, {"input": "y"}), WITHOUT, configured=configured)
    assert [(error.line, error.code, error.param) for error in verdict.errors] == [
        (1, "moderation_not_configured", "model"),
        (2, "moderation_not_configured", "model"),
    ]


def test_a_model_that_labels_nothing_does_not_moderate() -> None:
    verdict = validate(lines({"input": "x", "model": "a-writer"}), configured="a-writer")
    assert [(error.line, error.code) for error in verdict.errors] == [(1, "model_not_found")]
