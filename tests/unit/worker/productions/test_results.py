"""The joined output, read back by what people read it with."""

from __future__ import annotations

import csv
import io
import json
from typing import Any

import pytest
from pyarrow import parquet

from shared.productions.outcomes import Status
from shared.productions.rendering import Source
from shared.productions.tables import TableKind
from shared.productions.template import parse_template
from worker.upkeep.productions.results import LINES_AT_ONCE, OutputLine, open_output

PLAIN = parse_template("{{ name }}")
FULL = parse_template(
    "---\nmodels: [a, b]\naudiences: [{name: x}]\nschema: {type: object}\n"
    "documents: {files: [f], query: q}\n---\n{{ name }}"
)
COLUMNS = ["name", "tags", "stock"]
LINES = [
    OutputLine(
        {"name": 'Mug, "fine"', "tags": ["a", "é"], "stock": 3},
        Status.SUCCEEDED, 1, '{"t": "one\\ntwo"}', "x", "a", None,
        [Source(1, "S.", "file_1", 0.51234, 2, "f.txt")],
    ),
    OutputLine({"name": "=cmd()", "stock": None}, Status.REJECTED, 2, "no\nJSON", "x", "b",
               "max_words: 63 words, at most 50 are wanted"),
    OutputLine({"name": "half \ud800"}, Status.FAILED, 1, None, "x", "a", "model_error: it broke"),
]  # fmt: skip


def written(kind: TableKind, template: Any, lines: list[OutputLine], **more: Any) -> bytes:
    file = io.BytesIO()
    with open_output(file, kind, template, COLUMNS, **more) as output:
        for line in lines:
            output.write(line)
    return file.getvalue()


def test_csv() -> None:
    text = written(TableKind.CSV, FULL, LINES).decode()
    header, first, second, third = csv.reader(io.StringIO(text), strict=True)
    assert header == [
        *COLUMNS,
        "output",
        "status",
        "candidate",
        "audience",
        "model",
        "reason",
        "sources",
    ]
    assert first[:6] == ['Mug, "fine"', '["a", "é"]', "3", '{"t": "one\\ntwo"}', "succeeded", "1"]
    (source,) = json.loads(first[9])
    assert source == {
        "number": 1,
        "file": "file_1",
        "name": "f.txt",
        "passage": 2,
        "score": 0.5123,
        "text": "S.",
    }
    assert second[:6] == ["=cmd()", "", "", "no\nJSON", "rejected", "2"]
    assert second[8].startswith("max_words: ")
    assert third[:5] == ["half ?", "", "", "", "failed"]


def test_csv_has_only_the_columns_that_are_used() -> None:
    line = OutputLine({"name": "Mug", "tags": "", "stock": "3"}, Status.SUCCEEDED, 1, "Buy.")
    assert written(TableKind.CSV, PLAIN, [line]).decode() == (
        "name,tags,stock,output,status,candidate,reason\nMug,,3,Buy.,succeeded,1,\n"
    )
    assert written(TableKind.CSV, PLAIN, []).decode() == (
        "name,tags,stock,output,status,candidate,reason\n"
    )


def test_jsonl_keeps_values() -> None:
    first, second, _ = map(json.loads, written(TableKind.JSONL, FULL, LINES).splitlines())
    assert first["tags"] == ["a", "é"]
    assert first["stock"] == 3
    assert first["output"] == {"t": "one\ntwo"}
    assert first["sources"][0]["file"] == "file_1"
    assert second["output"] == "no\nJSON"
    assert second["tags"] is None
    assert list(first)[:4] == [*COLUMNS, "output"]


@pytest.mark.parametrize("count", [0, 1, LINES_AT_ONCE + 1])
def test_parquet(count: int) -> None:
    lines = [
        OutputLine({"name": f"n{at}", "tags": ["x"], "stock": at}, Status.SUCCEEDED, 1, "Buy.")
        for at in range(count)
    ]
    content = written(TableKind.PARQUET, PLAIN, lines, types={"stock": "int64"})
    table = parquet.read_table(io.BytesIO(content))
    types = [(field.name, str(field.type)) for field in table.schema]
    assert types == [
        ("name", "string"), ("tags", "string"), ("stock", "int64"), ("output", "string"),
        ("status", "string"), ("candidate", "int64"), ("reason", "string"),
    ]  # fmt: skip
    assert table.column("stock").to_pylist() == list(range(count))
    assert set(table.column("tags").to_pylist()) <= {'["x"]'}


def test_parquet_with_everything() -> None:
    table = parquet.read_table(io.BytesIO(written(TableKind.PARQUET, FULL, LINES)))
    rows = table.to_pylist()
    assert [row["status"] for row in rows] == ["succeeded", "rejected", "failed"]
    assert rows[0]["stock"] == "3"
    assert rows[2]["name"] == "half ?"
    assert rows[2]["output"] is None
