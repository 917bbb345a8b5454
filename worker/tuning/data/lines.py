"""Lines of text, JSON objects and records of a table, each with its line number, as they stream."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator
from dataclasses import replace

import msgspec

from shared.lifecycle import BadLine
from worker.tuning.data.example import Refused, check_fields, shown
from worker.upkeep.lines import Line, read_lines

BOM = b"\xef\xbb\xbf"
DELIMITERS = ",;\t"
_decode = msgspec.json.Decoder().decode

Numbered = tuple[int, dict[str, object]]


def lines_of(chunks: Iterable[bytes], *, max_bytes: int) -> Iterator[Line]:
    """The lines without a byte order mark, which spreadsheets like to write."""
    for line in read_lines(chunks, max_bytes=max_bytes):
        if line.number == 1 and line.text is not None:
            yield replace(line, text=line.text.removeprefix(BOM))
        else:
            yield line


def decoded(line: Line, max_bytes: int) -> str:
    """Raises Refused for a line that is too long or not UTF-8."""
    if line.text is None:
        raise Refused("line_too_long", f"the line is longer than {max_bytes} bytes")
    try:
        return line.text.decode()
    except UnicodeDecodeError:
        raise Refused("invalid_encoding", "the line is not UTF-8") from None


def objects_of(lines: Iterable[Line], max_bytes: int) -> Iterator[Numbered | BadLine]:
    """The JSON object of every line that isn't blank, or what is wrong with it."""
    for line in lines:
        if line.text is not None and not line.text.strip():
            continue
        try:
            yield line.number, _object(line, max_bytes)
        except Refused as refusal:
            yield refusal.bad_line(line.number)


def _object(line: Line, max_bytes: int) -> dict[str, object]:
    decoded(line, max_bytes)
    try:
        found = _decode(line.text or b"")
    except ValueError:
        raise Refused("invalid_json_line", "the line is not valid JSON") from None
    except RecursionError:
        raise Refused("invalid_json_line", "the line is nested too deeply") from None
    if not isinstance(found, dict):
        raise Refused("invalid_request", "the line is not a JSON object")
    return found


class _TableLines:
    """Feeds ``csv``: unlike a generator, it goes on after it has raised."""

    def __init__(self, lines: Iterator[Line], max_bytes: int) -> None:
        self._lines = lines
        self._max_bytes = max_bytes
        self._taken = 0
        self.number = 0

    def __iter__(self) -> _TableLines:
        return self

    def begin(self) -> None:
        """A record begins with the next line."""
        self._taken = 0

    def __next__(self) -> str:
        line = next(self._lines)
        self.number = line.number
        self._taken += len(line.text or b"") + 1
        if self._taken > self._max_bytes + 1:  # quoted line feeds: it could be the whole file
            raise Refused("line_too_long", f"the record is longer than {self._max_bytes} bytes")
        return decoded(line, self._max_bytes) + "\n"


def records_of(
    lines: Iterator[Line],
    max_bytes: int,
    required: tuple[str, ...],
    optional: tuple[str, ...] = (),
) -> Iterator[Numbered | BadLine]:
    """The records of a table whose first line names its columns, as objects of ``required`` and
    ``optional`` columns; the line is that on which a record begins. Other columns are left out."""
    table = _TableLines(lines, max_bytes)
    try:
        header = next(table).strip()
        delimiter, columns = _header(header, required)
        check_fields({name: "" for name in columns if name in (*required, *optional)}, required)
    except StopIteration:
        return
    except Refused as refusal:
        yield refusal.bad_line(1)
        return
    reader = csv.reader(table, delimiter=delimiter, strict=True)
    while True:
        start = table.number + 1
        table.begin()
        try:
            values = next(reader)
            if values and any(value.strip() for value in values):
                yield start, _record(columns, values, (*required, *optional))
        except StopIteration:
            return
        except csv.Error as error:
            message = f"the record can't be read: {error}"
            yield BadLine("invalid_csv", message, start)
        except Refused as refusal:
            yield refusal.bad_line(start)


def _header(header: str, required: tuple[str, ...]) -> tuple[str, list[str]]:
    """The delimiter that makes the wanted columns of the first line, and the columns."""
    found: dict[str, list[str]] = {}
    for delimiter in DELIMITERS:
        try:
            names = next(csv.reader([header], delimiter=delimiter, strict=True), [])
        except csv.Error:
            continue
        found[delimiter] = [name.strip() for name in names]
    if not found:
        raise Refused("invalid_csv", "the first line must name the columns")
    delimiter = max(found, key=lambda each: sum(name in found[each] for name in required))
    columns = found[delimiter]
    repeated = [name for name in required if columns.count(name) > 1]
    if repeated:
        raise Refused("invalid_csv", f"the column '{repeated[0]}' is there twice", repeated[0])
    return delimiter, columns


def _record(columns: list[str], values: list[str], wanted: tuple[str, ...]) -> dict[str, object]:
    if len(values) != len(columns):
        named = ", ".join(shown(name) for name in columns[:10])
        message = f"the record has {len(values)} fields, the first line names {len(columns)}"
        raise Refused("invalid_csv", f"{message} ({named})")
    return {name: value for name, value in zip(columns, values, strict=True) if name in wanted}
