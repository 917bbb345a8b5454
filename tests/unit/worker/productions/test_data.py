"""Tables of uploads; Parquet goes through a process that has nothing to lose."""

from __future__ import annotations

import datetime
import signal
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from pyarrow import parquet

from shared.lifecycle import BadLine
from shared.productions.tables import MOST_ROW_BYTES, Table, TableKind, TableRefused, TableRow
from worker.tuning.data.source import Source
from worker.upkeep.productions import data
from worker.upkeep.productions.data import ReaderGone, open_table


def written(path: Path, columns: dict[str, Any], **options: Any) -> Source:
    parquet.write_table(pa.table(columns), path, **options)
    return Source.of_file(path)


def rows_of(table: Table) -> list[TableRow | BadLine]:
    return list(table.rows)


def test_the_kind_goes_by_the_name(tmp_path: Path) -> None:
    path = tmp_path / "some where.csv"
    path.write_bytes(b"a,b\n1,2\n")
    table = open_table(Source.of_file(path))
    assert (table.columns, rows_of(table)) == (["a", "b"], [TableRow(1, 2, {"a": "1", "b": "2"})])
    table = open_table(Source.of_file(path, "x.bin"), kind=TableKind.JSONL)
    assert all(isinstance(row, BadLine) for row in table.rows)
    with pytest.raises(TableRefused):
        open_table(Source.of_file(path, "x.xlsx"))


def test_parquet_has_types(tmp_path: Path) -> None:
    source = written(
        tmp_path / "a.parquet",
        {
            "name": ["Mug", None],
            "price": [1.5, float("nan")],
            "stock": [3, -1],
            "new": [True, None],
            "tags": [["a", "b"], []],
            "maker": [{"city": "Rom"}, None],
            "day": [datetime.date(2026, 1, 2), None],
            "cost": [Decimal("1.10"), None],
            "raw": [b"\xff", b""],
        },
    )
    table = open_table(source)
    assert table.types == {"price": "double", "stock": "int64", "new": "bool"}
    first, second = rows_of(table)
    assert first == TableRow(
        1,
        1,
        {
            "name": "Mug", "price": 1.5, "stock": 3, "new": True, "tags": ["a", "b"],
            "maker": {"city": "Rom"}, "day": "2026-01-02", "cost": "1.10", "raw": "/w==",
        },
    )  # fmt: skip
    assert isinstance(second, TableRow)
    assert second.values["price"] is None
    assert second.values["maker"] is None


def test_parquet_that_is_not_on_this_machine(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    written(path, {"a": list(range(500))})
    content = path.read_bytes()
    source = Source("a.parquet", len(content), lambda: [content[:100], content[100:]])
    found = rows_of(open_table(source, scratch=tmp_path))
    assert [row.values["a"] for row in found if isinstance(row, TableRow)] == list(range(500))
    assert [path.name for path in tmp_path.iterdir()] == ["a.parquet"]


@pytest.mark.parametrize(
    ("columns", "said"),
    [
        ({f"c{n}": [1] for n in range(1_001)}, "1000 columns"),
        ({" ": [1]}, "name"),
        ({"x" * 201: [1]}, "name"),
        ({}, "no columns"),
    ],
    ids=["many", "blank", "long", "none"],
)
def test_headers_of_parquet(tmp_path: Path, columns: dict[str, Any], said: str) -> None:
    with pytest.raises(TableRefused) as refused:
        open_table(written(tmp_path / "a.parquet", columns))
    assert refused.value.bad.code == "invalid_header"
    assert said in refused.value.bad.message


def test_what_is_no_parquet(tmp_path: Path) -> None:
    whole = tmp_path / "whole.parquet"
    texts = [f"{number:0100}" for number in range(1_000)]
    written(whole, {"a": texts}, compression="none", use_dictionary=False)
    for name, made in (("text", b"a,b\n1,2\n"), ("cut", whole.read_bytes()[:-40]), ("empty", b"")):
        path = tmp_path / f"{name}.parquet"
        path.write_bytes(made)
        with pytest.raises(TableRefused) as refused:
            open_table(Source.of_file(path))
        assert refused.value.bad.code == "invalid_table"
    damaged = whole.read_bytes().replace(texts[500].encode(), b"\xff" * 100)
    (tmp_path / "damaged.parquet").write_bytes(damaged)
    *good, bad = open_table(Source.of_file(tmp_path / "damaged.parquet")).rows
    assert 0 < len(good) <= 500
    assert isinstance(bad, BadLine)
    assert bad.code == "invalid_table"


def test_a_small_file_that_is_large_inside(tmp_path: Path) -> None:
    """A megabyte at most, and a hundred of cells: they come one by one, and the long ones don't."""
    long = "x" * (MOST_ROW_BYTES + 1)
    source = written(tmp_path / "a.parquet", {"a": [long] * 100 + ["short"]})
    assert source.size < 2**20
    *bad, good = open_table(source).rows
    assert len(bad) == 100
    assert all(isinstance(row, BadLine) and row.code == "line_too_long" for row in bad)
    assert good == TableRow(101, 101, {"a": "short"})


def test_bad_values_of_parquet_are_named(tmp_path: Path) -> None:
    found = rows_of(open_table(written(tmp_path / "a.parquet", {"a": ["x", "a\0b", "y"]})))
    assert [isinstance(row, BadLine) for row in found] == [False, True, False]
    assert isinstance(found[1], BadLine)
    assert found[1].line == 2


def test_the_reader_sees_no_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PRESSRUN_DATABASE_URL", "secret")
    children = watched(monkeypatch)
    table = open_table(written(tmp_path / "a.parquet", {"a": list(range(100_000))}))
    next(table.rows)
    environment = Path(f"/proc/{children[0].pid}/environ").read_bytes()
    assert b"secret" not in environment
    assert children[0].poll() is None


def watched(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    children: list[Any] = []
    start = data._start

    def noted(file: Any) -> Any:
        children.append(start(file))
        return children[-1]

    monkeypatch.setattr(data, "_start", noted)
    return children


def test_closing_the_rows_ends_the_reader(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    children = watched(monkeypatch)
    table = open_table(written(tmp_path / "a.parquet", {"a": list(range(100_000))}))
    next(table.rows)
    table.rows.close()  # type: ignore[attr-defined]
    assert children[0].returncode == -signal.SIGKILL


def test_a_reader_that_is_killed_is_not_the_files_fault(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    children = watched(monkeypatch)
    table = open_table(written(tmp_path / "a.parquet", {"a": ["x" * 100] * 100_000}))
    next(table.rows)
    children[0].kill()
    with pytest.raises(ReaderGone):
        rows_of(table)


def test_rows_that_are_too_long_are_skipped_up_to_a_bound(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(data, "MOST_SKIPPED_BYTES", 3 * MOST_ROW_BYTES)
    source = written(tmp_path / "a.parquet", {"a": ["x" * (MOST_ROW_BYTES + 100)] * 50})
    found = rows_of(open_table(source))
    assert [row.code for row in found if isinstance(row, BadLine)] == [
        "line_too_long", "line_too_long", "invalid_table",
    ]  # fmt: skip
    assert len(found) == 3
