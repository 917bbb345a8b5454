"""Tables of strangers, CSV or lines of JSON, row by row in bounded memory; every bad row is named.

What a row has is text in CSV and any JSON value in JSONL. Rows are numbered from 1, bad ones
included, so that a number means the same row on every reading.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from shared.lifecycle import BadLine
from shared.productions.table_lines import MOST_ROW_BYTES, BadRow, Lines, value_problem

__all__ = [
    "MOST_ROW_BYTES",
    "Table",
    "TableKind",
    "TableRefused",
    "TableRow",
    "check_columns",
    "kind_of",
    "read_table",
    "value_problem",
]

MOST_COLUMNS = 1_000
MOST_NAME = 200
"""Characters of a column's name."""
MOST_COMMAS = 50_000
"""Of a line of JSON: values take many times their bytes of memory."""
DELIMITERS = ",;\t|"


class TableKind(StrEnum):
    """What a table is read from, or an output written as."""

    CSV = "csv"
    JSONL = "jsonl"
    PARQUET = "parquet"


SUFFIXES: dict[str, TableKind] = {
    ".csv": TableKind.CSV,
    ".tsv": TableKind.CSV,
    ".txt": TableKind.CSV,
    ".jsonl": TableKind.JSONL,
    ".ndjson": TableKind.JSONL,
    ".parquet": TableKind.PARQUET,
}


@dataclass(frozen=True, slots=True)
class TableRow:
    """``line`` is where it begins in the file; of Parquet, its number."""

    number: int
    line: int
    values: dict[str, Any]


class TableRefused(Exception):
    """Nothing of the file can be read; ``bad`` says why."""

    def __init__(self, bad: BadLine) -> None:
        super().__init__(bad.message)
        self.bad = bad


@dataclass(slots=True)
class Table:
    """``columns`` are complete once all rows were read: lines of JSON may bring new ones.
    ``rows`` may be read once."""

    columns: list[str]
    rows: Iterator[TableRow | BadLine]
    types: dict[str, str] = field(default_factory=dict)
    """Of the columns that are not text: ``int64``, ``double`` or ``bool``; known of Parquet."""


def kind_of(filename: str) -> TableKind:
    """By the end of its name. Raises TableRefused."""
    for suffix, kind in SUFFIXES.items():
        if filename.lower().endswith(suffix):
            return kind
    known = ", ".join(SUFFIXES)
    raise TableRefused(BadLine("invalid_table", f"the file's name ends with none of {known}"))


def read_table(chunks: Iterable[bytes], kind: TableKind) -> Table:
    """A table of CSV or JSONL as it streams by. Raises TableRefused for what has no header, and
    whatever ``chunks`` raises."""
    if kind is TableKind.CSV:
        return _read_csv(Lines(chunks))
    if kind is TableKind.JSONL:
        columns: list[str] = []
        return Table(columns, _json_rows(Lines(chunks), columns))
    raise ValueError(f"{kind} does not stream")


def check_columns(names: list[str]) -> None:
    """Raises TableRefused for a header that can't be used."""
    try:
        for at, name in enumerate(names):
            if not name.strip():
                raise BadRow("invalid_header", f"column {at + 1} has no name")
            check_name(name)
        if len(names) > MOST_COLUMNS:
            raise BadRow("invalid_header", f"more than {MOST_COLUMNS} columns")
        if len(set(names)) < len(names):
            twice = next(name for at, name in enumerate(names) if name in names[:at])
            raise BadRow("invalid_header", f"the column '{twice}' is there twice", twice)
    except BadRow as bad:
        raise TableRefused(bad.at(1)) from None


def check_name(name: str) -> None:
    if len(name) > MOST_NAME:
        raise BadRow("invalid_header", f"a column's name has at most {MOST_NAME} characters")


def _read_csv(lines: Lines) -> Table:
    try:
        first = next(lines)
    except StopIteration:
        raise TableRefused(BadLine("empty_file", "the file is empty")) from None
    except BadRow as bad:
        raise TableRefused(bad.at(1)) from None
    delimiter = _delimiter(first)
    feed = _Fed(first, lines)
    reader = csv.reader(feed, delimiter=delimiter, strict=True)
    try:
        columns = [name.strip() for name in next(reader)]
    except BadRow as bad:
        raise TableRefused(bad.at(1)) from None
    except (csv.Error, StopIteration) as error:
        message = f"the first line must name the columns: {error}"
        raise TableRefused(BadLine("invalid_header", message[:300], 1)) from None
    if not columns:
        raise TableRefused(BadLine("invalid_header", "the first line must name the columns", 1))
    check_columns(columns[: MOST_COLUMNS + 1])
    return Table(columns, _csv_rows(reader, lines, columns))


class _Fed:
    """The first line again, and those behind it."""

    def __init__(self, first: str, lines: Lines) -> None:
        self._first: str | None = first
        self._lines = lines

    def __iter__(self) -> _Fed:
        return self

    def __next__(self) -> str:
        first, self._first = self._first, None
        return next(self._lines) if first is None else first


def _delimiter(header: str) -> str:
    """The one that cuts the header, outside quotation marks, into the most columns."""
    counts = dict.fromkeys(DELIMITERS, 0)
    quoted = False
    for sign in header:
        if sign == '"':
            quoted = not quoted
        elif sign in counts and not quoted:
            counts[sign] += 1
    return max(DELIMITERS, key=lambda sign: counts[sign])


def _csv_rows(
    reader: Iterator[list[str]], lines: Lines, columns: list[str]
) -> Iterator[TableRow | BadLine]:
    number = 0
    while True:
        lines.begin()
        start = lines.number + 1
        try:
            cells = next(reader)
            if not cells:
                continue  # a blank line
            number += 1
            if len(cells) != len(columns):
                message = f"the row has {len(cells)} cells, the header {len(columns)}"
                yield BadLine("invalid_row", message, start)
            else:
                yield TableRow(number, start, dict(zip(columns, cells, strict=True)))
        except StopIteration:
            return
        except csv.Error as error:
            number += 1
            endless = lines.taken > 1 and "field limit" in str(error)
            more = ": is a quotation mark missing? nothing behind it was read" if endless else ""
            yield BadLine("invalid_row", f"the row can't be read: {error}{more}", start)
            if endless:
                return
        except BadRow as bad:
            number += 1
            yield bad.at(start)
            if bad.code == "line_too_long" and lines.taken > 1:
                return  # within quotation marks: nobody knows where the next row begins


def _json_rows(lines: Lines, columns: list[str]) -> Iterator[TableRow | BadLine]:
    number, known = 0, set[str]()
    while True:
        lines.begin()
        try:
            line = next(lines)
            if not line.strip():
                continue
            number += 1
            values = json_object(line)
            new = [name for name in values if name not in known]
            if len(known) + len(new) > MOST_COLUMNS:
                raise BadRow("invalid_row", f"with this row there are over {MOST_COLUMNS} columns")
            known.update(new)
            columns += new
            yield TableRow(number, lines.number, values)
        except StopIteration:
            return
        except BadRow as bad:
            number += bad.code in ("line_too_long", "invalid_encoding")
            yield bad.at(lines.number)


def json_object(line: str) -> dict[str, Any]:
    """A line of JSON as the values of a row. Raises BadRow."""
    if line.count(",") > MOST_COMMAS:
        raise BadRow("invalid_row", f"the line has more than {MOST_COMMAS} values")
    try:
        found = json.loads(line, parse_constant=_no_number, object_pairs_hook=_once)
    except RecursionError:
        raise BadRow("invalid_row", "the line is nested too deeply") from None
    except ValueError as error:
        raise BadRow("invalid_row", f"the line is not valid JSON: {str(error)[:200]}") from None
    if not isinstance(found, dict):
        raise BadRow("invalid_row", "the line is not a JSON object")
    problem = value_problem(found)
    if problem is not None:
        raise BadRow("invalid_row", f"the line can't be used: {problem}")
    for name in found:
        if not name.strip():
            raise BadRow("invalid_row", "a key is empty")
        check_name(name)
    return found


def _no_number(word: str) -> Any:
    raise ValueError(f"{word} is no JSON number")


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a key is there twice")
    return found
