"""Validation of a batch's input: every bad line by number and code, good files cut into slices."""

from __future__ import annotations

import json
import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.db.models import Model
from shared.errors import StorageUnavailable
from tests.unit.worker.claims import CHAT
from worker.rows import slice_rows
from worker.upkeep.costs import expected_seconds
from worker.upkeep.validation import BatchValidator, Verdict

IMAGES = "/v1/images/generations"
SPEECH = "/v1/audio/speech"
VIDEOS = "/v1/videos"
COMPOSITIONS = "/v1/videos/compositions"
CAMPAIGNS = "/v1/campaigns"

MODELS: dict[str, Model] = {
    name: Model(name, pool, engine, "", endpoints, settings, "us", 0)
    for name, pool, engine, endpoints, settings in [
        ("m", "text", "fake", [CHAT, "/v1/completions"], {}),
        ("slow", "text", "text", [CHAT], {"tokens_per_second": 10}),
        ("large", "a100", "fake", [CHAT], {}),
        ("e", "text", "embedding", ["/v1/embeddings"], {}),
        ("i", "image", "image", [IMAGES], {"images_per_second": 0.5, "default_steps": 20}),
        ("s", "speech", "speech", [SPEECH], {}),
        ("v", "video", "video", [VIDEOS], {}),
        ("c", "video", "composer", [VIDEOS, COMPOSITIONS], {}),
    ]
}


def row(custom_id: Any = "a", model: str = "m", **fields: Any) -> dict[str, Any]:
    body = {"model": model, "messages": [{"role": "user", "content": "hello"}]}
    return {"custom_id": custom_id, "method": "POST", "url": CHAT, "body": body} | fields


def jsonl(*rows: dict[str, Any]) -> bytes:
    return b"".join(json.dumps(each).encode() + b"\n" for each in rows)


def validate(
    data: bytes,
    *,
    chunk: int = 1_000,
    endpoint: str = CHAT,
    max_rows: int = 1_000,
    max_line_bytes: int = 4_096,
    max_reported: int = 100,
) -> Verdict:
    validator = BatchValidator(
        endpoint=endpoint,
        models=MODELS,
        max_rows=max_rows,
        max_line_bytes=max_line_bytes,
        max_reported=max_reported,
    )
    return validator.run(lambda: [data[n : n + chunk] for n in range(0, len(data), chunk)])


def found(verdict: Verdict) -> list[tuple[int | None, str, str | None]]:
    return [(error.line, error.code, error.param) for error in verdict.errors]


def test_a_good_file_has_slices_and_no_errors() -> None:
    data = jsonl(*(row(str(n)) for n in range(600)))
    verdict = validate(data)
    assert (verdict.bad_lines, verdict.errors, verdict.rows) == (0, [], 600)
    assert [part.row_count for part in verdict.slices] == [256, 256, 88]
    assert [part.first_line for part in verdict.slices] == [1, 257, 513]
    assert (verdict.slices[0].byte_start, verdict.slices[-1].byte_end) == (0, len(data))


BODY = json.dumps(row()["body"])
MISSING, UNKNOWN = "missing_required_parameter", "unsupported_parameter"


def with_parameter(name: str, value: object) -> bytes:
    return json.dumps(row(body=row()["body"] | {name: value})).encode()


def with_text(old: str, new: str) -> bytes:
    return json.dumps(row()).replace(old, new).encode()


BAD_LINES: dict[str, tuple[bytes, str, str | None]] = {
    "no json": (b"hello", "invalid_json_line", None),
    "cut off": (json.dumps(row()).encode()[:-2], "invalid_json_line", None),
    "two objects": (json.dumps(row()).encode() * 2, "invalid_json_line", None),
    "NUL": (b'{"custom_id": "a\x00"}', "invalid_json_line", None),
    "only NULs": (b"\x00\x00", "invalid_json_line", None),
    "half a surrogate pair": (b'{"custom_id": "\\ud800"}', "invalid_json_line", None),
    "half a surrogate pair in the prompt": (
        json.dumps(row()).replace("hello", "\\ud800").encode(), "invalid_json_line", None),
    "not UTF-8": (json.dumps(row()).encode().replace(b"hello", b"\xff"), "invalid_encoding", None),
    "UTF-16": (json.dumps(row()).encode("utf-16"), "invalid_encoding", None),
    "byte order mark": (b"\xef\xbb\xbf" + json.dumps(row()).encode(), "invalid_encoding", None),
    "list": (b"[]", "invalid_request", None),
    "number": (b"1", "invalid_request", None),
    "too long": (b" " * 4_096 + json.dumps(row()).encode(), "line_too_long", None),
    "no custom_id": (b'{"method":"POST","url":"/v1","body":{}}', MISSING, "custom_id"),
    "no body": (b'{"custom_id":"a","method":"POST","url":"/v1"}', MISSING, "body"),
    "custom_id is a number": (json.dumps(row(7)).encode(), "invalid_request", "custom_id"),
    "custom_id is empty": (json.dumps(row("")).encode(), "invalid_request", "custom_id"),
    "custom_id is too long": (json.dumps(row("x" * 513)).encode(), "invalid_request", "custom_id"),
    "another field": (json.dumps(row(colour="red")).encode(), "unsupported_parameter", "colour"),
    "a field with a treacherous name": (
        json.dumps(row() | {"missing required field `x`": 1}).encode(),
        "unsupported_parameter", "missing required field `x`"),
    "GET": (json.dumps(row(method="GET")).encode(), "invalid_request", "method"),
    "unknown url": (json.dumps(row(url="/v1/edits")).encode(), "invalid_url", "url"),
    "other endpoint": (json.dumps(row(url="/v1/embeddings")).encode(), "url_mismatch", "url"),
    "unknown model": (json.dumps(row(model="x")).encode(), "model_not_found", "model"),
    "model of another endpoint": (json.dumps(row(model="e")).encode(), "model_not_found", "model"),
    "body is a list": (json.dumps(row(body=[])).encode(), "invalid_request", None),
    "no messages": (json.dumps(row(body={"model": "m"})).encode(), "invalid_request", "messages"),
    "unknown parameter": (with_parameter("tools", []), UNKNOWN, "tools"),
    "stream": (with_parameter("stream", True), "streaming_unsupported", "stream"),
    "temperature": (with_parameter("temperature", 9), "invalid_request", "temperature"),
    "huge number": (
        with_text('"model"', '"seed": ' + "9" * 3_000 + ', "model"'), "invalid_request", "seed"),
    "infinity": (
        with_text('"model"', '"temperature": 1e999, "model"'), "invalid_request", "temperature"),
    "NaN": (json.dumps(row(body=float("nan"))).encode(), "invalid_json_line", None),
    "model twice, once not text": (
        with_text('"model"', '"model": 3, "model"'), "invalid_request", "model"),
}  # fmt: skip


@pytest.mark.parametrize("kind", BAD_LINES)
def test_a_bad_line_is_named_by_number_and_code(kind: str) -> None:
    line, code, param = BAD_LINES[kind]
    data = jsonl(row("first")) + line + b"\n" + jsonl(row("last"))
    for chunk in (1_000_000, 7):
        verdict = validate(data, chunk=chunk)
        assert found(verdict) == [(2, code, param)]
        assert verdict.errors[0].message
        assert (verdict.bad_lines, verdict.slices) == (1, [])


def test_all_bad_lines_are_reported_in_order() -> None:
    data = b"\n".join(
        line.replace(b'"a"', json.dumps(f"id-{n}").encode()) for n, (line, _, _) in
        enumerate(BAD_LINES.values()) if len(line) < 4_000
    )  # fmt: skip
    verdict = validate(data)
    assert verdict.bad_lines == verdict.rows == data.count(b"\n") + 1
    assert [error.line for error in verdict.errors] == list(range(1, verdict.rows + 1))


@pytest.mark.parametrize("depth", [300, 5_000, 100_000])
@pytest.mark.parametrize("where", ["line", "body", "field"])
def test_deep_nesting_is_refused(depth: int, where: str) -> None:
    nest = b"[" * depth + b"]" * depth
    line = {
        "line": nest,
        "body": json.dumps(row()).replace(BODY, "NEST").encode().replace(b"NEST", nest),
        "field": json.dumps(row()).replace('"hello"', "NEST").encode().replace(b"NEST", nest),
    }[where]
    verdict = validate(jsonl(row("b")) + line, max_line_bytes=2**20)
    ((number, code, _),) = found(verdict)
    assert number == 2
    assert code in {"invalid_request", "invalid_json_line"}


def test_duplicates_are_named_exactly() -> None:
    ids = ["a", "b", "a", "c", "b", "a"]
    verdict = validate(jsonl(*(row(custom_id) for custom_id in ids)))
    assert found(verdict) == [(n, "duplicate_custom_id", "custom_id") for n in (3, 5, 6)]
    assert [error.message[-14:] for error in verdict.errors] == [
        "line 1 already", "line 2 already", "line 1 already",
    ]  # fmt: skip


def test_a_hash_shared_by_two_ids_makes_no_duplicate(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("worker.upkeep.validation._hash", lambda _: 7)
    assert found(validate(jsonl(row("a"), row("b")))) == []
    assert found(validate(jsonl(row("a"), row("b"), row("a")))) == [
        (3, "duplicate_custom_id", "custom_id")
    ]


def test_errors_are_listed_up_to_a_cap_and_counted_beyond() -> None:
    verdict = validate(b"x\n" * 50, max_reported=10)
    assert (len(verdict.errors), verdict.bad_lines, verdict.rows) == (10, 50, 50)


def test_what_is_kept_of_an_error_is_short_however_long_the_line() -> None:
    names = ["k" * 100_000, "é" * 100_000]
    rows = [row(str(n), body=row()["body"] | {name: 1}) for n, name in enumerate(names)]
    rows += [row("x") | {"q" * 100_000: 1}]
    verdict = validate(jsonl(*rows), max_line_bytes=2**21)
    assert len(verdict.errors) == 3
    for error in verdict.errors:
        assert error.code == "unsupported_parameter"
        assert len(error.message) <= 500
        assert len(error.param or "") <= 100


def test_too_many_rows_end_the_reading() -> None:
    verdict = validate(jsonl(*(row(str(n)) for n in range(6))), max_rows=5)
    assert found(verdict) == [(None, "too_many_tasks", None)]
    assert verdict.slices == [] or verdict.bad_lines == 1
    assert validate(jsonl(*(row(str(n)) for n in range(5))), max_rows=5).bad_lines == 0


@pytest.mark.parametrize("data", [b"", b"\n", b"\r\n \n\t\n", b" "])
def test_a_file_without_rows_is_refused(data: bytes) -> None:
    assert found(validate(data)) == [(None, "empty_file", None)]


def test_windows_newlines_blank_lines_and_a_missing_last_newline_are_fine() -> None:
    data = (
        b"\r\n"
        + jsonl(row("a"), row("b")).replace(b"\n", b"\r\n\r\n")
        + json.dumps(row("c")).encode()
    )
    verdict = validate(data)
    assert found(verdict) == []
    (part,) = verdict.slices
    assert (part.first_line, part.row_count) == (2, 3)
    read = slice_rows([data[part.byte_start : part.byte_end]], part.first_line)
    assert [(r.custom_id, r.line) for r in read] == [("a", 2), ("b", 4), ("c", 6)]


def test_rows_of_many_vectors_get_smaller_slices() -> None:
    body = {"model": "e", "input": ["x"] * 2_048}
    rows = [row(str(n), url="/v1/embeddings", body=body) for n in range(10)]
    validator = BatchValidator(
        endpoint="/v1/embeddings",
        models=MODELS,
        max_rows=10,
        max_line_bytes=2**20,
        max_reported=10,
    )
    verdict = validator.run(lambda: [jsonl(*rows)])
    assert [part.row_count for part in verdict.slices] == [4, 4, 2]


def test_slower_models_get_smaller_slices() -> None:
    data = jsonl(*(row(str(n), model="slow") for n in range(10)))
    verdict = validate(data)  # 512 tokens at 10 a second: 51 s a row
    assert [part.row_count for part in verdict.slices] == [1] * 10


def test_embeddings_cost_their_input() -> None:
    from shared.specs import parse_body

    spec = parse_body("/v1/embeddings", {"model": "e", "input": ["x" * 4_000]})
    assert expected_seconds(spec, MODELS["e"]) == pytest.approx(1_001 / 5_000)


def test_a_file_that_cannot_be_read_is_not_a_bad_file() -> None:
    def broken() -> Any:
        yield jsonl(row("a"))
        raise StorageUnavailable("gone")

    validator = BatchValidator(
        endpoint=CHAT, models=MODELS, max_rows=10, max_line_bytes=4_096, max_reported=10
    )
    with pytest.raises(StorageUnavailable):
        validator.run(broken)


PIECES = st.sampled_from(
    [json.dumps(row(name)).encode() for name in "abc"]
    + [b"", b" ", b"{", b"\x00", b"\xff", b'"', b"[1]", b"\r", b"\xef\xbb\xbf", b"\\u0000"]
)


@given(st.lists(st.lists(PIECES, max_size=3).map(b"".join), max_size=12), st.integers(1, 50))
def test_any_file_is_judged_and_an_accepted_one_can_be_read(lines: list[bytes], chunk: int) -> None:
    data = b"\n".join(lines)
    verdict = validate(data, chunk=chunk)
    assert (verdict.bad_lines > 0) == bool(verdict.errors)
    assert all(error.line is None or 1 <= error.line <= len(lines) for error in verdict.errors)
    if not verdict.bad_lines:
        rows = [
            each for part in verdict.slices
            for each in slice_rows([data[part.byte_start : part.byte_end]], part.first_line)
        ]  # fmt: skip
        assert len(rows) == verdict.rows
        assert len({each.custom_id for each in rows}) == len(rows)
        for each in rows:
            assert json.loads(lines[each.line - 1])["custom_id"] == each.custom_id


@given(st.integers(0, 2**32))
def test_damaged_rows_never_break_validation(seed: int) -> None:
    rng = random.Random(seed)
    data = bytearray(jsonl(*(row(str(n)) for n in range(4))))
    for _ in range(rng.randint(1, 6)):
        data[rng.randrange(len(data))] = rng.randrange(256)
    verdict = validate(bytes(data))
    if not verdict.bad_lines:
        for part in verdict.slices:
            slice_rows([bytes(data[part.byte_start : part.byte_end])], part.first_line)
