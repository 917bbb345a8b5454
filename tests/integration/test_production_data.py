"""What a production refuses, and what it says of itself before anything is written."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from pyarrow import parquet

from api.production_objects import ProductionPreview
from tests.integration.production_case import PLAIN, PRODUCTIONS, Press, press_fixture
from tests.integration.test_productions import CHAIN, headed
from worker.upkeep.productions import checking

__all__ = ["press_fixture"]


def test_every_bad_row_is_named(press: Press) -> None:
    data = b"name,colour\nchair,red\ntable\nlamp,green,big\nbed,\xff\n"
    production_id = press.submit_production(PLAIN, data)
    press.run()

    seen = press.see(production_id)
    assert (seen["status"], seen["error"]["code"]) == ("failed", "invalid_input_file")
    assert "3 bad rows" in seen["error"]["message"]
    assert [(one["line"], one["code"]) for one in seen["error"]["lines"]] == [
        (3, "invalid_row"),
        (4, "invalid_row"),
        (5, "invalid_encoding"),
    ]
    assert not press.asked


@pytest.mark.parametrize(
    ("data", "code", "words"),
    [
        (b"name,size\nchair,big\n", "invalid_request", "no column 'colour'"),
        (b"name,colour,status\nchair,red,x\n", "invalid_request", "clash"),
        (b"name,colour\n", "empty_file", "no rows"),
        (b"", "empty_file", "empty"),
    ],
)
def test_a_table_that_does_not_fit(press: Press, data: bytes, code: str, words: str) -> None:
    production_id = press.submit_production(PLAIN, data)
    press.run()

    error = press.see(production_id)["error"]
    assert error["code"] == code
    assert words in error["message"]


def test_too_many_candidates_are_refused_by_name(press: Press) -> None:
    """As many as a batch may have rows: 100,000 here."""
    data = b"name,colour\n" + b"chair,red\n" * 6_251
    production_id = press.submit_production(PLAIN, data, n=16)
    press.run()

    error = press.see(production_id)["error"]
    assert (error["code"], error["param"]) == ("too_many_candidates", "n")


@pytest.mark.parametrize(
    ("changed", "status", "param"),
    [
        ({"n": 17}, 400, "n"),
        ({"template": "{{ name "}, 400, "template.body"),
        ({"template": headed("retries: 6")}, 400, "template.retries"),
        ({"template": headed("colour: red")}, 400, "template.colour"),
        (
            {"template": headed("documents: {files: [a], query: x}")},
            404,
            "template.documents.model",
        ),
        ({"template": headed("best_of: {rule: first}")}, 400, "template.best_of"),
        ({"model": "nobody"}, 404, "model"),
        ({"model": None}, 400, "model"),
        ({"data_file_id": "file-nothing"}, 404, "data_file_id"),
        ({"output_format": "xml"}, 400, "output_format"),
        ({"priority": 10}, 400, "priority"),
        ({"sampling": {"temperature": 3}}, 400, "sampling.temperature"),
    ],
)
def test_what_is_refused_at_once(
    press: Press, changed: dict[str, Any], status: int, param: str
) -> None:
    for path in (PRODUCTIONS, f"{PRODUCTIONS}/preview"):
        if "priority" in changed and path != PRODUCTIONS:
            continue
        reply = press.post(path, press.body_of(**changed))

        assert (reply.status_code, reply.json["error"]["param"]) == (status, param), reply.json


def test_a_dry_run_says_what_it_would_take(press: Press) -> None:
    production_id = press.submit_production(PLAIN, n=4, dry_run=True)
    press.run()

    seen = press.see(production_id)
    assert seen["status"] == "succeeded", seen
    assert (seen["estimate"]["rows"], seen["lines"], seen["summary"]) == (12, 12, None)
    assert press.get(f"{PRODUCTIONS}/{production_id}/output").status_code == 404
    assert not press.asked


def test_a_preview_renders_the_first_rows_and_accepts_nothing(press: Press) -> None:
    about = {"template": CHAIN, "rows": 2, "n": 3}
    reply = press.post(f"{PRODUCTIONS}/preview", press.body_of() | about)

    assert reply.status_code == 200, reply.json
    assert [item["row"] for item in reply.json["data"]] == [1, 2]
    assert reply.json["data"][0]["prompts"] == [
        {"step": "draft", "messages": [{"role": "user", "content": "Draft chair"}]},
        {"step": None, "messages": [{"role": "user", "content": "Polish [draft]"}]},
    ]
    assert reply.json["candidates"] == 3
    ProductionPreview.model_validate(reply.json, strict=True)
    assert press.get(PRODUCTIONS).json["data"] == []


@pytest.mark.parametrize(
    "changed",
    [
        {"template": "half a sign \ud800"},
        {"template": "---\nsystem: half a sign \ud800\n---\n{{ name }}"},
        {"template": "a NUL \0"},
        {"template": "\ufeff---\n---\n"},
        {"template": "---\nschema: {pattern: '(a+)+$', type: string, x: \ud800}\n---\nx"},
        {"model": "\ud800"},
        {"model": "\0"},
        {"data_file_id": "\0"},
        {"metadata": {"\ud800": "\0"}},
    ],
    ids=itertools.count(),
)
def test_odd_texts_are_no_server_error(press: Press, changed: dict[str, Any]) -> None:
    for path in (PRODUCTIONS, f"{PRODUCTIONS}/preview"):
        reply = press.post(path, press.body_of(**changed))

        assert reply.status_code in {200, 202, 400, 404}, reply.json
    press.run()
    ended = [one["status"] for one in press.get(PRODUCTIONS).json["data"]]
    assert set(ended) <= {"succeeded"}


def test_a_table_of_bad_rows_is_not_read_to_its_end(
    press: Press, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A few thousand bytes of Parquet have millions of rows."""
    monkeypatch.setattr(checking, "MOST_BAD_ROWS", 1_000)
    bad = pa.array(["a\0b"], pa.string()).dictionary_encode()
    column = pa.DictionaryArray.from_arrays(pa.array([0] * 2**20, pa.int32()), bad.dictionary)
    with parquet.ParquetWriter(tmp_path / "bad.parquet", pa.schema([("name", column.type)])) as out:
        for _ in range(4):
            out.write_table(pa.table({"name": column}), row_group_size=2**20)
    content = (tmp_path / "bad.parquet").read_bytes()
    assert len(content) < 2**16
    made = press.submit_production("Praise {{ name }}", content, name="bad.parquet")
    press.run()
    error = press.see(made)["error"]
    assert error["code"] == "too_many_bad_rows"
    assert "1000 rows can't be used" in error["message"]
    assert {one["code"] for one in error["lines"]} == {"too_many_bad_rows", "invalid_row"}
