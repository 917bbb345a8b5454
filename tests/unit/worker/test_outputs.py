"""Result lines: one JSON object a line, whatever the row and the answer contain."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.errors import NotFound
from shared.storage.local import LocalStore
from tests.unit.worker.claims import BODY, CHAT, make_claim
from worker.outputs import (
    RowError,
    error_line,
    response_line,
    slices_prefix,
    stopped_error,
    store_lines,
)
from worker.rows import RowInput

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3)
    ),
    max_leaves=10,
)
ANY_TEXT = st.text(st.characters(exclude_categories=()), max_size=40)  # half surrogates too


def only_line(data: bytes) -> dict[str, Any]:
    assert data.endswith(b"\n")
    assert data.count(b"\n") == 1
    assert b"\r" not in data
    parsed: dict[str, Any] = json.loads(data)
    return parsed


@given(ANY_TEXT, JSON, st.integers(200, 599), st.booleans(), st.sampled_from([None, 0, 2]))
def test_a_response_line_is_one_line_that_carries_the_body_unchanged(
    custom_id: str, body: object, status: int, ascii_only: bool, indent: int | None
) -> None:
    row = RowInput(0, 12, custom_id, CHAT, "m", BODY)
    encoded = json.dumps(body, ensure_ascii=ascii_only, indent=indent)
    line = only_line(
        response_line("batch_1", row, status, encoded.encode("utf-8", "surrogatepass"))
        .decode("utf-8", "surrogatepass").encode("utf-8", "replace")
    )  # fmt: skip
    assert line["custom_id"] == custom_id
    assert line["error"] is None
    assert (line["id"], line["response"]["request_id"]) == ("batch_req_1-12", "req_1-12")
    assert line["response"]["status_code"] == status
    assert json.dumps(line["response"]["body"]) == json.dumps(
        json.loads(encoded.encode("utf-8", "surrogatepass").decode("utf-8", "replace"))
    )


@given(ANY_TEXT | st.none(), ANY_TEXT, ANY_TEXT)
def test_an_error_line_is_one_line(custom_id: str | None, code: str, message: str) -> None:
    line = only_line(error_line("batch_1", 3, custom_id, RowError(code, message)))
    assert (line["custom_id"], line["response"]) == (custom_id, None)
    assert line["error"] == {"code": code, "message": message}


def test_a_repeated_attempt_writes_the_same_bytes() -> None:
    row = RowInput(0, 1, "a", CHAT, "m", BODY)
    assert response_line("batch_1", row, 200, b"{}") == response_line("batch_1", row, 200, b"{}")


@pytest.mark.parametrize(
    ("reason", "code"), [("expired", "batch_expired"), ("cancelled", "batch_cancelled"),
                         (None, "batch_cancelled")]
)  # fmt: skip
def test_stopped_rows_say_why(reason: str | None, code: str) -> None:
    assert stopped_error(reason).code == code


def test_attempts_store_apart_and_the_cleaners_folder_holds_them_all(tmp_path: Path) -> None:
    store = LocalStore(tmp_path / "artifacts", "x" * 16)
    stored = []
    for ordinal, epoch in [(0, 1), (0, 2), (10, 1)]:
        claim = make_claim(7, kind="batch", ordinal=ordinal, epoch=epoch)
        stored.append(store_lines(store, claim, "output.jsonl", [b"a\n", b"b\n"]))
        assert store_lines(store, claim, "errors.jsonl", []) is None
    kept = store.put_bytes("t/ten_a/j/batch_7/final/e1/output.jsonl", b"x", media_type="text/plain")
    keys = {item.key for item in stored if item is not None}
    assert len(keys) == 3
    assert b"".join(store.read(sorted(keys)[0])) == b"a\nb\n"
    assert store.delete_prefix(slices_prefix("ten_a", "batch_7")) == 3
    for key in keys:
        with pytest.raises(NotFound):
            store.size(key)
    assert store.size(kept.key) == 1
