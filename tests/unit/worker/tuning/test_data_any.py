"""Whatever is uploaded as text is examples or bad lines, and nothing else."""

from __future__ import annotations

import json
from typing import Any

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from shared.lifecycle import BadLine
from shared.specs.fine_tuning import RecipeName
from tests.unit.worker.tuning.data_case import (
    SMALL,
    source,
)
from worker.tuning.data.example import Example
from worker.tuning.data.formats import read_items

TEXT_RECIPES: list[RecipeName] = [
    "supervised",
    "dpo",
    "text_classification",
    "token_classification",
]


@given(
    st.binary(max_size=400), st.sampled_from(TEXT_RECIPES), st.sampled_from(["jsonl", "txt", "csv"])
)
def test_any_bytes_are_examples_or_bad_lines(data: bytes, recipe: RecipeName, suffix: str) -> None:
    items = list(read_items(recipe, source(data, f"a.{suffix}", chunk=7), SMALL))
    lines = data.count(b"\n") + 1
    assert all(item.line is not None and 1 <= item.line <= lines for item in items)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["messages", "role", "content", "prompt", "completion", "text", "label", "tokens",
                 "tags", "input", "chosen", "rejected", "weight", "type", "preferred_output"]
            ),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)  # fmt: skip


@given(st.lists(json_values, max_size=4), st.sampled_from(TEXT_RECIPES))
def test_any_json_is_an_example_or_a_bad_line(values: list[Any], recipe: RecipeName) -> None:
    data = b"".join(json.dumps(value).encode() + b"\n" for value in values)
    items = list(read_items(recipe, source(data), SMALL))
    assert [item.line for item in items] == list(range(1, len(values) + 1))
    for item in items:
        if isinstance(item, BadLine):
            assert item.code
            assert item.message
        else:
            msgspec.json.encode(item.row)


@given(
    st.lists(st.tuples(st.text(min_size=1, max_size=20), st.sampled_from(["x", "y"])), max_size=8),
    st.integers(1, 40),
)
def test_texts_survive_json_lines_unchanged(pairs: list[tuple[str, str]], chunk: int) -> None:
    rows = [{"text": text, "label": label} for text, label in pairs if text.strip()]
    data = b"".join(json.dumps(row).encode() + b"\n" for row in rows)
    items = list(read_items("text_classification", source(data, chunk=chunk), SMALL))
    assert [item.row for item in items if isinstance(item, Example)] == rows
