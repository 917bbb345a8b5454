"""The fake engine's labels: shaped like a real classifier's, the same for the same text."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest

from api.media_objects import Classifications
from worker.engines.fake_labels import LABELS
from worker.engines.fake_responses import fake_result, last_text

ENDPOINT = "/v1/classifications"


def answer(**body: Any) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(
        fake_result(ENDPOINT, json.dumps({"model": "m", **body}).encode(), "m").body
    )
    Classifications.model_validate(found)
    return found


def test_labels_have_shares_of_one() -> None:
    first, second = answer(input=["one", "two words"])["data"]
    for item in (first, second):
        assert {score["label"] for score in item["scores"]} == set(LABELS)
        assert sum(score["score"] for score in item["scores"]) == pytest.approx(1.0)
        assert item["label"] == max(item["scores"], key=lambda s: s["score"])["label"]
    assert first["scores"] != second["scores"]
    assert answer(input="one")["data"][0] == first


def test_top_k_and_usage() -> None:
    found = answer(input=["one", "two words"], top_k=2)
    assert [len(item["scores"]) for item in found["data"]] == [2, 2]
    assert found["usage"] == {"prompt_tokens": 3, "total_tokens": 3}


def test_commands_are_read_from_the_last_text() -> None:
    assert last_text(ENDPOINT, b'{"input": ["a", "b"]}') == "b"
    with pytest.raises(msgspec.ValidationError):
        last_text(ENDPOINT, b'{"input": 3}')
