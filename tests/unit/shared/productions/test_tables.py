"""Tables of strangers: every bad row is named, and none of them costs more than it may."""

from __future__ import annotations

import csv
import io
import json
import tracemalloc
from collections.abc import Iterable, Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.lifecycle import BadLine
from shared.productions.tables import (
    MOST_ROW_BYTES,
    TableKind,
    TableRefused,
    TableRow,
    kind_of,
    read_table,
)


def read(data: bytes, kind: TableKind = TableKind.CSV, size: int = 7) -> list[TableRow | BadLine]:
    return list(read_table(chunks(data, size), kind).rows)


def chunks(data: bytes, size: int) -> Iterator[bytes]:
    return (data[at : at + size] for at in range(0, len(data), size))


def values(data: bytes, kind: TableKind = TableKind.CSV) -> list[dict[str, Any]]:
    found = read(data, kind)
    assert all(isinstance(row, TableRow) for row in found), found
    return [row.values for row in found if isinstance(row, TableRow)]


def refused(data: bytes) -> BadLine:
    with pytest.raises(TableRefused) as error:
        read(data)
    return error.value.bad


@pytest.mark.parametrize(
    "data",
    [
        b"name,text\nA,b\n",
        b"\xef\xbb\xbfname,text\r\nA,b\r\n",
        b"name;text\nA;b",
        b"name\ttext\nA\tb\n",
        b"name|text\nA|b\n",
        b'"name","text"\n"A","b"\n\n\n',
        b" name , text \nA,b",
    ],
)
def test_csv_of_any_make(data: bytes) -> None:
    assert values(data) == [{"name": "A", "text": "b"}]


def test_quotes_commas_and_line_breaks() -> None:
    data = 'a,b\n"x, ""y""","one\ntwo"\né,=cmd()\n'.encode()
    found = read(data)
    assert [row.values for row in found if isinstance(row, TableRow)] == [
        {"a": 'x, "y"', "b": "one\ntwo"},
        {"a": "é", "b": "=cmd()"},
    ]
    assert [(row.number, row.line) for row in found if isinstance(row, TableRow)] == [
        (1, 2),
        (2, 4),
    ]


def test_a_quoted_delimiter_does_not_count() -> None:
    assert values(b'a,"b;c;d;e"\n1,2') == [{"a": "1", "b;c;d;e": "2"}]
    assert values(b'"a\nb",c\n1,2') == [{"a\nb": "1", "c": "2"}]


@pytest.mark.parametrize(
    ("row", "code", "said"),
    [
        (b"1,2,3", "invalid_row", "has 3 cells, the header 2"),
        (b"1", "invalid_row", "has 1 cells, the header 2"),
        (b'"a"b,2', "invalid_row", "can't be read"),
        (b"caf\xe9,2", "invalid_encoding", "byte 0xe9 at 4"),
        (b"a\0b,2", "invalid_encoding", "NUL"),
        (b"a\rb,2", "invalid_row", "can't be read"),
        (b"x" * (MOST_ROW_BYTES + 1) + b",2", "line_too_long", "longer than"),
        (b"x" * 140_000 + b",2", "invalid_row", "field limit"),
        (b"," * 100_000, "invalid_row", "has 100001 cells"),
    ],
)
def test_a_bad_row_is_named_and_the_next_is_read(row: bytes, code: str, said: str) -> None:
    first, bad, last = read(b"a,b\n1,2\n" + row + b"\n3,4\n", size=65_536)
    assert isinstance(first, TableRow)
    assert isinstance(bad, BadLine)
    assert (bad.code, bad.line) == (code, 3)
    assert said in bad.message
    assert isinstance(last, TableRow)
    assert (last.number, last.line) == (3, 4)


def test_a_quotation_mark_that_is_never_closed() -> None:
    good, bad = read(b'a,b\n1,2\n"3,4\n5,6\n')
    assert isinstance(good, TableRow)
    assert isinstance(bad, BadLine)
    assert (bad.code, bad.line) == ("invalid_row", 3)


def test_a_quotation_mark_does_not_swallow_the_file() -> None:
    line = b"x" * 1_000 + b"\n"
    found = list(read_table(_endless(b'a,b\n"', line, 50_000), TableKind.CSV).rows)
    [bad] = found
    assert isinstance(bad, BadLine)
    assert bad.line == 2
    assert "quotation mark" in bad.message


def _endless(first: bytes, then: bytes, times: int) -> Iterable[bytes]:
    yield first
    for _ in range(times):
        yield then


@pytest.mark.parametrize("kind", [TableKind.CSV, TableKind.JSONL])
def test_a_row_of_100_megabytes_is_not_held(kind: TableKind) -> None:
    begin = b'a,b\n"' if kind is TableKind.CSV else b'{"a": "'
    tracemalloc.start()
    try:
        [bad] = list(read_table(_endless(begin, b"x" * 2**20, 100), kind).rows)
        assert tracemalloc.get_traced_memory()[1] < 12 * 2**20
    finally:
        tracemalloc.stop()
    assert isinstance(bad, BadLine)
    assert bad.code == "line_too_long"


@pytest.mark.parametrize(
    ("data", "code", "said"),
    [
        (b"", "empty_file", "empty"),
        (b"\n1,2", "invalid_header", "must name the columns"),
        (b"a,,c\n", "invalid_header", "column 2 has no name"),
        (b"a,b,a\n", "invalid_header", "'a' is there twice"),
        (b"," .join(b"c%d" % n for n in range(100_000)), "invalid_header", "1000 columns"),
        (b"a" * 201, "invalid_header", "200 characters"),
        (b"\xff\xfea\0,\0b\0", "invalid_encoding", "UTF-16"),
        (b"n\xe9,b\n1,2", "invalid_encoding", "0xe9"),
        (b"x" * (MOST_ROW_BYTES + 1), "line_too_long", "longer"),
        (b'"a,b\n1,2', "invalid_header", "must name the columns"),
    ],
    ids=lambda part: str(part)[:20],
)  # fmt: skip
def test_a_header_that_can_not_be_used(data: bytes, code: str, said: str) -> None:
    bad = refused(data)
    assert bad.code == code
    assert said in bad.message


def test_lines_of_json() -> None:
    data = b'{"a": 1, "b": [true, null]}\n\n{"c": "\\u00e9", "a": 2.5}\n'
    table = read_table(chunks(data, 5), TableKind.JSONL)
    assert table.columns == []
    rows = list(table.rows)
    assert table.columns == ["a", "b", "c"]
    assert [row.values for row in rows if isinstance(row, TableRow)] == [
        {"a": 1, "b": [True, None]},
        {"c": "é", "a": 2.5},
    ]
    assert [row.line for row in rows] == [1, 3]


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (b"[1]", "not a JSON object"),
        (b'{"a": 1', "not valid JSON"),
        (b'{"a": NaN}', "NaN"),
        (b'{"a": [1e999]}', "too large"),
        (b'{"a": 1, "a": 2}', "twice"),
        (b'{"": 1}', "empty"),
        (b'{"a": "\\ud800"}', "UTF-16"),
        (b'{"a": "\\u0000"}', "NUL"),
        (b'{"a": "\xe9"}', "UTF-8"),
        (b'{"a": ' + b"9" * 5_000 + b"}", "JSON"),
        (b'{"a": ' + b"[" * 200_000 + b"}", "deep"),
        (b'{"a": ' + b"[" * 70 + b"]" * 70 + b"}", "deep"),
        (b'{"a": [' + b"1," * 60_000 + b"1]}", "50000 values"),
        (json.dumps({f"k{n}": 1 for n in range(1_001)}).encode(), "1000 columns"),
        (json.dumps({"k" * 201: 1}).encode(), "200 characters"),
    ],
    ids=lambda part: str(part)[:20],
)
def test_a_bad_line_of_json_is_named_and_the_next_is_read(line: bytes, said: str) -> None:
    bad, good = read(line + b'\n{"a": 1}', TableKind.JSONL, 65_536)
    assert isinstance(bad, BadLine)
    assert bad.line == 1
    assert said in bad.message
    assert good == TableRow(2, 2, {"a": 1})


def test_kinds_go_by_the_name() -> None:
    assert kind_of("Products.CSV") is TableKind.CSV
    assert kind_of("a.b.jsonl") is TableKind.JSONL
    assert kind_of("x.parquet") is TableKind.PARQUET
    with pytest.raises(TableRefused):
        kind_of("products.xlsx")


CELLS = st.text(
    st.characters(blacklist_categories=("Cs",), blacklist_characters="\0\r"), max_size=20
)


@given(st.lists(st.lists(CELLS, min_size=2, max_size=2), max_size=6), st.integers(1, 64))
def test_what_csv_writes_is_read(rows: list[list[str]], size: int) -> None:
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n", quoting=csv.QUOTE_ALL)
    writer.writerows([["a", "b"], *rows])
    table = read_table(chunks(out.getvalue().encode(), size), TableKind.CSV)
    found = [row.values for row in table.rows if isinstance(row, TableRow)]
    assert found == [dict(zip("ab", row, strict=True)) for row in rows]


@given(st.binary(max_size=300), st.sampled_from([TableKind.CSV, TableKind.JSONL]))
def test_any_bytes_are_read_or_named(data: bytes, kind: TableKind) -> None:
    try:
        rows = list(read_table(chunks(data, 50), kind).rows)
    except TableRefused:
        return
    assert all(isinstance(row, TableRow) or row.message for row in rows)
