"""Tables of strangers, CSV or lines of JSON, row by row in bounded memory; every bad row is named.

What a row has is text in CSV and any JSON value in JSONL. Rows are numbered from 1, bad ones
included, so that a number means the same row on every reading.
"""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from shared.lifecycle import BadLine

MOST_ROW_BYTES = 2**20
MOST_COLUMNS = 1_000
MOST_NAME = 200
"""Characters of a column's name."""
MOST_COMMAS = 50_000
"""Of a line of JSON: values take many times their bytes of memory."""
DELIMITERS = ",;\t|"
BOM = b"\xef\xbb\xbf"
_HALF = re.compile("[\ud800-\udfff]")
_OTHER_ENCODINGS = (b"\xff\xfe", b"\xfe\xff")
MOST_DEPTH = 64
"""Of lists and objects in a row."""


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
        return _read_csv(_Lines(chunks))
    if kind is TableKind.JSONL:
        columns: list[str] = []
        return Table(columns, _json_rows(_Lines(chunks), columns))
    raise ValueError(f"{kind} does not stream")


class _Bad(Exception):
    def __init__(self, code: str, message: str, param: str | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.param = param

    def at(self, line: int | None) -> BadLine:
        return BadLine(self.code, self.message, line, self.param)


class _Lines:
    """Lines as text. Unlike a generator it goes on after it has raised."""

    def __init__(self, chunks: Iterable[bytes]) -> None:
        self._pieces = _pieces(chunks)
        self.number = 0
        """Of the line that was given last."""
        self.taken = 0
        """Lines since ``begin``."""
        self._bytes = 0

    def begin(self) -> None:
        """A row begins with the next line."""
        self.taken = self._bytes = 0

    def __iter__(self) -> _Lines:
        return self

    def __next__(self) -> str:
        """Raises _Bad for a line that is too long, or no text."""
        line = next(self._pieces)
        self.number += 1
        self.taken += 1
        if self.number == 1 and line is not None:
            if line.startswith(_OTHER_ENCODINGS):
                raise _Bad("invalid_encoding", "the file is UTF-16; save it as UTF-8")
            line = line.removeprefix(BOM)
        self._bytes += MOST_ROW_BYTES if line is None else len(line)
        if line is None or self._bytes > MOST_ROW_BYTES:
            message = f"the row is longer than {MOST_ROW_BYTES} bytes"
            if self.taken > 1:
                message += ": is a quotation mark missing? nothing behind it was read"
            raise _Bad("line_too_long", message)
        return _text(line)


def _text(line: bytes) -> str:
    if b"\0" in line:
        raise _Bad("invalid_encoding", "there is a NUL in the line")
    try:
        return line.decode() + "\n"
    except UnicodeDecodeError as error:
        message = f"the line is not UTF-8 (byte 0x{line[error.start]:02x} at {error.start + 1})"
        raise _Bad("invalid_encoding", message) from None


def _pieces(chunks: Iterable[bytes]) -> Iterator[bytes | None]:
    """Lines without their end; None for one that is too long to be held."""
    parts: list[bytes] = []
    held = 0
    for chunk in chunks:
        *ended, tail = chunk.split(b"\n")
        for piece in ended:
            held += len(piece)
            parts.append(piece)
            yield b"".join(parts).removesuffix(b"\r") if held <= MOST_ROW_BYTES else None
            parts.clear()
            held = 0
        held += len(tail)
        if held <= MOST_ROW_BYTES:
            parts.append(tail)
        else:
            parts.clear()
    if held:
        yield b"".join(parts) if held <= MOST_ROW_BYTES else None


def check_columns(names: list[str]) -> None:
    """Raises TableRefused for a header that can't be used."""
    try:
        for at, name in enumerate(names):
            if not name.strip():
                raise _Bad("invalid_header", f"column {at + 1} has no name")
            check_name(name)
        if len(names) > MOST_COLUMNS:
            raise _Bad("invalid_header", f"more than {MOST_COLUMNS} columns")
        if len(set(names)) < len(names):
            twice = next(name for at, name in enumerate(names) if name in names[:at])
            raise _Bad("invalid_header", f"the column '{twice}' is there twice", twice)
    except _Bad as bad:
        raise TableRefused(bad.at(1)) from None


def check_name(name: str) -> None:
    if len(name) > MOST_NAME:
        raise _Bad("invalid_header", f"a column's name has at most {MOST_NAME} characters")


def _read_csv(lines: _Lines) -> Table:
    try:
        first = next(lines)
    except StopIteration:
        raise TableRefused(BadLine("empty_file", "the file is empty")) from None
    except _Bad as bad:
        raise TableRefused(bad.at(1)) from None
    delimiter = _delimiter(first)
    feed = _Fed(first, lines)
    reader = csv.reader(feed, delimiter=delimiter, strict=True)
    try:
        columns = [name.strip() for name in next(reader)]
    except _Bad as bad:
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

    def __init__(self, first: str, lines: _Lines) -> None:
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
    reader: Iterator[list[str]], lines: _Lines, columns: list[str]
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
            yield BadLine("invalid_row", f"the row can't be read: {error}", start)
        except _Bad as bad:
            number += 1
            yield bad.at(start)
            if bad.code == "line_too_long" and lines.taken > 1:
                return  # within quotation marks: nobody knows where the next row begins


def _json_rows(lines: _Lines, columns: list[str]) -> Iterator[TableRow | BadLine]:
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
                raise _Bad("invalid_row", f"with this row there are over {MOST_COLUMNS} columns")
            known.update(new)
            columns += new
            yield TableRow(number, lines.number, values)
        except StopIteration:
            return
        except _Bad as bad:
            number += bad.code in ("line_too_long", "invalid_encoding")
            yield bad.at(lines.number)


def json_object(line: str) -> dict[str, Any]:
    """A line of JSON as the values of a row. Raises _Bad."""
    if line.count(",") > MOST_COMMAS:
        raise _Bad("invalid_row", f"the line has more than {MOST_COMMAS} values")
    try:
        found = json.loads(line, parse_constant=_no_number, object_pairs_hook=_once)
    except RecursionError:
        raise _Bad("invalid_row", "the line is nested too deeply") from None
    except ValueError as error:
        raise _Bad("invalid_row", f"the line is not valid JSON: {str(error)[:200]}") from None
    if not isinstance(found, dict):
        raise _Bad("invalid_row", "the line is not a JSON object")
    problem = value_problem(found)
    if problem is not None:
        raise _Bad("invalid_row", problem)
    for name in found:
        if not name.strip():
            raise _Bad("invalid_row", "a key is empty")
        check_name(name)
    return found


def value_problem(value: Any) -> str | None:
    """What is wrong with a value of a row: too deep, or text that no file can hold."""
    todo: list[tuple[Any, int]] = [(value, 0)]
    while todo:
        each, depth = todo.pop()
        if depth > MOST_DEPTH:
            return f"the row is nested more than {MOST_DEPTH} deep"
        if isinstance(each, dict):
            todo += [(inner, depth + 1) for pair in each.items() for inner in pair]
        elif isinstance(each, list):
            todo += [(inner, depth + 1) for inner in each]
        elif isinstance(each, str) and _HALF.search(each):
            return "the row has half of a UTF-16 pair in it"
        elif isinstance(each, str) and "\0" in each:
            return "the row has a NUL in it"
    return None


def _no_number(word: str) -> Any:
    raise ValueError(f"{word} is no JSON number")


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a key is there twice")
    return found
